"""The token rules of one suite with the tokenizer of one checkpoint: BOS, and truncation of long contexts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from harness.errors import TokenError, choose
from harness.evaluation.text_parts import Ids
from harness.types import Task, Tokenizer

TRUNCATION = ("left", "lm_eval")


@dataclass(frozen=True)
class Encoder:
    """The token rules of one suite, with the tokenizer of one checkpoint."""

    tokenizer: Tokenizer
    max_length: int
    bos: str = "auto"
    truncation: str = "left"
    render: Callable[[str], str] | None = None  # from messages to text, where contexts are conversations

    def __post_init__(self) -> None:
        if self.truncation not in TRUNCATION:
            raise TokenError(f"truncation {self.truncation!r}; expected one of {choose(TRUNCATION)}")
        if self.bos == "always" and self.tokenizer.bos_id is None:
            raise TokenError("bos = always, but the tokenizer has no BOS token; set bos = never or auto in the family")

    @cached_property
    def prefix(self) -> Ids:
        """Return the tokens before every context."""
        if self.bos == "always" and self.tokenizer.bos_id is not None:
            return [self.tokenizer.bos_id]
        return list(self.tokenizer.prefix_ids) if self.bos == "auto" else []

    @property
    def limit(self) -> int:
        """Return the largest number of tokens of a scored sequence."""
        return self.max_length + (self.truncation == "lm_eval")

    def text(self, task: Task, context: str) -> str:
        """Return a context as text; raise TokenError where a template refuses its messages."""
        if self.render is None or task.kind == "text":
            return context
        return self.render(context)

    def before(self, ids: Ids) -> Ids:
        """Return the tokens to add before a context that begins with `ids`: never BOS twice, and one if it is empty."""
        prefix = self.prefix
        if ids and prefix and ids[: len(prefix)] == prefix:
            return []
        return prefix if ids or prefix else [self._first()]

    def _first(self) -> int:
        """Return the token to condition on without context and BOS."""
        ids = (self.tokenizer.bos_id, self.tokenizer.eos_id)
        first = next((i for i in ids if i is not None), None)
        if first is None or self.bos == "never":
            raise TokenError("the context is empty and there is no BOS to condition on; set bos = always in the family")
        return first

    def cut(self, context: Ids, longest: int) -> Ids:
        """Drop the left part of a context so that `longest` more tokens fit after it."""
        over = len(context) + longest - self.limit
        if over <= 0:
            return context
        start = 0 if self.truncation == "lm_eval" else len(self.prefix)
        if over > len(context) - max(start, 1):
            raise TokenError(
                f"a continuation of {longest} tokens does not fit: max_length is {self.max_length}; raise "
                "--max-length if the model allows it, or leave the document out"
            )
        return context[:start] + context[start + over :]
