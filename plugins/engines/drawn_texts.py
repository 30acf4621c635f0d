"""From drawn tokens to texts, by one rule for all engines.

Special tokens are left out of a text. A stop text that is a special token is therefore never found in it, and ends a
text as its token. Of generation_config.json only EOS applies: texts are drawn from the distribution of the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BEFORE = 8  # tokens of the prompt decoded with a sample, for its leading space
HARMLESS = {  # keys of generation_config.json: tokens, lengths, and those that a task or suite sets itself
    "bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "transformers_version", "max_length",
    "max_new_tokens", "do_sample", "temperature", "top_p", "use_cache", "cache_implementation",
}  # fmt: skip


def special_tokens(tokenizer: Any) -> dict[str, int]:
    """Return the ids of the special tokens of a transformers tokenizer by their texts."""
    return {token.content: i for i, token in tokenizer.added_tokens_decoder.items() if token.special}


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
