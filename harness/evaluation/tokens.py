"""From prompts to token ids: where the context ends, what stands before it, and what happens when it is too long.

All engines use the same rules. All prompts are checked before the first forward pass.

- Spaces at the end of a context move to the start of its continuations, as in lm-eval (`_encode_pair`).
- A context and its continuation are encoded together. The boundary is determined once per context: it is the longest
  prefix that the encoding of the context alone shares with the encodings of all its choices. If a token spans the
  join, the boundary moves left for all choices, so that their log-probabilities remain comparable. Such documents are
  counted as `joined`.
- BOS is `always`, `never`, or `auto` (what the tokenizer adds by default), and is never added twice. Continuations of
  an empty context are scored after BOS, or after EOS if there is no BOS, as in lm-eval.
- A scored sequence has at most `max_length` tokens. Truncation `left` keeps BOS and drops the left part of the context,
  the same part for all choices of a document. Truncation `lm_eval` keeps the last max_length + 1 tokens of each
  sequence, so BOS is lost.
- Longer plain text is split into windows, as in lm-eval's rolling log-likelihood. Each window after the first is
  conditioned on the token before it, and the last window on as many tokens as fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import NamedTuple

import numpy as np

from harness.errors import TokenError
from harness.evaluation.bos_and_truncation import Encoder
from harness.evaluation.text_parts import (
    CutError,
    Ids,
    PartTokenizer,
    Prompt,
    PromptIds,
    common_prefix,
    encode_in_parts,
    encode_whole,
    in_batches,
    without_collection,
)
from harness.types import Bools, Doc, Ints, Request, Task


class Piece(NamedTuple):
    """Target of the scores of a request: that of continuation `which[i]` is added to row `rows[i]`, shapes (r,).

    All scores of a request go to the conditional column, or all to the unconditional one.
    """

    rows: Ints
    which: Ints
    unconditional: bool = False


@dataclass(frozen=True)
class EncodedTask:
    """A task as token ids.

    Rows are the choices of all documents in order. `requests[i].key` is i, and `pieces[i]` is the target of its scores:
    several windows of a long text add to one row, and one unconditional score to all rows of equal text. `n_tokens`
    and `truncated` are per row; `joined` counts documents with a token across the join.
    """

    requests: tuple[Request, ...]
    pieces: tuple[Piece, ...]
    doc_ids: tuple[str, ...]
    choices: Ints
    n_tokens: Ints
    truncated: Bools
    joined: int = 0

    @cached_property
    def largest(self) -> int:
        """Return the largest token id."""
        return max((max(map(max, (r.context or (0,), *r.continuations))) for r in self.requests), default=0)

    @property
    def total_tokens(self) -> int:
        """Return the tokens read by a forward pass over every sequence; contexts are counted once per choice."""
        return sum(len(r.context) + len(c) for r in self.requests for c in r.continuations)


class Split(NamedTuple):
    """One document as token ids: pairs of a context (BOS included) and its continuations.

    `rows[i][k]` is the choice of the k-th continuation of pair i.
    """

    pairs: tuple[tuple[Ids, tuple[Ids, ...]], ...]
    rows: tuple[tuple[int, ...], ...]
    truncated: tuple[bool, ...]
    n_tokens: tuple[int, ...]
    joined: bool = False


def move_spaces(context: str, continuation: str) -> tuple[str, str]:
    """Move white space from the end of the context to the front of the continuation.

    >>> move_spaces("Answer: ", "Paris")
    ('Answer:', ' Paris')
    """
    stripped = context.rstrip()
    return stripped, context[len(stripped) :] + continuation


@dataclass(frozen=True)
class EncodedPrompts:
    """The prompts of a task with generated text, as token ids, one per document; `truncated` (n,) marks cut ones."""

    prompts: tuple[tuple[int, ...], ...]
    truncated: Bools
    max_tokens: int

    @cached_property
    def largest(self) -> int:
        """Return the largest token id."""
        return max((max(prompt, default=0) for prompt in self.prompts), default=0)

    @property
    def total_tokens(self) -> int:
        """Return the largest number of tokens read and generated for one sample of every document."""
        return sum(len(prompt) + self.max_tokens for prompt in self.prompts)


def encode_prompts(task: Task, encoder: Encoder) -> EncodedPrompts:
    """Tokenise the prompts of a task, leaving room for max_tokens; raise TokenError, naming task and document, if a
    prompt does not fit.
    """
    if task.generation is None:
        raise TokenError(f"task {task.name} generates no text")
    most, prompts, truncated = task.generation.max_tokens, list[tuple[int, ...]](), list[bool]()
    texts = [encoder.text(task, doc.contexts[0]) for doc in task.docs]
    ids = encode_whole(texts, encoder.tokenizer)
    room = most + (encoder.truncation == "lm_eval")  # lm-eval leaves room for all tokens that are drawn
    for doc, text in zip(task.docs, texts, strict=True):
        whole = encoder.before(ids[text]) + ids[text]
        try:
            prompts.append(tuple(encoder.cut(whole, room)))
        except TokenError as error:
            raise TokenError(f"task {task.name}, document {doc.doc_id}: {error}") from error
        truncated.append(len(prompts[-1]) < len(whole))
    return EncodedPrompts(tuple(prompts), np.array(truncated, dtype=np.bool_), most)


def encode_task(task: Task, encoder: Encoder) -> EncodedTask:
    """Tokenise a task into requests; raise TokenError, naming task and document, before anything is scored."""
    with without_collection():
        return _encode_task(task, encoder)


def _encode_task(task: Task, encoder: Encoder) -> EncodedTask:
    splits = _split_task(task, encoder)
    pairs = [pair for split in splits for pair in split.pairs]
    pieces = _pieces(splits)
    if task.unconditional:
        for pair, piece in _unconditional(task, encoder):
            pairs.append(pair)
            pieces.append(piece)
    return EncodedTask(
        requests=tuple(Request(i, tuple(c), tuple(map(tuple, rest))) for i, (c, rest) in enumerate(pairs)),
        pieces=tuple(pieces),
        doc_ids=tuple(doc.doc_id for doc in task.docs for _ in doc.choices),
        choices=np.array([k for doc in task.docs for k in range(len(doc.choices))], dtype=np.int64),
        n_tokens=np.array([n for split in splits for n in split.n_tokens], dtype=np.int64),
        truncated=np.array([cut for split in splits for cut in split.truncated], dtype=np.bool_),
        joined=sum(split.joined for split in splits),
    )


def _pieces(splits: Sequence[Split]) -> list[Piece]:
    """Return the target of the scores of every pair; all arrays are views of two, because small ones cost more."""
    first_rows = np.cumsum([0, *(len(split.n_tokens) for split in splits)])
    choices = [rows for split in splits for rows in split.rows]
    counts = np.array([len(rows) for rows in choices], dtype=np.int64)
    ends = np.cumsum(counts)
    first_of_pairs = np.repeat(first_rows[:-1], [len(split.rows) for split in splits])
    rows = np.fromiter(chain.from_iterable(choices), np.int64) + np.repeat(first_of_pairs, counts)
    which = np.arange(len(rows)) - np.repeat(ends - counts, counts)
    slices = map(slice, (ends - counts).tolist(), ends.tolist())
    return [Piece(rows[part], which[part]) for part in slices]


def _split_task(task: Task, encoder: Encoder) -> list[Split]:
    """Split all documents; those whose texts may be cut in parts, unless a check shows that the ids are others."""
    try:
        return list(_split_docs(task, encoder, whole=task.kind == "text"))
    except CutError:
        return list(_split_docs(task, encoder, whole=True))


def _split_docs(task: Task, encoder: Encoder, *, whole: bool) -> Iterator[Split]:
    docs = iter(task.docs)
    for prompts in in_batches(_prompts(task, doc, encoder) for doc in task.docs):
        if not whole and isinstance(encoder.tokenizer, PartTokenizer):
            ids = encode_in_parts(prompts, encoder.tokenizer)
        else:
            texts = (text for doc in prompts for context, rest in doc for text in (context, context + rest))
            ids = PromptIds(encode_whole(texts, encoder.tokenizer))
        for doc_prompts, doc in zip(prompts, docs, strict=False):  # the next batch goes on with the rest of docs
            yield _split(task, doc, doc_prompts, ids, encoder)


def _prompts(task: Task, doc: Doc, encoder: Encoder) -> list[Prompt]:
    """Return the context and the continuation of every choice, without spaces between them in the context."""
    contexts = [encoder.text(task, context) for context in doc.contexts]
    choices = range(len(doc.choices))
    return [move_spaces(contexts[k if len(contexts) > 1 else 0], doc.prompt(k)[1]) for k in choices]


def _split(task: Task, doc: Doc, prompts: Sequence[Prompt], ids: PromptIds, encoder: Encoder) -> Split:
    try:
        if task.kind == "text":
            return _split_text(ids.texts[prompts[0][1]], encoder)
        if len(doc.contexts) == 1:
            return _split_shared(prompts, ids, encoder)
        return _side_by_side([_split_shared([prompt], ids, encoder) for prompt in prompts])
    except TokenError as error:
        raise TokenError(f"task {task.name}, document {doc.doc_id}: {error}") from error


def _split_shared(prompts: Sequence[Prompt], ids: PromptIds, encoder: Encoder) -> Split:
    """Split the encodings of one context with each of its continuations at their common boundary."""
    context, continuations, joined = _divide(prompts, ids, encoder)
    context = encoder.before(context) + context
    lengths = tuple(map(len, continuations))
    if 0 in lengths:
        k = lengths.index(0)
        raise TokenError(f"choice {k}: the continuation {prompts[k][1]!r} has no tokens; correct the document")
    if encoder.truncation == "lm_eval" and len(context) + max(lengths) > encoder.limit:  # the context is cut per choice
        contexts = [encoder.cut(context, n) for n in lengths]
        truncated = tuple(len(cut) < len(context) for cut in contexts)
        pairs = tuple((cut, (c,)) for cut, c in zip(contexts, continuations, strict=True))
        return Split(pairs, tuple((k,) for k in range(len(pairs))), truncated, lengths, joined)
    cut = encoder.cut(context, max(lengths))
    truncated = (len(cut) < len(context),) * len(lengths)
    return Split(((cut, continuations),), (tuple(range(len(lengths))),), truncated, lengths, joined)


def _divide(prompts: Sequence[Prompt], ids: PromptIds, encoder: Encoder) -> tuple[Ids, tuple[Ids, ...], bool]:
    """Return the ids of a context and of its continuations, and whether a token spans their boundary."""
    alone = ids.texts[prompts[0][0]]
    rests = [rest for prompt in prompts if (rest := ids.continuations.get(prompt)) is not None]
    if len(rests) == len(prompts) and len(alone) >= len(encoder.prefix):
        return alone, tuple(rests), False
    wholes = [ids.whole(prompt) for prompt in prompts]
    end = min([len(alone), *(common_prefix(alone, whole) for whole in wholes)])
    joined = end < len(alone)
    if encoder.prefix and all(whole[: len(encoder.prefix)] == encoder.prefix for whole in wholes):
        end = max(end, len(encoder.prefix))  # the text contains BOS: never twice, never scored
    return wholes[0][:end], tuple(whole[end:] for whole in wholes), joined


def _side_by_side(splits: Sequence[Split]) -> Split:
    """Join the choices of a document with different contexts; the i-th split has choice i."""
    return Split(
        pairs=tuple(pair for split in splits for pair in split.pairs),
        rows=tuple((k,) for k, split in enumerate(splits) for _ in split.pairs),
        truncated=tuple(split.truncated[0] for split in splits),
        n_tokens=tuple(split.n_tokens[0] for split in splits),
        joined=any(split.joined for split in splits),
    )


def _split_text(text: Ids, encoder: Encoder) -> Split:
    """Split a text into windows of at most `limit` tokens, including the tokens that each is conditioned on."""
    prefix = encoder.prefix if encoder.prefix and text[: len(encoder.prefix)] == encoder.prefix else []
    scored = text[len(prefix) :]
    if not scored:
        raise TokenError("the text has no tokens; leave the document out")
    pairs: list[tuple[Ids, tuple[Ids, ...]]] = []
    before, end = encoder.before([]), 0
    while end < len(scored):
        size = encoder.limit - len(before)
        if size < 1:
            raise TokenError(f"max_length {encoder.max_length} leaves no room for text; raise --max-length")
        pairs.append((before, (scored[end : end + size],)))
        end += size
        filled = min(len(scored), end + encoder.limit - 1)  # the last window starts early enough to be full
        before = scored[filled - encoder.limit : end]
    return Split(tuple(pairs), ((0,),) * len(pairs), (False,), (len(scored),))


def _unconditional(task: Task, encoder: Encoder) -> Iterator[tuple[tuple[Ids, tuple[Ids, ...]], Piece]]:
    """Yield every continuation without its context, as in lm-eval's acc_mutual_info; equal texts once."""
    rows: dict[str, list[int]] = {}
    texts = (doc.prompt(k)[1] for doc in task.docs for k in range(len(doc.choices)))
    for row, text in enumerate(texts):
        rows.setdefault(text, []).append(row)
    for text, encoded in encode_whole(rows, encoder.tokenizer).items():
        numbers = np.array(rows[text])
        yield (encoder.before([]), (encoded,)), Piece(numbers, np.zeros_like(numbers), unconditional=True)
