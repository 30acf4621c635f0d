"""The contract of checkers, tested on many kinds of texts; part of `harness.testing`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.host.origins import describe
from harness.host.registrars import make_checker
from harness.testing.findings import Findings, collected, expect_call
from harness.types import Check, Checker, Doc, Outcome

ODD_TEXTS = ("", " \n", "\x00", "\ud800", "Größe 大小 🙂", "(" * 300, "1" * 5000, "the answer is 7. " * 6000)


def check_checker(checker: Checker | Check, examples: Iterable[tuple[Doc, str, str]]) -> None:
    """Check a checker: examples (document, text, outcome) give the expected outcomes, and no text raises an error.

    Repeated calls must give the same outcome. `checker` is a function of (doc, text), or a registered Checker. Raises
    an AssertionError that lists all failures.
    """
    examples = list(examples)
    with collected(f"checker {getattr(checker, 'name', getattr(checker, '__name__', checker))!r}") as findings:
        made = findings.vital(_made, checker)
        findings.vital(_expect_examples, examples)
        findings.vital(expect_call, made.check, *examples[0][:2])
        for doc, text, outcome in examples:
            findings.run(_check_example, made, doc, text, outcome)
        findings.run(check_odd_texts, made, examples[0][0], findings)
        findings.run(_check_again, made, examples)


def _made(checker: Checker | Check) -> Checker:
    made = checker if isinstance(checker, Checker) else make_checker("mine", checker)
    assert not made.takes, f"{made.name} takes {made.takes}; pass the checker that find_checker returns"
    return made


def _expect_examples(examples: Sequence[tuple[Doc, str, str]]) -> None:
    assert examples, "give examples: (document, text, outcome)"


def _check_example(checker: Checker, doc: Doc, text: str, outcome: str) -> None:
    result = _outcome(checker, doc, text)
    assert result.outcome == outcome, f"{checker.name}: {text!r} gives {result} for {doc.choices}; expected {outcome}"


def check_odd_texts(checker: Checker, doc: Doc, findings: Findings) -> None:
    """Check that all kinds of texts have an outcome: empty texts, long texts, control characters."""
    for text in ODD_TEXTS:
        first, second = (findings.vital(_outcome, checker, doc, text) for _ in range(2))
        findings.expect(first == second, f"{checker.name}: repeated calls gave {first} and {second} for {_shown(text)}")


def _check_again(checker: Checker, examples: Sequence[tuple[Doc, str, str]]) -> None:
    once = [_outcome(checker, doc, text).outcome for doc, text, _ in examples]
    again = [_outcome(checker, doc, text).outcome for doc, text, _ in reversed(examples)]
    assert again[::-1] == once, f"{checker.name}: repeated calls gave different outcomes"


def _shown(text: str) -> str:
    return repr(text if len(text) < 40 else f"{text[:40]}...")


def _outcome(checker: Checker, doc: Doc, text: str) -> Outcome:
    shown = _shown(text)
    try:
        outcome = checker.check(doc, text)
    except Exception as error:
        raise AssertionError(
            f"{checker.name}: {describe(error)}, for {shown}; any text must have an outcome"
        ) from error
    assert isinstance(outcome, Outcome), f"{checker.name} returned {outcome!r} for {shown}; expected a harness.Outcome"
    return outcome
