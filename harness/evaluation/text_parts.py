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
from dataclasses import dataclass, field
from itertools import chain
from typing import Protocol, runtime_checkable

from harness.evaluation.engine_contract import token_ids
from harness.types import Tokenizer

Ids = list[int]
Prompt = tuple[str, str]
Parts = tuple[str, ...]  # the first part of a text, and later parts, which start at cuts
MOST_CHARACTERS = 2**22  # encoded at a time: the ids and texts of a whole task with long contexts fill gigabytes
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


@dataclass(frozen=True)
class PromptIds:
    """Token ids of contexts with and without their continuations, by text.

    If a continuation starts at a cut, its ids are in `continuations` instead: they are added to those of its context.
    """

    texts: Mapping[str, Ids]
    continuations: Mapping[Prompt, Ids] = field(default_factory=dict)

    def whole(self, prompt: Prompt) -> Ids:
        """Return the ids of a context with its continuation."""
        if prompt in self.continuations:
            return self.texts[prompt[0]] + self.continuations[prompt]
        return self.texts["".join(prompt)]


@contextmanager
def without_collection() -> Iterator[None]:
    """Disable garbage collection: encoding makes many objects but no cycles, and every collection visits them all.

    At the end, all objects join the oldest generation, as if they had been visited. Otherwise the next object that is
    made would start a collection, which takes a fifth of the time of encoding.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            if not gc.get_freeze_count():  # what a caller has frozen stays frozen
                gc.freeze()
                gc.unfreeze()
            gc.enable()


class CutError(Exception):
    """The ids of the parts of a text are not those of the whole."""


def common_prefix(a: Sequence[object], b: Sequence[object]) -> int:
    """Return the length of the common prefix of two texts, or of two sequences of one type, comparing slices.

    >>> common_prefix((1, 2, 3), (1, 2, 4, 5)), common_prefix("abcd", "abXY")
    (2, 2)
    """
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle)
    return low


def in_batches(docs: Iterable[list[Prompt]]) -> Iterator[list[list[Prompt]]]:
    """Yield consecutive documents until their prompts have MOST_CHARACTERS, at least one document at a time."""
    batch, characters = list[list[Prompt]](), 0
    for doc in docs:
        batch.append(doc)
        characters += _characters(doc)
        if characters >= MOST_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _characters(doc: Sequence[Prompt]) -> int:
    return sum(map(len, chain.from_iterable(doc)))


def encode_whole(texts: Iterable[str], tokenizer: Tokenizer) -> dict[str, Ids]:
    """Encode each distinct text once, all in one call."""
    listed = sorted(set(texts))
    return dict(zip(listed, token_ids(tokenizer, listed), strict=True))


def encode_in_parts(docs: Sequence[Sequence[Prompt]], tokenizer: PartTokenizer) -> PromptIds:
    """Return the ids of every context of documents, and of its continuations.

    Raises CutError if the ids of verified texts differ from those of the whole texts.
    """
    heads = dict(_with_heads({context for doc in docs for context, _ in doc}, tokenizer))
    at_cut, across = _at_cut(dict.fromkeys(chain.from_iterable(docs)), tokenizer)
    parts: dict[str, Parts] = {
        context: (head, context[len(head) :]) if head else (context,) for context, head in heads.items()
    }
    parts |= {context + rest: _parts(context, rest, heads[context], tokenizer) for context, rest in across}
    begins = {cut[0]: None for cut in parts.values()}
    later = dict.fromkeys(chain((rest for _, rest in at_cut), *(cut[1:] for cut in parts.values())))
    ids_of_begins, ids_of_later = _encode(begins, tokenizer, first=True), _encode(later, tokenizer, first=False)
    ids = PromptIds(
        {text: sum((ids_of_later[part] for part in cut[1:]), ids_of_begins[cut[0]]) for text, cut in parts.items()},
        {prompt: ids_of_later[prompt[1]] for prompt in at_cut},
    )
    _check(docs, ids, tokenizer)
    return ids


def _at_cut(prompts: Iterable[Prompt], tokenizer: PartTokenizer) -> tuple[list[Prompt], list[Prompt]]:
    """Return the prompts whose continuation starts at a cut, and the others."""
    edges = {prompt: prompt[0][-1:] + prompt[1][:2] for prompt in prompts}
    is_cut = {edge: tokenizer.last_cut(edge) == 1 for edge in set(edges.values())}
    at_cut = [prompt for prompt, edge in edges.items() if is_cut[edge] and prompt[0]]
    across = [prompt for prompt, edge in edges.items() if not (is_cut[edge] and prompt[0])]
    return at_cut, across


def _encode(parts: Iterable[str], tokenizer: PartTokenizer, *, first: bool) -> dict[str, Ids]:
    listed = list(parts)
    return dict(zip(listed, tokenizer.encode_parts(listed, first=first), strict=True))


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
    least = first[:LEAST_SHARED]
    end, shared = begin + 1, len(first)
    while end < len(texts) and texts[end].startswith(least):
        common = common_prefix(first[:shared], texts[end])
        if common < (LEAST_SHARED if end == begin + 1 else max(LEAST_SHARED, shared / 2)):
            break
        end, shared = end + 1, common
    return end, shared


def _parts(context: str, rest: str, head: str, tokenizer: PartTokenizer) -> Parts:
    """Split a context with a continuation that does not start at a cut."""
    cut = tokenizer.last_cut(context)
    if not cut:
        return (context + rest,)
    last = context[cut:] + rest
    return (head, context[len(head) : cut], last) if 0 < len(head) < cut else (context[:cut], last)


def _check(docs: Sequence[Sequence[Prompt]], ids: PromptIds, tokenizer: Tokenizer) -> None:
    """Raise CutError if a text of the first or of the longest document has different ids when encoded whole."""
    longest = max(docs, key=_characters)
    first, last = docs[0][0], longest[-1]
    whole = encode_whole([first[0], "".join(first), "".join(last)], tokenizer)
    pairs = ((first[0], ids.texts[first[0]]), *(("".join(prompt), ids.whole(prompt)) for prompt in (first, last)))
    for text, joined in pairs:
        if joined != whole[text]:
            raise CutError(f"{text!r} has different ids when encoded in parts")
