"""Which plugin's object an error came out of: the registries mark what they keep, and a traceback is read for marks.

A marked function runs inside `run`, whose frame says whose it is; the type of an error stays as it was. So one place
(`describe`, and the command line) names plugin and object for every kind, whichever code happened to catch the error.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

PLUGIN_ERRORS = (Exception, SystemExit)  # what the code of a plugin may raise, of which a run must not die


@dataclass(frozen=True)
class Origin:
    """An object that a plugin registered: `kind` is metric, law, checker ..."""

    plugin: str
    kind: str
    name: str

    def __str__(self) -> str:
        return f"plugin {self.plugin!r}, {self.kind} {self.name!r}"


def run(origin: Origin, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function of a plugin; what it yields later is marked too."""
    found = function(*args, **kwargs)
    return steps(origin, found) if isinstance(found, Iterator) else found


def steps(origin: Origin, iterator: Iterator[Any]) -> Iterator[Any]:  # noqa: ARG001  # read from the frame
    """Yield what an iterator of a plugin yields."""
    yield from iterator


_MARKS = (run.__code__, steps.__code__)


def marked(function: Callable[..., Any], origin: Origin) -> Callable[..., Any]:
    """Return a function that does what another does, and says in tracebacks whose it is."""

    @functools.wraps(function, updated=())
    def call(*args: Any, **kwargs: Any) -> Any:
        return run(origin, function, *args, **kwargs)

    return call


def frames(error: BaseException) -> list[FrameType]:
    """Return the frames that an error came through, the innermost first."""
    found, trace = [], error.__traceback__
    while trace is not None:
        found.append(trace.tb_frame)
        trace = trace.tb_next
    return found[::-1]


def origin_of(error: BaseException, find: Callable[[FrameType], Origin | None] = lambda _: None) -> Origin | None:
    """Return whose code an error came out of, None where no plugin's; `find` knows frames that are not marked."""
    for frame in frames(error):
        origin = frame.f_locals["origin"] if frame.f_code in _MARKS else find(frame)
        if isinstance(origin, Origin):
            return origin
    return None


def describe(error: BaseException, find: Callable[[FrameType], Origin | None] = lambda _: None) -> str:
    """Return an error that is not ours as one line: whose code it came out of, its kind and its first line."""
    origin = origin_of(error, find)
    what = ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
    if isinstance(error, SystemExit):
        what = f"called sys.exit({error.code!r}), which would end the whole run; raise an error instead"
    return f"{origin}: {what}" if origin else what


def is_interrupt(error: BaseException | None) -> bool:
    """Tell whether an error is what a library made of Ctrl-C, as compiled modules do while they are imported."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None
