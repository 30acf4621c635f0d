"""Check that a model knows all tokens of a task: an id beyond its embedding would end the process on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from harness.errors import TokenError
from harness.evaluation.tokens import EncodedPrompts, EncodedTask
from harness.types import EngineInfo, Task, Tokenizer


@runtime_checkable
class NamedTokens(Tokenizer, Protocol):
    """A tokenizer that tells how many tokens it has, and the text of each."""

    size: int

    def token(self, number: int) -> str:
        """Return the text of a token."""
        ...


def expect_known(encoded: EncodedTask | EncodedPrompts, task: Task, info: EngineInfo) -> None:
    """Raise TokenError, naming the first document with a token that the model does not know."""
    known = info.vocabulary
    if known is None or encoded.largest < known:
        return
    doc_id, number = next((doc_id, largest) for doc_id, largest in _largest(encoded, task) if largest >= known)
    tokenizer = info.load_tokenizer()
    token, size = f"token {number}", ""
    if isinstance(tokenizer, NamedTokens):
        token, size = f"{token}, {tokenizer.token(number)!r},", f", and its tokenizer {tokenizer.size}"
    raise TokenError(
        f"task {task.name}, document {doc_id}: the model has no {token} because its vocabulary has {known} tokens"
        f"{size}; use the tokenizer that it was trained with, or add the missing rows to its embedding "
        "(resize_token_embeddings in transformers)"
    )


def _largest(encoded: EncodedTask | EncodedPrompts, task: Task) -> Iterator[tuple[str, int]]:
    """Yield the documents of requests, each with the largest token id of its request."""
    if isinstance(encoded, EncodedPrompts):
        for doc, prompt in zip(task.docs, encoded.prompts, strict=True):
            yield doc.doc_id, max(prompt, default=0)
    else:
        for request, piece in zip(encoded.requests, encoded.pieces, strict=True):
            yield encoded.doc_ids[piece.rows[0]], max(map(max, (request.context or (0,), *request.continuations)))
