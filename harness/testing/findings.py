"""Collect all failures of an object, so that its author sees them at once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from harness.errors import HarnessError
from harness.host.origins import PLUGIN_ERRORS, describe

P = ParamSpec("P")
R = TypeVar("R")


class ConformanceError(AssertionError):
    """An object violates its contract; `failures` has one sentence per violation."""

    def __init__(self, what: str, failures: list[str]) -> None:
        self.what, self.failures = what, failures
        head = f"{len(failures)} failures of {what}:\n- " if len(failures) > 1 else f"{what}: "
        super().__init__(head + "\n- ".join(failures))


class _Enough(Exception):  # not an error: it ends the checks
    """The remaining checks would only repeat the last failure."""


@dataclass
class Findings:
    """The failures of one object found so far."""

    failures: list[str] = field(default_factory=list)

    def run(self, check: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R | None:
        """Run a check and return its result; if it fails, record the failure and return None."""
        return next(iter(self._values(check, *args, **kwargs)), None)

    def _values(self, check: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> list[R]:
        """Return the result of a check as a list of one; if it fails, record the failure and return an empty list."""
        try:
            return [check(*args, **kwargs)]
        except _Enough:
            raise
        except ConformanceError as error:
            self.failures += error.failures
        except (AssertionError, HarnessError) as error:
            self.failures.append(str(error))
        except PLUGIN_ERRORS as error:  # the code under test may fail in any way
            name = getattr(check, "__name__", "check").strip("_").replace("_", " ")
            self.failures.append(describe(error) if name in {"<lambda>", "raise"} else f"{name}: {describe(error)}")
        return []

    def vital(self, check: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a check on which all later checks depend; stop if it fails."""
        before = len(self.failures)
        values = self._values(check, *args, **kwargs)
        if len(self.failures) > before:
            raise _Enough
        return values[0]

    def expect(self, claim: bool, message: str) -> bool:
        """Record a message if a claim is false; return the claim."""
        if not claim:
            self.failures.append(message)
        return claim


@contextmanager
def collected(subject: str) -> Iterator[Findings]:
    """Collect failures; raise one ConformanceError with all of them at the end."""
    findings = Findings()
    try:
        yield findings
    except _Enough:
        pass
    if findings.failures:
        raise ConformanceError(subject, list(dict.fromkeys(findings.failures)))


def expect_call(function: Callable[..., object], *args: object, **kwargs: object) -> None:
    """Raise AssertionError if a function does not accept these arguments, without calling it."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # functions of C extensions have no signature
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        names = ", ".join([*(type(a).__name__ for a in args), *(f"{name}=" for name in kwargs)])
        name = getattr(function, "__name__", repr(function))
        raise AssertionError(f"{name}{signature} cannot be called as {name}({names}): {error}") from error
