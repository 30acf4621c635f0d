"""Checkers that extract an answer from a generated text and compare it with the accepted answers of the document.

The accepted answers are the choices that the document's `gold` lists.
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
    """Yield the accepted answers; raise TaskError if the document has none."""
    if not doc.gold:
        raise TaskError(f"document {doc.doc_id} accepts no answer; expected gold: with at least one of its choices")
    yield from (doc.choices[k] for k in doc.gold)


def normalised(text: str) -> str:
    """Return a text in lower case without punctuation, articles and extra white space (Rajpurkar et al. 2016, SQuAD).

    Also drop the quotation marks that TriviaQA drops (Joshi et al. 2017). If nothing would remain, only case and outer
    white space are removed.

    >>> normalised(" The  Beatles' ")
    'beatles'
    """
    lower = text.casefold()
    return " ".join(ARTICLES.sub(" ", lower.translate(PUNCTUATION)).split()) or lower.strip()


def exact(doc: Doc, text: str) -> Outcome:
    """Pass a text that equals an accepted answer, ignoring case, punctuation, articles and white space."""
    answer = normalised(text)
    return _outcome(answer, answer in map(normalised, accepted(doc)))


def numbers(text: str) -> list[Decimal]:
    """Return the numbers in a text. Thousands separators and currency signs are part of a number, units are not.

    A minus sign after a letter, digit or bracket is an operator: 10-5 contains 10 and 5.

    >>> numbers("10-5 apples at $1,234.50, or -3%")
    [Decimal('10'), Decimal('5'), Decimal('1234.50'), Decimal('-3')]
    """
    matches = NUMBER.findall(text.translate(MINUS))
    return [Decimal(re.sub(r"[$€£,]", "", number)) for number in matches]


def last_number(doc: Doc, text: str) -> Outcome:
    """Pass a text whose last number equals that of an accepted answer (GSM8K, Cobbe et al. 2021).

    This is lm-eval's flexible-extract, except that "..." is not a number and the minus sign in 10-5 is an operator.
    """
    last = numbers(text)[-1:]
    if not last:
        return Outcome("failed", "no number")
    return _outcome(str(last[0]), last == _number_in(doc, accepted(doc), last[0]))


def _number_in(doc: Doc, answers: Iterator[str], wanted: Decimal) -> list[Decimal]:
    """Return the last number of the first answer for which it equals `wanted`, or else that of the last answer."""
    last: list[Decimal] = []
    for answer in answers:
        last = numbers(answer)[-1:]
        if not last:
            raise TaskError(f"document {doc.doc_id}: the answer {answer!r} contains no number; use the checker exact")
        if last[0] == wanted:
            break
    return last


def letter(doc: Doc, text: str) -> Outcome:
    """Pass a text that selects the correct letter: "The answer is (B)", "B.", "(B)", or else the last (B)."""
    selected = picked(text)
    letters = [picked(answer) for answer in accepted(doc)]
    if not all(letters):
        raise TaskError(f"document {doc.doc_id} accepts {list(accepted(doc))}; expected letters, such as (A)")
    return _outcome(selected, selected in letters) if selected else Outcome("failed", "no letter")


def picked(text: str) -> str:
    """Return the letter that a text selects, or "".

    Search in this order: the last letter after "answer is", the letter at the start, the last letter in brackets.

    >>> picked("(A) is wrong, (B) is not. So the answer is (B)."), picked(" C. Paris"), picked("A dog"), picked("D")
    ('B', 'C', '', 'D')
    """
    if said := [match[1] for match in SAID.finditer(text) if match[1].isupper()]:
        return said[-1]
    if first := FIRST.match(text):
        return first[1] or first[2]
    return BRACKETED.findall(text)[-1] if BRACKETED.search(text) else ""


def regex(pattern: str) -> Check:
    """Pass a text whose first match of the pattern (its first group, if it has one) is an accepted answer.

    Case, outer white space and a final full stop are ignored. Numbers are compared by value: 1,000 equals 1000.0. If
    the pattern takes too long on a text, the outcome is "timed out".
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
        extracted = matches[0][1 if compiled.groups else 0] or ""
        return _outcome(extracted.strip(), any(_are_equal(extracted, answer) for answer in accepted(doc)))

    return check


def _are_equal(extracted: str, answer: str) -> bool:
    a, b = (text.strip().rstrip(".").casefold() for text in (extracted, answer))
    if a == b:
        return True
    whole = [NUMBER.fullmatch(text.translate(MINUS)) for text in (a, b)]
    return all(whole) and numbers(a) == numbers(b)


def _outcome(answer: str, is_right: bool) -> Outcome:
    return Outcome("passed" if is_right else "failed", answer[:80])


@harness.hookimpl
def register_checkers(register: harness.Register) -> None:
    """Register the checkers."""
    for check in (exact, last_number, letter):
        register(check.__name__, check)
    register("regex", regex, takes="a pattern")
