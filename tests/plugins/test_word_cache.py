"""The cache of words: ids equal those of the tokenizers library, whatever the texts, and memory is bounded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from harness_plugins.engines import word_cache
from harness_plugins.engines.text_cuts import find_cuts
from harness_plugins.engines.tokenizers import HFTokenizer
from harness_plugins.engines.word_cache import PartEncoder
from tests.conftest import REPOSITORY
from tests.plugins.small_tokenizers import LLAMA_3, PROVEN, SPACE, gpt2, llama_2, save, split_first
from tests.plugins.test_text_cuts import TEXTS

QWEN_2 = LLAMA_3.replace(r"\p{N}{1,3}", r"\p{N}")
KINDS: dict[str, Any] = {
    **PROVEN,
    "qwen 2": lambda texts: split_first(texts, QWEN_2),
    "cl100k": lambda texts: split_first(texts, LLAMA_3.replace(r"\s*[\r\n]+", r"\s*[\r\n]")),
}
UNJOINED = {"unigram", "unigram on words", "word level", "word piece"}
FRAGMENTS = [
    "it's", "IT'S", "'s", "'S", "'ll", "don'T", " ", "  ", "     ", "\n", "\n\n", " \n ", "\r\n", "\t", "\x0b", "\x0c",
    "\x00", "\x1c", "\x7f", "1", "12", "1234567", "3.14", "?\n", ".\n\n", "!!\n", "word", "Word", "WORD", "camelCase",
    "a", "The", "_", "-", "--", "/", "//", "<s>", "</s>", "<unk>", "[CLS]", "<|end|>", "<0x0A>", "~", "'", '"', "\\",
    "{}", "#",
]  # fmt: skip
HOSTILE = [
    "",
    " ",
    "  ",
    "\n",
    " \n",
    " a",
    "a ",
    " a ",
    "  a  b  ",
    "a\n",
    "\na",
    "x" * 2000,
    " " * 300,
    "1" * 300,
    "?" * 300,
]


def hostile_texts(n: int, seed: int) -> list[str]:
    """Return texts of characters that tokenizers treat in special ways, and of any ASCII characters."""
    rng = np.random.default_rng(seed)
    of_fragments = ["".join(rng.choice(FRAGMENTS, rng.integers(1, 30))) for _ in range(n)]
    spaced = [" ".join(rng.choice(FRAGMENTS, rng.integers(1, 30))) for _ in range(n)]
    of_characters = [bytes(rng.integers(0, 128, rng.integers(1, 40)).tolist()).decode("ascii") for _ in range(n)]
    return [*of_fragments, *spaced, *of_characters, *HOSTILE]


@pytest.fixture(scope="module", params=[*KINDS, "nano"])
def tokenizer(request, tmp_path_factory) -> HFTokenizer:
    if request.param == "nano":
        return HFTokenizer(str(next((REPOSITORY / "plugins" / "nano" / "weights").rglob("tokenizer.json")).parent))
    loaded = HFTokenizer(str(save(KINDS[request.param](TEXTS), tmp_path_factory.mktemp("tokenizer"))))
    assert loaded.parts
    assert loaded.parts.joins == (request.param not in UNJOINED)
    return loaded


def expect_equal(tokenizer: HFTokenizer, texts: Sequence[str]) -> None:
    """Compare the ids of first parts, and of later parts after "x", with those of whole texts."""
    assert tokenizer.encode_parts(texts, first=True) == tokenizer.encode_batch(texts)
    tails = [f" y{text}" for text in texts]
    (head,) = tokenizer.encode_parts(["x"], first=True)
    whole = tokenizer.encode_batch([f"x{tail}" for tail in tails])
    assert [head + ids for ids in tokenizer.encode_parts(tails, first=False)] == whole


@pytest.mark.parametrize("n", [12, pytest.param(500, marks=pytest.mark.soak)])
def test_hostile_texts_have_the_ids_of_the_library(tokenizer, n):
    texts = hostile_texts(n, seed=n)
    expect_equal(tokenizer, texts)
    expect_equal(tokenizer, texts[::-1])  # now their words are known


def test_a_text_of_100_000_characters_without_a_space(tmp_path):
    expect_equal(HFTokenizer(str(save(gpt2(TEXTS), tmp_path))), ["ab" * 50_000, f"{'ab' * 50_000} end"])


def test_a_word_whose_characters_become_spaces_is_encoded_alone():
    """Compatibility forms turn a no-break space into a space, so that there are more marked tokens than words."""
    from tokenizers import normalizers

    inner = gpt2(TEXTS)
    inner.normalizer = normalizers.NFKC()
    texts = ["one two\u00a0three four", "x \u3000y z", f"a{SPACE}b c{SPACE}d e", "a\u0301 e\u0301a o"] * 2
    cuts = find_cuts(inner.to_str())
    assert cuts
    encoder = PartEncoder(cuts, lambda parts: [encoding.ids for encoding in inner.encode_batch(parts)])
    assert encoder.joins
    assert encoder.encode_parts(texts, first=True) == [inner.encode(text).ids for text in texts]


def test_words_are_joined_only_where_each_begins_with_a_marked_token():
    from tokenizers import models, pre_tokenizers

    prefixed, removing = gpt2(TEXTS), split_first(TEXTS, LLAMA_3)
    model = {"vocab": {"a": 0, "##b": 1, "\u0120": 2}, "merges": []}
    prefixed.model = models.BPE(**model, continuing_subword_prefix="##")
    removing.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    for inner in (prefixed, removing):
        cuts = find_cuts(inner.to_str())
        assert cuts
        assert not cuts.starts


def test_wrong_marks_are_noticed_at_the_start():
    """If the library gives joined words other ids, words are encoded alone."""
    inner = llama_2(TEXTS)
    cuts = find_cuts(inner.to_str())
    assert cuts
    wrong = type(cuts)(cuts.before, cuts.after, cuts.drops_space, frozenset(range(300, 500)))

    def encode(parts: list[str]) -> list[list[int]]:
        return [inner.encode(part).ids for part in parts]

    assert PartEncoder(cuts, encode).joins
    encoder = PartEncoder(wrong, encode)
    assert encoder.encode_parts(TEXTS, first=True) == encode(TEXTS)


def test_the_cache_is_bounded(monkeypatch, tmp_path):
    monkeypatch.setattr(word_cache, "MOST_KNOWN", 20)
    tokenizer = HFTokenizer(str(save(gpt2(TEXTS), tmp_path)))
    assert tokenizer.parts
    for k in range(20):
        texts = [f"begin w{k}x{i} {'y' * 65} end" for i in range(9)]
        assert tokenizer.encode_parts(texts, first=True) == tokenizer.encode_batch(texts)
        assert len(tokenizer.parts.known) <= 20 + 10
    assert max(map(len, tokenizer.parts.known)) <= word_cache.LONGEST_KNOWN
