"""Attribution of errors to plugins: registries mark functions of plugins, and tracebacks are searched for marks.

A marked function runs inside `run`, whose frame has its origin; the type of an error is unchanged. `describe` and the
command line then name plugin and object for every kind of object, wherever the error was caught.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType, TracebackType
from typing import ParamSpec, TypeVar

from harness.errors import PluginError
from harness.types import (
    Check,
    Checker,
    Checkpoint,
    ChoiceScore,
    Engine,
    EngineInfo,
    EngineType,
    Metric,
    Outcome,
    Request,
    Sample,
    SampleRequest,
)
from harness.types.json import Json, JsonObject

P = ParamSpec("P")
R = TypeVar("R")

PLUGIN_ERRORS = (Exception, SystemExit)  # what plugin code may raise without ending a run


@dataclass(frozen=True)
class Origin:
    """An object that a plugin registered: `kind` is metric, law, checker ..."""

    plugin: str
    kind: str
    name: str

    def __str__(self) -> str:
        return f"plugin {self.plugin!r}, {self.kind} {self.name!r}"


def run(origin: Origin, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a function of a plugin; an iterator that it returns is marked, too."""
    result = function(*args, **kwargs)
    return steps(origin, result) if isinstance(result, Iterator) else result  # type: ignore[return-value]  # an iterator stays one


def steps(origin: Origin, iterator: Iterator[R]) -> Iterator[R]:  # noqa: ARG001  # read from the frame
    """Yield from an iterator of a plugin."""
    yield from iterator


_MARKS = (run.__code__, steps.__code__)


def marked(function: Callable[P, R], origin: Origin) -> Callable[P, R]:
    """Return a function whose frames in tracebacks have its origin."""

    @functools.wraps(function, updated=())
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return run(origin, function, *args, **kwargs)

    return call


def frames(error: BaseException) -> list[FrameType]:
    """Return the frames of the traceback of an error, innermost first."""
    stack, trace = [], error.__traceback__
    while trace is not None:
        stack.append(trace.tb_frame)
        trace = trace.tb_next
    return stack[::-1]


def clear_frames(error: BaseException | None) -> None:
    """Clear the variables of all frames of an error and of its causes.

    They would keep the model of an engine that failed in memory for as long as the error is kept. Attribute the error
    before: marks are variables.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def origin_of(error: BaseException, find: Callable[[FrameType], Origin | None] = lambda _: None) -> Origin | None:
    """Return the origin of an error, or None if no plugin raised it; `find` identifies frames that are not marked."""
    for frame in frames(error):
        origin = frame.f_locals.get("origin") if frame.f_code in _MARKS else find(frame)
        if isinstance(origin, Origin):
            return origin
    return None


def describe(error: BaseException, find: Callable[[FrameType], Origin | None] = lambda _: None) -> str:
    """Return any other error as one line: its origin, type and first line."""
    origin = origin_of(error, find)
    text = ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
    if isinstance(error, SystemExit):
        text = f"called sys.exit({error.code!r}), which would end the run; raise an error instead"
    return f"{origin}: {text}" if origin else text


def is_interrupt(error: BaseException | None) -> bool:
    """Return whether an error was caused by Ctrl-C; compiled modules convert it during import."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def mark_metric(metric: Metric, origin: Origin) -> Metric:
    """Return a metric whose functions are marked."""
    aggregate = marked(metric.aggregate, origin) if callable(metric.aggregate) else metric.aggregate
    return replace(metric, fn=marked(metric.fn, origin), aggregate=aggregate)


def mark_checker(checker: Checker, origin: Origin) -> Checker:
    """Return a checker whose functions are marked, including the check made for an argument."""
    check = marked(checker.check, origin)
    if checker.takes:
        check = functools.wraps(check)(lambda argument: marked(check_for(checker, argument, origin), origin))
    prepare = marked(checker.prepare, origin) if checker.prepare else None
    return replace(checker, check=check, prepare=prepare)


def check_for(checker: Checker, argument: str, origin: Origin) -> Check:
    """Return the check that a checker makes for an argument; raise PluginError where it makes something else."""
    check = run(origin, checker.check, argument)
    if isinstance(check, Outcome):
        raise PluginError(
            f"checker {checker.name!r} returned {check!r} for {argument!r}; expected a function of doc, text"
        )
    return check


def mark_engine(engine: EngineType, origin: Origin) -> EngineType:
    """Return an engine whose functions, and the methods of opened engines, are marked."""

    @functools.wraps(engine.inspect)
    def inspect(checkpoint: Checkpoint, folder: Path, **options: Json) -> EngineInfo:
        info = run(origin, engine.inspect, checkpoint, folder, **options)
        is_info = isinstance(info, EngineInfo)
        return replace(info, load_tokenizer=marked(info.load_tokenizer, origin)) if is_info else info

    @functools.wraps(engine.open_engine)
    def open_engine(checkpoint: Checkpoint, folder: Path, **options: Json) -> AbstractContextManager[Engine]:
        return _Opened(run(origin, engine.open_engine, checkpoint, folder, **options), origin)

    return replace(engine, inspect=inspect, open_engine=open_engine, preferred=marked(engine.preferred, origin))


class _Opened(AbstractContextManager[Engine]):
    """A context manager that yields a marked engine."""

    def __init__(self, manager: AbstractContextManager[Engine], origin: Origin) -> None:
        self.manager, self.origin = manager, origin

    def __enter__(self) -> Engine:
        engine = run(self.origin, self._enter)
        return MarkedEngine(engine, self.origin) if isinstance(engine, Engine) else engine

    def _enter(self) -> Engine:
        return self.manager.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return run(self.origin, self.manager.__exit__, kind, error, trace)


class MarkedEngine:
    """An engine whose methods are marked, with all its other attributes."""

    def __init__(self, engine: Engine, origin: Origin) -> None:
        self.engine, self.origin = engine, origin

    def score(self, requests: Iterable[Request]) -> Iterator[ChoiceScore]:
        """Score requests."""
        return run(self.origin, self.engine.score, requests)

    def generate(self, requests: Iterable[SampleRequest]) -> Iterator[Sample]:
        """Draw the samples of requests."""
        return run(self.origin, self.engine.generate, requests)

    def swap(self, checkpoint: Checkpoint, folder: Path) -> None:
        """Serve other weights of the same shape."""
        run(self.origin, self.engine.swap, checkpoint, folder)

    def prefetch(self, checkpoint: Checkpoint, folder: Path) -> None:
        """Prepare for the next swap."""
        run(self.origin, self.engine.prefetch, checkpoint, folder)

    def describe(self) -> JsonObject:
        """Return provenance."""
        return run(self.origin, self.engine.describe)

    def __getattr__(self, name: str) -> object:
        return getattr(self.engine, name)


def is_frame_of(frame: FrameType, value: object) -> bool:
    """Return whether a frame runs code of an object: a method of it or of an object of the same type and name.

    Laws are not wrapped, so that `dataclasses.replace` and `isinstance` work on them.
    """
    code = frame.f_code
    first = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
    if first is value or (type(first) is type(value) and getattr(first, "name", None) == getattr(value, "name", "")):
        return True
    if code.co_varnames[:1] == ("self",):
        return False  # a method of something else
    attributes = (getattr(type(value), name, None) or getattr(value, name) for name in dir(value) if name[:1] != "_")
    return any(getattr(function, "__code__", None) is code for function in attributes)
