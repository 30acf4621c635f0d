"""What every checker promises, checked on texts of all kinds; `harness.testing` offers it to plugin authors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from harness.errors import PluginError
from harness.origins import describe
from harness.registries import make_checker
from harness.types import Checker, Doc, Outcome

ODD_TEXTS = ("", " \n", "\x00", "\ud800", "Größe 大小 🙂", "(" * 300, "1" * 5000, "the answer is 7. " * 6000)


def check_checker(checker: Checker | Callable[..., Any], examples: Iterable[tuple[Doc, str, str]]) -> None:
    """Check a checker: examples (document, text, outcome) come out as said, and no text whatever makes it raise.

    Outcomes must be the same at each call. `checker` is a function of (doc, text), or a registered Checker.
    """
    try:
        checker = checker if isinstance(checker, Checker) else make_checker("mine", checker)
    except PluginError as error:
        raise AssertionError(str(error)) from error
    assert not checker.takes, f"{checker.name} takes {checker.takes}; pass what find_checker returns for it"
    examples = list(examples)
    assert examples, "give examples: (document, text, outcome)"
    outcomes = [_outcome(checker, doc, text) for doc, text, _ in examples]
    for found, (doc, text, outcome) in zip(outcomes, examples, strict=True):
        assert found.outcome == outcome, f"{checker.name}: {text!r} gives {found} for {doc.choices}; expected {outcome}"
    for text in ODD_TEXTS:
        _outcome(checker, examples[0][0], text)
    again = [_outcome(checker, doc, text) for doc, text, _ in reversed(examples)]
    assert [o.outcome for o in again[::-1]] == [o.outcome for o in outcomes], f"{checker.name}: other outcomes later"


def _outcome(checker: Checker, doc: Doc, text: str) -> Outcome:
    shown = repr(text if len(text) < 40 else f"{text[:40]}...")
    try:
        found = checker.check(doc, text)
    except Exception as error:
        raise AssertionError(
            f"{checker.name}: {describe(error)}, for {shown}; any text must have an outcome"
        ) from error
    assert isinstance(found, Outcome), f"{checker.name} says {found!r} of {shown}; expected a harness.Outcome"
    return found
