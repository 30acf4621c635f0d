"""Small real tokenizers of every kind that language models use, trained on a few texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
GPT_4O = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPACE = "\u2581"
TOKENS = 400  # in a vocabulary


def _byte_level(texts: Sequence[str], pre_tokenizer: Any, added: Sequence[str] = (), normalizer: Any = None) -> Any:
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer, alphabet = pre_tokenizer, pre_tokenizers.ByteLevel.alphabet()
    if normalizer:
        inner.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENS, initial_alphabet=alphabet, special_tokens=["<|end|>"], show_progress=False
    )
    inner.train_from_iterator(texts, trainer)
    inner.add_tokens([AddedToken(content, normalized=True) for content in added])
    return inner


def gpt2(texts: Sequence[str], *, prefix_space: bool = False, added: Sequence[str] = ()) -> Any:
    """Return byte-level BPE with the expression of GPT-2."""
    from tokenizers import normalizers, pre_tokenizers

    level = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    return _byte_level(texts, level, added, normalizers.NFC() if added else None)


def split_first(texts: Sequence[str], *patterns: str) -> Any:
    """Return byte-level BPE that splits by expressions of its own."""
    from tokenizers import Regex, pre_tokenizers

    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return _byte_level(texts, pre_tokenizers.Sequence([*splits, level]))


def falcon(texts: Sequence[str]) -> Any:
    """Return byte-level BPE with punctuation and digits apart."""
    from tokenizers import Regex, pre_tokenizers

    punctuation = pre_tokenizers.Punctuation("contiguous")
    three = pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated")
    level, digits = pre_tokenizers.ByteLevel(add_prefix_space=False), pre_tokenizers.Digits(individual_digits=False)
    return _byte_level(texts, pre_tokenizers.Sequence([punctuation, level, digits, three]))


def _metaspace_vocabulary(texts: Sequence[str]) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    inner = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, "always")
    special = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENS + 259, special_tokens=special, initial_alphabet=[SPACE], show_progress=False
    )
    inner.train_from_iterator(texts, trainer)
    return inner


def llama_2(texts: Sequence[str]) -> Any:
    """Return BPE over whole texts, with a space before them."""
    from tokenizers import normalizers

    inner = _metaspace_vocabulary(texts)
    inner.pre_tokenizer = None
    inner.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    return inner


def gemma(texts: Sequence[str]) -> Any:
    """Return BPE over whole texts, without a space before them."""
    from tokenizers import normalizers, pre_tokenizers

    inner = _metaspace_vocabulary(texts)
    inner.normalizer = normalizers.Replace(" ", SPACE)
    inner.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    return inner


def metaspace(texts: Sequence[str], scheme: str, *, split: bool = True) -> Any:
    """Return BPE of pieces that begin with a mark for a space."""
    from tokenizers import pre_tokenizers

    inner = _metaspace_vocabulary(texts)
    inner.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, scheme, split)
    return inner


def unigram(texts: Sequence[str], *, split_white: bool) -> Any:
    """Return a unigram model, as of T5 where white space is dropped first."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    inner = Tokenizer(models.Unigram())
    mark = pre_tokenizers.Metaspace(SPACE, "always")
    inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), mark]) if split_white else mark
    trainer = trainers.UnigramTrainer(
        vocab_size=TOKENS, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False
    )
    inner.train_from_iterator(texts, trainer)
    return inner


def word_level(texts: Sequence[str]) -> Any:
    """Return one token a word."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    inner = Tokenizer(models.WordLevel(unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordLevelTrainer(vocab_size=TOKENS, special_tokens=["<unk>"], show_progress=False)
    inner.train_from_iterator(texts, trainer)
    return inner


def word_piece(texts: Sequence[str]) -> Any:
    """Return WordPiece as of BERT."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    inner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.normalizer, inner.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=TOKENS, special_tokens=["[UNK]", "[CLS]"], show_progress=False)
    inner.train_from_iterator(texts, trainer)
    return inner


PROVEN: dict[str, Callable[[Sequence[str]], Any]] = {
    "gpt2": gpt2,
    "gpt2 with prefix space": lambda texts: gpt2(texts, prefix_space=True),
    "neox": lambda texts: gpt2(texts, added=["  ", "   ", "\t\t"]),
    "llama 3": lambda texts: split_first(texts, LLAMA_3),
    "gpt-4o": lambda texts: split_first(texts, GPT_4O),
    "deepseek": lambda texts: split_first(texts, r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+", DEEPSEEK),
    "falcon": falcon,
    "llama 2": llama_2,
    "gemma": gemma,
    "metaspace always": lambda texts: metaspace(texts, "always"),
    "metaspace first": lambda texts: metaspace(texts, "first"),
    "metaspace never": lambda texts: metaspace(texts, "never"),
    "unigram": lambda texts: unigram(texts, split_white=False),
    "unigram on words": lambda texts: unigram(texts, split_white=True),
    "word level": word_level,
    "word piece": word_piece,
}


def save(inner: Any, folder: Path) -> Path:
    """Write a tokenizer as a checkpoint has it."""
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(tokenizer_object=inner).save_pretrained(folder)
    return folder
