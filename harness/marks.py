"""Mark what plugins register, so that tracebacks say whose code an error came out of (see origins)."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from harness.origins import Origin, marked, run
from harness.types import (
    Checker,
    Checkpoint,
    ChoiceScore,
    Engine,
    EngineInfo,
    EngineType,
    Metric,
    Request,
    Sample,
    SampleRequest,
)


def mark_metric(metric: Metric, origin: Origin) -> Metric:
    """Return a metric whose functions are marked."""
    aggregate = marked(metric.aggregate, origin) if callable(metric.aggregate) else metric.aggregate
    return replace(metric, fn=marked(metric.fn, origin), aggregate=aggregate)


def mark_checker(checker: Checker, origin: Origin) -> Checker:
    """Return a checker whose functions are marked, the one that it makes for what it takes among them."""
    check = marked(checker.check, origin)
    if checker.takes:
        check = functools.wraps(check)(lambda argument: marked(run(origin, checker.check, argument), origin))
    prepare = marked(checker.prepare, origin) if checker.prepare else None
    return replace(checker, check=check, prepare=prepare)


def mark_engine(engine: EngineType, origin: Origin) -> EngineType:
    """Return an engine whose functions are marked, and the methods of what it opens."""

    @functools.wraps(engine.inspect)
    def inspect(*args: Any, **options: Any) -> Any:
        info = run(origin, engine.inspect, *args, **options)
        is_info = isinstance(info, EngineInfo)
        return replace(info, load_tokenizer=marked(info.load_tokenizer, origin)) if is_info else info

    @functools.wraps(engine.open_engine)
    def open_engine(*args: Any, **options: Any) -> Any:
        return _Opened(run(origin, engine.open_engine, *args, **options), origin)

    return replace(engine, inspect=inspect, open_engine=open_engine, preferred=marked(engine.preferred, origin))


class _Opened(AbstractContextManager[Any]):
    """A context manager that yields a marked engine."""

    def __init__(self, manager: Any, origin: Origin) -> None:
        self.manager, self.origin = manager, origin

    def __enter__(self) -> Any:
        engine = run(self.origin, self._enter)
        return MarkedEngine(engine, self.origin) if isinstance(engine, Engine) else engine

    def _enter(self) -> Any:
        return self.manager.__enter__()

    def __exit__(self, *error: Any) -> Any:
        return run(self.origin, lambda: self.manager.__exit__(*error))


class MarkedEngine:
    """An engine whose methods are marked; its other attributes are there too."""

    def __init__(self, engine: Engine, origin: Origin) -> None:
        self.engine, self.origin = engine, origin

    def score(self, requests: Iterable[Request]) -> Iterator[ChoiceScore]:
        """Score requests."""
        found: Iterator[ChoiceScore] = run(self.origin, self.engine.score, requests)
        return found

    def generate(self, requests: Iterable[SampleRequest]) -> Iterator[Sample]:
        """Draw the samples of requests."""
        found: Iterator[Sample] = run(self.origin, self.engine.generate, requests)
        return found

    def swap(self, checkpoint: Checkpoint, folder: Path) -> None:
        """Serve other weights of the same shape."""
        run(self.origin, self.engine.swap, checkpoint, folder)

    def prefetch(self, checkpoint: Checkpoint, folder: Path) -> None:
        """Take the hint that a checkpoint will be swapped in next."""
        run(self.origin, self.engine.prefetch, checkpoint, folder)

    def describe(self) -> Mapping[str, Any]:
        """Return provenance."""
        found: Mapping[str, Any] = run(self.origin, self.engine.describe)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)


def is_frame_of(frame: FrameType, value: Any) -> bool:
    """Tell whether a frame runs code of an object: a method of it, of an equally named one of its type, or a function.

    Laws are not wrapped, because what they are, they are for `dataclasses.replace` and `isinstance` too.
    """
    code = frame.f_code
    first = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
    if first is value or (type(first) is type(value) and getattr(first, "name", None) == getattr(value, "name", "")):
        return True
    if code.co_varnames[:1] == ("self",):
        return False  # a method of something else
    own = (getattr(type(value), name, None) or getattr(value, name) for name in dir(value) if name[:1] != "_")
    return any(getattr(function, "__code__", None) is code for function in own)
