"""Tokenizers of the transformers library with the interface of the harness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from harness_plugins.engines.text_cuts import find_cuts
from harness_plugins.engines.word_cache import PartEncoder

ENCODERS = ("__call__", "_call_one", "_encode_plus", "_batch_encode_plus", "prepare_for_tokenization")


class HFTokenizer:
    """A transformers tokenizer with the interface of the harness."""

    def __init__(self, folder: str, *, trust_remote_code: bool = False) -> None:
        from transformers import AutoTokenizer

        self.inner = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        self.bos_id: int | None = self.inner.bos_token_id
        self.eos_id: int | None = self.inner.eos_token_id
        plain, natural = self.encode_batch(["a"])[0], list(self.inner("a")["input_ids"])
        start = next((i for i in range(len(natural)) if natural[i : i + len(plain)] == plain), 0)
        self.prefix_ids: tuple[int, ...] = tuple(natural[:start])
        cuts = find_cuts(self.inner.backend_tokenizer.to_str()) if _is_plain(self.inner) else None
        self.parts = PartEncoder(cuts, self._encode_alone) if cuts else None

    @property
    def size(self) -> int:
        """Return the number of tokens, added ones included."""
        return len(self.inner)

    def token(self, number: int) -> str:
        """Return the text of a token."""
        return str(self.inner.convert_ids_to_tokens(number))

    def last_cut(self, text: str) -> int:
        """Return the last place where texts that start with this one can be encoded in two parts; 0 if none is known.

        The place is valid for any text that follows.
        """
        return self.parts.cuts.last(text) if self.parts else 0

    def encode_parts(self, texts: Sequence[str], *, first: bool) -> list[list[int]]:
        """Encode the first parts of texts, or their later parts, which start at a cut."""
        return self.parts.encode_parts(texts, first=first) if self.parts else self.encode_batch(texts)

    def _encode_alone(self, texts: list[str]) -> list[list[int]]:
        """Encode texts as encode_batch does, but without the overhead of transformers."""
        backend = self.inner.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = self.inner.split_special_tokens
        return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode texts without any special token."""
        if not texts:
            return []
        settings = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
        return [list(ids) for ids in self.inner(list(texts), **settings)["input_ids"]]  # tokens.py limits the length

    def render_chat(self, messages: Sequence[Mapping[str, str]], template: str) -> str:
        """Return a conversation as text that ends where the assistant's turn starts or, if begun, continues."""
        goes_on = messages[-1]["role"] == "assistant"
        rendered = self.inner.apply_chat_template(
            [dict(message) for message in messages],
            chat_template=template,
            tokenize=False,
            add_generation_prompt=not goes_on,
            continue_final_message=goes_on,
        )
        return str(rendered)


def _is_plain(tokenizer: Any) -> bool:
    """Tell whether a tokenizer passes texts unchanged to a tokenizer of the `tokenizers` library."""
    from transformers import PreTrainedTokenizerFast

    classes = type(tokenizer).__mro__
    if PreTrainedTokenizerFast not in classes:
        return False
    subclasses = classes[: classes.index(PreTrainedTokenizerFast)]
    return not any(name in vars(kind) for kind in subclasses for name in ENCODERS)


@lru_cache(maxsize=8)
def tokenizer_of(folder: str, digest: str, trust_remote_code: bool) -> HFTokenizer:  # noqa: ARG001  # the digest is the key that notices changed files
    """Load the tokenizer of a folder, once."""
    return HFTokenizer(folder, trust_remote_code=trust_remote_code)
