"""Checkers that read an answer out of a text and compare it with those that a document accepts.

A document accepts the choices that its `gold` lists.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterator
from decimal import Decimal

import harness
from harness import Doc, Outcome, TaskError

Check = Callable[[Doc, str], Outcome]

PUNCTUATION = str.maketrans("", "", string.punctuation + "‘’“”´`")
ARTICLES = re.compile(r"\b(a|an|the)\b")
NUMBER = re.compile(r"(?:(?<![\w)])-)?[$€£]?(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)")
MINUS = str.maketrans({"−": "-", "–": "-"})
SAID = re.compile(r"answer(?: is|:| would be)?:?\s*\**\(?([A-Z])\b(?!['’])", re.IGNORECASE)
FIRST = re.compile(r"\s*\**(?:\(([A-Z])\)|([A-Z])(?:[).:,*]|\s*$|\s*\n))")
BRACKETED = re.compile(r"\(([A-Z])\)")


def accepted(doc: Doc) -> Iterator[str]:
    """Yield the answers that count; raise TaskError where a document has none."""
    if not doc.gold:
        raise TaskError(f"document {doc.doc_id} accepts no answer; expected gold: with at least one of its choices")
    yield from (doc.choices[k] for k in doc.gold)


def normalised(text: str) -> str:
    """Return a text without case, punctuation, articles and superfluous white space (Rajpurkar et al. 2016, SQuAD).

    The quotation marks that TriviaQA also drops (Joshi et al. 2017) are dropped. A text of nothing else stays.

    >>> normalised(" The  Beatles' ")
    'beatles'
    """
    lower = text.casefold()
    return " ".join(ARTICLES.sub(" ", lower.translate(PUNCTUATION)).split()) or lower.strip()


def exact(doc: Doc, text: str) -> Outcome:
    """Pass a text that is an accepted answer, but for case, punctuation, articles and white space."""
    found = normalised(text)
    return _outcome(found, found in map(normalised, accepted(doc)))


def numbers(text: str) -> list[Decimal]:
    """Return the numbers of a text; commas between thousands and signs of currency belong to them, units do not.

    A minus behind a letter, digit or bracket is none: 10-5 holds 10 and 5.

    >>> numbers("10-5 apples at $1,234.50, or -3%")
    [Decimal('10'), Decimal('5'), Decimal('1234.50'), Decimal('-3')]
    """
    found = NUMBER.findall(text.translate(MINUS))
    return [Decimal(re.sub(r"[$€£,]", "", number)) for number in found]


def last_number(doc: Doc, text: str) -> Outcome:
    """Pass a text whose last number equals that of an accepted answer (GSM8K, Cobbe et al. 2021).

    As lm-eval's flexible-extract, but for what that takes for numbers: "..." and the minus of 10-5.
    """
    found = numbers(text)[-1:]
    if not found:
        return Outcome("failed", "no number")
    return _outcome(str(found[0]), found == _number_in(doc, accepted(doc), found[0]))


def _number_in(doc: Doc, answers: Iterator[str], wanted: Decimal) -> list[Decimal]:
    """Return the last number of the first answer where it equals `wanted`; of the last answer where none does."""
    last: list[Decimal] = []
    for answer in answers:
        last = numbers(answer)[-1:]
        if not last:
            raise TaskError(f"document {doc.doc_id}: the answer {answer!r} holds no number; check it with exact")
        if last[0] == wanted:
            break
    return last


def letter(doc: Doc, text: str) -> Outcome:
    """Pass a text that picks the right letter: "The answer is (B)", "B.", "(B)", or else the last (B)."""
    found = picked(text)
    letters = [picked(answer) for answer in accepted(doc)]
    if not all(letters):
        raise TaskError(f"document {doc.doc_id} accepts {list(accepted(doc))}; expected letters, such as (A)")
    return _outcome(found, found in letters) if found else Outcome("failed", "no letter")


def picked(text: str) -> str:
    """Return the letter that a text settles on, or "": said to be the answer, else at the start, else the last (X).

    >>> picked("(A) is wrong, (B) is not. So the answer is (B)."), picked(" C. Paris"), picked("A dog"), picked("D")
    ('B', 'C', '', 'D')
    """
    if said := [match[1] for match in SAID.finditer(text) if match[1].isupper()]:
        return said[-1]
    if first := FIRST.match(text):
        return first[1] or first[2]
    return BRACKETED.findall(text)[-1] if BRACKETED.search(text) else ""


def regex(pattern: str) -> Check:
    """Pass a text whose first match of the pattern (its first group) is an accepted answer, but for case and ends.

    Numbers are compared as such: 1,000 is 1000.0. A text on which the pattern takes too long has timed out.
    """
    try:
        compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise TaskError(f"checker regex:{pattern}: {error}; expected a regular expression of Python") from error

    def check(doc: Doc, text: str) -> Outcome:
        try:
            matches = harness.find_matches(pattern, text, most=1)
        except TimeoutError:
            return Outcome("timed out", "by the pattern")
        if not matches:
            return Outcome("failed", "no match")
        found = matches[0][1 if compiled.groups else 0] or ""
        return _outcome(found.strip(), any(_same(found, answer) for answer in accepted(doc)))

    return check


def _same(found: str, answer: str) -> bool:
    a, b = (text.strip().rstrip(".").casefold() for text in (found, answer))
    if a == b:
        return True
    whole = [NUMBER.fullmatch(text.translate(MINUS)) for text in (a, b)]
    return all(whole) and numbers(a) == numbers(b)


def reference(doc: Doc, _: str) -> Outcome:
    """Pass no judgement: metrics compare the text with the accepted answers (rougeL, bleu, token_f1 ...)."""
    next(accepted(doc))
    return Outcome("unjudged")


def _outcome(found: str, is_right: bool) -> Outcome:
    return Outcome("passed" if is_right else "failed", found[:80])


@harness.hookimpl
def register_checkers(register: harness.Register) -> None:
    """Register them."""
    for check in (exact, last_number, letter, reference):
        register(check.__name__, check)
    register("regex", regex, takes="a pattern")
