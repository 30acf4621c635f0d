"""Outcomes of generated text, checkers that decide on them, and samplers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from harness.errors import PluginError
from harness.types.arrays import Ints
from harness.types.tasks import Doc

OUTCOMES = ("passed", "failed", "timed out", "crashed", "unjudged")
PASS_AT = (10, 100)  # the k of pass@k: samples of every document that metrics may need


@dataclass(frozen=True)
class Outcome:
    """The outcome of checking one sample: "passed", "failed", "timed out" or "crashed", with a short reason.

    "failed" means a wrong answer. Without an answer the outcome is "timed out" or "crashed". A text is "unjudged" if it
    is neither right nor wrong: the source of its task has metrics of its own for it.
    """

    outcome: str
    detail: str = ""

    def __post_init__(self) -> None:
        if self.outcome not in OUTCOMES:
            raise PluginError(f"a checker returned the outcome {self.outcome!r}; expected one of {', '.join(OUTCOMES)}")


@runtime_checkable
class Sampler(Protocol):
    """A rule for the number of samples per document, given the outcomes so far."""

    def more(self, drawn: Ints, passed: Ints) -> Ints:
        """Return the number of further samples of each document (n,), given the numbers drawn and passed.

        0 ends a document. The result must depend on nothing else, so that an interrupted suite can be resumed.
        """
        ...

    @property
    def at_most(self) -> int:
        """The largest number of samples per document."""
        ...


Check = Callable[[Doc, str], Outcome]


@dataclass(frozen=True)
class Checker:
    """A registered checker: `check(doc, text)` returns an Outcome, the same for the same text.

    `version` must change whenever an outcome can change; with the name it is part of the identity of a cell of samples.
    With `executes_code`, text is run as a program: only with the user's permission, and after `prepare()`, which
    verifies the sandbox, raises EngineError if it is not safe, and returns notes for the user. `takes` describes an
    argument after a colon (`regex:PATTERN`); `check` is then a function of that argument that returns the check.
    """

    name: str
    check: Callable[..., Outcome | Check]
    version: str = "1"
    executes_code: bool = False
    prepare: Callable[[], Sequence[str]] | None = None
    takes: str = ""
