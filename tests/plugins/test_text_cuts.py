"""Encoding texts in parts: ids equal those of whole texts; unproven tokenizers encode whole texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from harness import Doc, Task
from harness.evaluation.bos_and_truncation import Encoder
from harness.evaluation.text_parts import encode_in_parts, encode_whole
from harness.evaluation.tokens import encode_task, move_spaces
from harness.testing import ByteTokenizer
from harness_plugins.engines.regex_proofs import NotProvenError, facts_of
from harness_plugins.engines.text_cuts import find_cuts
from harness_plugins.engines.tokenizers import HFTokenizer
from tests.conftest import REPOSITORY
from tests.plugins.small_tokenizers import (
    GPT_4O,
    LLAMA_3,
    PROVEN,
    SPACE,
    gemma,
    gpt2,
    llama_2,
    metaspace,
    save,
    split_first,
)

TEXTS = [
    "The quick brown fox doesn't jump over 12 lazy dogs. Question: what is 345 + 67? Answer: 412",
    "Paris is the capital of France, and Berlin that of Germany; isn't it?\n\nQuestion: (A) yes (B) no\nAnswer: A",
    "def f(x):\n    return x ** 2  # square\n\tprint('done')",
    "Žluťoučký kůň pěl ďábelské ódy. naïve café — “quoted” … 東京は日本の首都です。 한국어 عربى 😀",
] * 3
PIECES = [
    "word", "Word", "naïve", "e\u0301a", "a\u0301", "\u0301", "12", "3456", "don't", "'s", "(A)", ":", ".", ",", "-",
    "?!", "_", "#", "\n", "\n\n", "\t", "\r\n", "\u00a0", "\u3000", "\u200b", SPACE, f"x{SPACE}y", "<s>", "[CLS]",
    "<|end|>", "<unk>", "日本", "😀", "ﬁ", "İ", "ß", "Σ", "a/b", "http://x.y/z?q=1", "==", "ABC", "abcDef", "  ", "   ",
    "\x00", "fox", "Answer",
]  # fmt: skip


def drawn_texts(n: int, seed: int = 0) -> list[str]:
    """Return texts of awkward pieces, with and without spaces between them."""
    rng = np.random.default_rng(seed)
    return [
        "".join(str(rng.choice(PIECES)) + (" " if rng.random() < 0.7 else "") for _ in range(rng.integers(1, 14)))
        for _ in range(n)
    ]


class Plain:
    """A tokenizer that cannot encode parts."""

    def __init__(self, inner: HFTokenizer) -> None:
        self.inner, self.bos_id, self.eos_id, self.prefix_ids = inner, inner.bos_id, inner.eos_id, inner.prefix_ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return self.inner.encode_batch(texts)


@pytest.fixture(scope="module", params=[*PROVEN, "nano"])
def tokenizer(request, tmp_path_factory) -> HFTokenizer:
    if request.param == "nano":
        return HFTokenizer(str(next((REPOSITORY / "plugins" / "nano" / "weights").rglob("tokenizer.json")).parent))
    return HFTokenizer(str(save(PROVEN[request.param](TEXTS), tmp_path_factory.mktemp("tokenizer"))))


def drawn_task(seed: int) -> Task:
    """Return documents with a shared block, contexts that end anyhow, and choices that begin anyhow."""
    texts = [f"{text}x x" for text in drawn_texts(400, seed)]  # no choice without tokens
    block = " ".join(texts[:10])
    docs = [
        Doc(str(i), (block + " " + texts[10 + i],), tuple(texts[100 + 3 * i : 103 + 3 * i]), ("a", "b", "c"), (0,))
        for i in range(90)
    ]
    docs += [Doc(f"p{i}", tuple(texts[2 * i : 2 * i + 2]), (" the same end",), ("a", "b"), (0,)) for i in range(10)]
    return Task("t", "choice", tuple(docs), "f")


def test_texts_may_be_cut_for_every_kind_of_tokenizer(tokenizer):
    assert tokenizer.last_cut("Question: what is this") == len("Question: what is")
    assert tokenizer.last_cut("one\n two, three") == len("one\n two,")
    for text in ("", " ", "word", "two  words", "end ", " start", "é è"):
        assert tokenizer.last_cut(text) == 0


def test_parts_have_the_ids_of_whole_texts(tokenizer):
    texts = [*TEXTS, *drawn_texts(300), "", " ", "a"]
    assert tokenizer.encode_parts(texts, first=True) == tokenizer.encode_batch(texts)
    cuts = [(text, cut) for text in texts if (cut := tokenizer.last_cut(text))]
    heads = tokenizer.encode_batch([text[:cut] for text, cut in cuts])
    tails = tokenizer.encode_parts([text[cut:] for text, cut in cuts], first=False)
    assert len(cuts) > 100
    assert [head + tail for head, tail in zip(heads, tails, strict=True)] == tokenizer.encode_batch(
        [t for t, _ in cuts]
    )


@pytest.mark.parametrize("seed", range(2))
def test_a_task_has_the_same_ids_in_parts_as_whole(tokenizer, seed):
    task = drawn_task(seed)
    in_parts, whole = (encode_task(task, Encoder(kind, 10**6, "auto")) for kind in (tokenizer, Plain(tokenizer)))
    assert in_parts.requests == whole.requests
    assert in_parts.joined == whole.joined
    prompts = [[move_spaces(*doc.prompt(k)) for k in range(len(doc.choices))] for doc in task.docs]
    texts = [text for doc in prompts for context, rest in doc for text in (context, context + rest)]
    ids, ids_of_texts = encode_in_parts(prompts, tokenizer), encode_whole(texts, tokenizer)
    assert all(ids.texts[context] == ids_of_texts[context] for doc in prompts for context, _ in doc)
    assert all(ids.whole(prompt) == ids_of_texts["".join(prompt)] for doc in prompts for prompt in doc)
    assert ids.continuations


class Liar(ByteTokenizer):
    """Claims that texts can be cut at their last space, and gives other ids there."""

    prefix_ids: tuple[int, ...] = ()
    asked = 0

    def last_cut(self, text: str) -> int:
        return max(text.rfind(" ", 1), 0)

    def encode_parts(self, texts: Sequence[str], *, first: bool) -> list[list[int]]:
        self.asked += 1
        return [list(text.upper().encode()) for text in texts]


def test_a_tokenizer_whose_parts_differ_is_asked_for_whole_texts():
    liar = Liar()
    docs = tuple(Doc(str(i), (f"question {i}",), (" yes", " no"), ("yes", "no"), (0,)) for i in range(600))
    encoded = encode_task(Task("t", "choice", docs, "f"), Encoder(liar, 100))
    assert liar.asked == 2
    assert encoded.requests[599].context == tuple(b"question 599")


def test_what_is_not_proven_is_not_cut():
    """One change each to a tokenizer that may be cut."""
    from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers

    crossing = gemma(TEXTS)
    crossing.model = models.BPE(vocab={"a": 0, SPACE: 1, f"a{SPACE}": 2}, merges=[("a", SPACE)])
    stripping, dropping, scripted, spaced, looking = (gpt2(TEXTS) for _ in range(5))
    stripping.normalizer = normalizers.Strip()
    dropping.model.dropout = 0.1
    scripted.pre_tokenizer = pre_tokenizers.UnicodeScripts()
    spaced.add_tokens([AddedToken("two words")])
    looking.pre_tokenizer = pre_tokenizers.Split(Regex(r"(?<=a) b| ?\w+|\s+"), "isolated")
    unsplit = metaspace(TEXTS, "always", split=False)
    for inner in (crossing, stripping, dropping, scripted, spaced, looking, unsplit):
        assert find_cuts(inner.to_str()) is None
    for inner in (llama_2(TEXTS), gpt2(TEXTS), split_first(TEXTS, LLAMA_3)):
        assert find_cuts(inner.to_str())


def test_no_cut_touches_an_added_token():
    from tokenizers import AddedToken

    inner = gpt2(TEXTS)
    inner.add_tokens([AddedToken("user:", lstrip=True, rstrip=True)])
    cuts = find_cuts(inner.to_str())
    assert cuts
    assert cuts.split("a user: b c d") == ["a user: b", "c", "d"]


@pytest.mark.parametrize(
    "pattern",
    [
        r"a b", r"[^x]+", r"\S+ \S+", r".+", r"(?<= )a", r"\ba", r"a$", r"[^\p{L}]+", r"(?:a| )+", r"[a-z[0-9]]+",
        r"\X", r"\w+?", r"a(?=b)", r"\P{L}+", r"[\s\S]+", r"[\S ]+", r"a++", r"(?>a)", r"[!-~ ]+", r"\p{Han}+",
    ],
)  # fmt: skip
def test_an_expression_that_may_look_across_a_cut_is_not_proven(pattern):
    with pytest.raises(NotProvenError):
        facts_of(pattern)


def test_what_is_proven_of_an_expression():
    for pattern in (LLAMA_3, GPT_4O, r"\s+", r" ?\p{L}+|\s", " "):
        assert facts_of(pattern).splits
    for pattern in (r"\p{N}{1,3}", r"[0-9][0-9][0-9]", r" ?\p{L}+|\s+(?!\S)", r"[一-龥]+"):
        assert not facts_of(pattern).splits
