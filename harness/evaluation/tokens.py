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

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.errors import TokenError
from harness.evaluation.bos_and_truncation import Encoder
from harness.evaluation.text_parts import (
    CutError,
    Ids,
    PartTokenizer,
    Prompt,
    encode_in_parts,
    encode_whole,
    without_collection,
)
from harness.types import Bools, Doc, Ints, Request, Task

CHUNK = 512  # documents encoded at a time: with long few-shot contexts, the texts of a whole task fill gigabytes


@dataclass(frozen=True)
class Piece:
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


@dataclass(frozen=True)
class Split:
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
    kept = context.rstrip()
    return kept, context[len(kept) :] + continuation


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Return the length of the common prefix of two sequences of one type, comparing slices.

    >>> common_prefix((1, 2, 3), (1, 2, 4, 5))
    2
    """
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle)
    return low


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
    first_rows = np.cumsum([0, *(len(split.n_tokens) for split in splits)])
    pairs = [pair for split in splits for pair in split.pairs]
    pieces = [
        Piece(first + np.array(choices), np.arange(len(choices)))
        for first, split in zip(first_rows[:-1], splits, strict=True)
        for choices in split.rows
    ]
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


def _split_task(task: Task, encoder: Encoder) -> list[Split]:
    """Split all documents; those whose texts may be cut in parts, unless a check shows that the ids are others."""
    chunks = [task.docs[begin : begin + CHUNK] for begin in range(0, len(task.docs), CHUNK)]
    try:
        return [split for docs in chunks for split in _split_docs(task, docs, encoder, whole=task.kind == "text")]
    except CutError:
        return [split for docs in chunks for split in _split_docs(task, docs, encoder, whole=True)]


def _split_docs(task: Task, docs: Sequence[Doc], encoder: Encoder, *, whole: bool) -> list[Split]:
    prompts = [[move_spaces(*_prompt(task, doc, k, encoder)) for k in range(len(doc.choices))] for doc in docs]
    if not whole and isinstance(encoder.tokenizer, PartTokenizer):
        ids = encode_in_parts(prompts, encoder.tokenizer)
    else:
        texts = (text for doc in prompts for context, rest in doc for text in (context, context + rest))
        ids = encode_whole(texts, encoder.tokenizer)
    return [_split(task, doc, doc_prompts, ids, encoder) for doc, doc_prompts in zip(docs, prompts, strict=True)]


def _prompt(task: Task, doc: Doc, choice: int, encoder: Encoder) -> Prompt:
    context, continuation = doc.prompt(choice)
    return encoder.text(task, context), continuation


def _split(task: Task, doc: Doc, prompts: Sequence[Prompt], ids: Mapping[str, Ids], encoder: Encoder) -> Split:
    try:
        if task.kind == "text":
            return _split_text(ids[prompts[0][1]], encoder)
        if len(doc.contexts) == 1:
            return _split_shared(prompts, ids, encoder)
        return _side_by_side([_split_shared([prompt], ids, encoder) for prompt in prompts])
    except TokenError as error:
        raise TokenError(f"task {task.name}, document {doc.doc_id}: {error}") from error


def _split_shared(prompts: Sequence[Prompt], ids: Mapping[str, Ids], encoder: Encoder) -> Split:
    """Split the encodings of one context with each of its continuations at their common boundary."""
    alone = ids[prompts[0][0]]
    wholes = [ids[context + rest] for context, rest in prompts]
    end = min([len(alone), *(common_prefix(alone, whole) for whole in wholes)])
    joined = end < len(alone)
    if encoder.prefix and all(whole[: len(encoder.prefix)] == encoder.prefix for whole in wholes):
        end = max(end, len(encoder.prefix))  # the text contains BOS: never twice, never scored
    context = encoder.before(wholes[0][:end]) + wholes[0][:end]
    continuations = tuple(whole[end:] for whole in wholes)
    lengths = tuple(len(c) for c in continuations)
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
        raise TokenError("the text has no tokens")
    pairs: list[tuple[Ids, tuple[Ids, ...]]] = []
    before, end = encoder.before([]), 0
    while end < len(scored):
        size = encoder.limit - len(before)
        if size < 1:
            raise TokenError(f"max_length {encoder.max_length} leaves no room for text")
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
