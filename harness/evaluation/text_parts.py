"""Encode the texts of many prompts; encode shared parts once, with the same ids as for whole texts.

A tokenizer may prove that a text can be cut: the ids of the whole text are those of its parts, concatenated
(`PartTokenizer`). Then a block of few-shot examples is encoded once for all documents, and a context once for all its
choices. Texts without a cut are encoded whole. In each call, the texts of the first and of the longest document are
also encoded whole. If their ids differ, no text of the task is cut.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from harness.types import Tokenizer

Ids = list[int]
Prompt = tuple[str, str]
Parts = tuple[str, ...]  # the first part of a text, and later parts, which start at cuts
LEAST_SHARED = 64  # smallest common prefix of contexts that is encoded separately, in characters


@runtime_checkable
class PartTokenizer(Tokenizer, Protocol):
    """A tokenizer that knows where texts can be cut."""

    def last_cut(self, text: str) -> int:
        """Return the last place where a text that starts with this one can be cut; 0 if none is proven."""
        ...

    def encode_parts(self, texts: Sequence[str], *, first: bool) -> list[Ids]:
        """Encode first parts, or later parts, without special tokens."""
        ...


@contextmanager
def without_collection() -> Iterator[None]:
    """Disable garbage collection: encoding makes many objects but no cycles, and every collection visits them all."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class CutError(Exception):
    """The ids of the parts of a text are not those of the whole."""


def common_start(a: str, b: str) -> int:
    """Return the length of the common prefix of two texts.

    >>> common_start("abcd", "abXY")
    2
    """
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if a.startswith(b[low:middle], low) else (low, middle)
    return low


def encode_whole(texts: Iterable[str], tokenizer: Tokenizer) -> dict[str, Ids]:
    """Encode each distinct text once, all in one call."""
    listed = sorted(set(texts))
    return dict(zip(listed, tokenizer.encode_batch(listed), strict=True))


def encode_in_parts(docs: Sequence[Sequence[Prompt]], tokenizer: PartTokenizer) -> dict[str, Ids]:
    """Return the ids of every context, and of every context with its continuation, of documents.

    Raises CutError if the ids of verified texts differ from those of the whole texts.
    """
    heads = dict(_with_heads({context for doc in docs for context, _ in doc}, tokenizer))
    parts = {context + rest: _parts(context, rest, heads[context], tokenizer) for doc in docs for context, rest in doc}
    parts |= {context: (head, context[len(head) :]) if head else (context,) for context, head in heads.items()}
    ids_by_text = _joined(parts, tokenizer)
    _check(docs, ids_by_text, tokenizer)
    return ids_by_text


def _with_heads(contexts: Iterable[str], tokenizer: PartTokenizer) -> Iterator[tuple[str, str]]:
    """Yield contexts, each with the prefix that it shares with others, or ""."""
    listed = sorted(contexts)
    begin = 0
    while begin < len(listed):
        end, shared = _run_from(listed, begin)
        cut = tokenizer.last_cut(listed[begin][:shared]) if end > begin + 1 else 0
        yield from ((context, context[:cut]) for context in listed[begin:end])
        begin = end


def _run_from(texts: Sequence[str], begin: int) -> tuple[int, int]:
    """Return the end of the run that starts here, and the number of characters that its texts share.

    It ends before a text that would leave less than half of the characters shared so far.
    """
    first = texts[begin]
    end, shared = begin + 1, len(first)
    while end < len(texts):
        common = common_start(first[:shared], texts[end])
        if common < (LEAST_SHARED if end == begin + 1 else max(LEAST_SHARED, shared / 2)):
            break
        end, shared = end + 1, common
    return end, shared


def _parts(context: str, rest: str, head: str, tokenizer: PartTokenizer) -> Parts:
    """Split a context with its continuation, if possible at their boundary."""
    if tokenizer.last_cut(context[-1:] + rest[:2]) == 1 and context:
        return (head, context[len(head) :], rest) if head else (context, rest)
    cut = tokenizer.last_cut(context)
    if not cut:
        return (context + rest,)
    last = context[cut:] + rest
    return (head, context[len(head) : cut], last) if 0 < len(head) < cut else (context[:cut], last)


def _joined(parts: Mapping[str, Parts], tokenizer: PartTokenizer) -> dict[str, Ids]:
    """Encode each distinct part once, and concatenate the parts of every text."""
    firsts = sorted({cut[0] for cut in parts.values()})
    rests = sorted({part for cut in parts.values() for part in cut[1:]})
    begins = dict(zip(firsts, tokenizer.encode_parts(firsts, first=True), strict=True))
    others = dict(zip(rests, tokenizer.encode_parts(rests, first=False), strict=True))
    return {text: begins[cut[0]] + [i for part in cut[1:] for i in others[part]] for text, cut in parts.items()}


def _check(docs: Sequence[Sequence[Prompt]], ids_by_text: Mapping[str, Ids], tokenizer: Tokenizer) -> None:
    """Raise CutError if a text of the first or of the longest document has different ids when encoded whole."""
    longest = max(docs, key=lambda doc: sum(len(context) + len(rest) for context, rest in doc))
    first, last = docs[0][0], longest[-1]
    for text, ids in encode_whole([first[0], "".join(first), "".join(last)], tokenizer).items():
        if ids_by_text[text] != ids:
            raise CutError(f"{text!r} has different ids when encoded in parts")
