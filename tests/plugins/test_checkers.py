"""Checkers of answers: what passes, what does not, and that published answers are found in published solutions."""

from __future__ import annotations

import json

import pytest

import harness
from harness import Doc, Outcome, PluginError, TaskError, UsageError
from harness.host.registries import find_checker
from harness.testing import check_checker
from tests.conftest import published


def doc(*accepted: str, others: tuple[str, ...] = ()) -> Doc:
    return Doc("7", ("Q",), accepted, (*others, *accepted), tuple(range(len(others), len(others) + len(accepted))))


@pytest.mark.parametrize(
    ("checker", "accepted", "passes", "fails"),
    [
        ("exact", ("The Beatles", "Fab Four"), ["beatles", " THE  BEATLES.", "the fab four"], ["beetles"]),
        ("exact", ("A",), ["a", "A"], ["", "the"]),
        ("exact", ("don't stop",), ["Don’t stop!"], ["do stop"]),
        ("last_number", ("1000",), ["5 x 200 = $1,000.00.", "it is 1000 km", "Rs1000", "1,000..."], ["1, 000", "1001"]),
        ("last_number", ("3 + 2 = 5\n#### 5",), ["10-5=5", "10-5", "5.0"], ["it is -5", "5 of 6", "five", "−5"]),
        ("last_number", ("-0.5",), ["it is -.5", "−0.50"], ["0.5"]),
        ("last_number", ("7", "8"), ["7", "8"], ["9"]),
        ("letter", ("(B)",), ["(B)", " B.", "**B**", "not (A); the answer is (B)", "I say (B)"], ["A", "", "Because"]),
        ("letter", ("A",), ["The answer is A."], ["A dog", "the answer is a dog"]),
        ("regex:#### (.*)", ("1,200",), ["so\n#### 1200", "#### 1200.00.\n#### 3"], ["1200", "####", "#### 12.00"]),
        ("regex:(?i)is ([a-z]+)", ("Paris",), ["It IS paris.", "is Paris or is Rome"], ["is Rome"]),
    ],
)  # fmt: skip
def test_what_passes_and_what_does_not(host, checker, accepted, passes, fails):
    asked = doc(*accepted, others=("Z",))
    examples = [(asked, text, "passed") for text in passes] + [(asked, text, "failed") for text in fails]
    check_checker(find_checker(checker, host), examples)


def test_the_last_number_of_every_published_solution_is_its_answer(host):
    check = host.checkers["last_number"].check
    lines = published("tasks", "gsm8k", "test.jsonl").read_text(encoding="utf-8").splitlines()
    solutions = [json.loads(line)["answer"] for line in lines]
    assert len(solutions) == 1319
    for solution in solutions:
        worked, _, answer = solution.partition("#### ")
        assert check(doc(answer), solution).outcome == "passed"
        assert check(doc(answer), f"{worked} The answer is ${answer}.").outcome == "passed"
        assert check(doc(answer), f"{solution}1").outcome == "failed"


def test_the_right_letter_of_every_published_question_passes_and_no_other(host):
    check = host.checkers["letter"].check
    rows = json.loads(published("tasks", "bbh", "date_understanding.json").read_text(encoding="utf-8"))["examples"]
    assert len(rows) == 250
    for row in rows:
        right = {x for x in "ABCDEF" if check(doc(row["target"]), f"I think the answer is ({x}).").outcome == "passed"}
        assert right == {row["target"].strip("()")}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("exactly", "there is no 'exactly' in checkers; did you mean 'exact'"),
        ("exact:yes", "exact takes no argument after a colon; write exact"),
        ("regex", "expected a pattern after a colon, regex:..."),
    ],
)
def test_a_checker_that_is_not_there_is_named(host, spec, message):
    with pytest.raises(UsageError, match=message):
        find_checker(spec, host)


def test_a_pattern_is_part_of_the_name_and_must_be_one(host):
    assert find_checker("regex:a:b", host).name == "regex:a:b"
    with pytest.raises(TaskError, match=r"checker regex:\(: missing \)"):
        find_checker("regex:(", host)


def test_a_document_that_cannot_be_checked_is_named(host):
    with pytest.raises(TaskError, match="document 7 accepts no answer"):
        host.checkers["exact"].check(doc(), "x")
    with pytest.raises(TaskError, match="document 7: the answer 'seven' contains no number; use the checker exact"):
        host.checkers["last_number"].check(doc("seven"), "7")
    with pytest.raises(TaskError, match=r"document 7 accepts \['seven'\]; expected letters"):
        host.checkers["letter"].check(doc("seven"), "7")


def test_an_outcome_is_one_of_four():
    with pytest.raises(
        PluginError, match="a checker returned the outcome 'ok'; expected one of passed, failed, timed out, crashed"
    ):
        Outcome("ok")


class Moody:
    """Passes every other text."""

    calls = 0

    def __call__(self, doc, text):
        self.calls += 1
        return Outcome("passed" if self.calls % 2 else "failed")


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (Moody(), "repeated calls gave different outcomes"),
        (lambda doc, text: text == "x", "returned True for 'x'; expected a harness.Outcome"),
        (lambda doc, text: Outcome("passed" if text[0] else ""), "IndexError: string index out of range, for ''"),
        (lambda doc, text: Outcome("passed" if text.encode() else "failed"), "UnicodeEncodeError: .*any text must"),
        (lambda doc, text: Outcome("failed"), r"'x' gives Outcome\(outcome='failed', .*; expected passed"),
        (3, "'mine' is registered with 3, which cannot be called"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_checker_is_said(check, message):
    with pytest.raises(AssertionError, match=message):
        check_checker(check, [(doc("x"), "x", "passed")])


def test_a_checker_that_takes_a_pattern_must_have_one(host):
    with pytest.raises(AssertionError, match="regex takes a pattern"):
        check_checker(host.checkers["regex"], [(doc("x"), "x", "passed")])


def test_what_is_public_of_a_checker():
    assert harness.Checker("mine", len).version == "1"
