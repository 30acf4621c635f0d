"""From drawn tokens to texts, by one rule for all engines.

Special tokens are left out of a text. A stop text that is a special token is therefore never found in it, and ends a
text as its token. If a stop text has a special token beside other characters (`<|im_end|>` and a line break), the stop
texts of its request are searched in the text with special tokens. Of generation_config.json only EOS applies: texts are
drawn from the distribution of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

BEFORE = 8  # tokens of the prompt decoded with a sample, for its leading space
HARMLESS = {  # keys of generation_config.json that change no text, or that a task or suite sets itself
    "bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "transformers_version", "max_length",
    "max_new_tokens", "do_sample", "temperature", "top_p", "use_cache", "cache_implementation",
    "output_attentions", "output_hidden_states", "output_logits", "output_scores", "return_dict_in_generate",
}  # fmt: skip


def special_tokens(tokenizer: Any) -> dict[str, int]:
    """Return the ids of the special tokens of a transformers tokenizer by their texts."""
    return {token.content: i for i, token in tokenizer.added_tokens_decoder.items() if token.special}


class Stops:
    """The stop texts of requests, as the tokens of one tokenizer end them."""

    def __init__(self, tokenizer: Any, vocabulary: int | None = None) -> None:
        self.tokenizer = tokenizer
        self.special = {
            text: i for text, i in special_tokens(tokenizer).items() if vocabulary is None or i < vocabulary
        }
        self._mixed: dict[tuple[str, ...], bool] = {}

    def tokens(self, stops: tuple[str, ...]) -> list[int]:
        """Return the tokens that are stop texts."""
        return [self.special[stop] for stop in stops if stop in self.special]

    def are_mixed(self, stops: tuple[str, ...]) -> bool:
        """Return whether a stop text has a special token beside other characters."""
        if stops not in self._mixed:
            longer = [stop for stop in stops if stop not in self.special]
            self._mixed[stops] = any(token in stop for stop in longer for token in self.special)
        return self._mixed[stops]

    def end(self, ids: Sequence[int], stops: tuple[str, ...]) -> bool:
        """Return whether the text of tokens contains a stop text."""
        skips = not self.are_mixed(stops)
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=skips, clean_up_tokenization_spaces=False)
        return any(stop in text for stop in stops)

    def text_of(self, prompt: Sequence[int], ids: Sequence[int], stops: tuple[str, ...]) -> str:
        """Return the text of tokens drawn after a prompt, up to the first of its stop texts."""
        if not self.are_mixed(stops):
            return before_stops(text_after(self.tokenizer, prompt, ids), stops)
        parts = list(self._parts(prompt, ids))
        left, text = len(before_stops("".join(part for part, _ in parts), stops)), ""
        for part, is_special in parts:
            text += "" if is_special else part[: max(left, 0)]
            left -= len(part)
        return text

    def _parts(self, prompt: Sequence[int], ids: Sequence[int]) -> Iterator[tuple[str, bool]]:
        """Yield the text of each special token, and of the tokens between them; each with whether it is special."""
        begin = 0
        for is_special, run in groupby(ids, lambda i: i in self._contents):
            tokens = list(run)
            if is_special:
                yield "".join(self._contents[i] for i in tokens), True
            else:
                yield text_after(self.tokenizer, [*prompt[-BEFORE:], *ids[:begin]], tokens), False
            begin += len(tokens)

    @cached_property
    def _contents(self) -> dict[int, str]:
        return {i: text for text, i in self.special.items()}


def text_after(tokenizer: Any, prompt: Sequence[int], ids: Sequence[int]) -> str:
    """Decode tokens as the continuation of their prompt; an incomplete last character is dropped."""
    settings = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    before = tokenizer.decode(list(prompt[-BEFORE:]), **settings)
    whole = tokenizer.decode([*prompt[-BEFORE:], *ids], **settings)
    text = whole[len(before) :] if whole.startswith(before) else tokenizer.decode(list(ids), **settings)
    return str(text).rstrip("\ufffd")


def before_stops(text: str, stops: Sequence[str]) -> str:
    """Return a text up to the first of its stop texts.

    >>> before_stops("one. two", ("two", "."))
    'one'
    """
    return text[: min((text.index(stop) for stop in stops if stop in text), default=len(text))]


def note_of_unused(settings: Mapping[str, Any]) -> str:
    """Return a note on settings of generation_config.json that would change what is drawn and do not apply, or ""."""
    named = {name: value for name, value in settings.items() if name not in HARMLESS and not name.startswith("_")}
    told = ", ".join(f"{name} = {value}" for name, value in sorted(named.items()))
    return f"texts are drawn without the settings of generation_config.json: {told}" if told else ""


def settings_beside(folder: Path) -> Mapping[str, Any]:
    """Return the settings of generation_config.json; empty if there is no such file."""
    from transformers import GenerationConfig

    is_there = (folder / "generation_config.json").is_file()
    return GenerationConfig.from_pretrained(folder).to_diff_dict() if is_there else {}
