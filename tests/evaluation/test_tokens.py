"""Tokenisation: the boundary, BOS, and truncation."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import numpy as np
import pytest

from harness import Doc, Task, TokenError
from harness.evaluation.bos_and_truncation import Encoder
from harness.evaluation.tokens import encode_task
from harness.testing import ByteTokenizer

BOS = 256


class PairTokenizer(ByteTokenizer):
    """Bytes, but "ab" is one token (300), as a BPE merge across a join would be."""

    prefix_ids: tuple[int, ...] = ()

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [[300 if c == 1 else c for c in text.replace("ab", "\x01").encode()] for text in texts]


def task(*docs: Doc, kind: str = "choice", unconditional: bool = False) -> Task:
    return Task("t", kind, docs, "f", unconditional)


def doc(context: str, *continuations: str, doc_id: str = "d") -> Doc:
    return Doc(doc_id, (context,), continuations, continuations, (0,))


def encode(*docs: Doc, tokenizer=None, max_length=100, kind="choice", unconditional=False, **policy):
    encoder = Encoder(tokenizer or ByteTokenizer(), max_length, **policy)
    return encode_task(task(*docs, kind=kind, unconditional=unconditional), encoder)


def ids(text: str) -> tuple[int, ...]:
    return tuple(text.encode())


def test_context_and_continuations_are_cut_where_the_context_ends():
    encoded = encode(doc("Q:", " a", " bc"))
    (request,) = encoded.requests
    assert request.context == (BOS, *ids("Q:"))
    assert request.continuations == (ids(" a"), ids(" bc"))
    assert encoded.n_tokens.tolist() == [2, 3]
    assert (encoded.joined, encoded.truncated.any()) == (0, False)


def test_spaces_at_the_end_of_a_context_move_to_its_continuations():
    """As lm-eval's _encode_pair does."""
    (request,) = encode(doc("Q: \n", "a", "b")).requests
    assert request.context == (BOS, *ids("Q:"))
    assert request.continuations == (ids(" \na"), ids(" \nb"))


def test_a_token_across_the_join_moves_the_boundary_for_all_choices():
    """Choice 0 merges the last letter of the context; choice 1 gives up the same token, to stay comparable."""
    encoded = encode(doc("xa", "b", "c"), tokenizer=PairTokenizer())
    (request,) = encoded.requests
    assert request.context == ids("x")
    assert request.continuations == ((300,), ids("ac"))
    assert encoded.joined == 1


def test_a_join_at_the_first_token_is_scored_behind_bos():
    encoded = encode(doc("a", "b", "c"), tokenizer=PairTokenizer())
    assert encoded.requests[0].context == (BOS,)


@pytest.mark.parametrize(
    ("policy", "prefix", "before"),
    [
        ("always", (), (BOS,)),
        ("always", (BOS,), (BOS,)),
        ("auto", (BOS,), (BOS,)),
        ("auto", (7, 8), (7, 8)),
        ("auto", (), ()),
        ("never", (BOS,), ()),
    ],
)
def test_bos_as_the_family_says(policy, prefix, before):
    tokenizer = ByteTokenizer()
    tokenizer.prefix_ids = prefix
    (request,) = encode(doc("Q", "a", "b"), tokenizer=tokenizer, bos=policy).requests
    assert request.context == (*before, *ids("Q"))


class MarkedTokenizer(ByteTokenizer):
    """Bytes, and "<s>" is BOS, as where a prompt writes it out."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [([BOS] if t.startswith("<s>") else []) + list(t.removeprefix("<s>").encode()) for t in texts]


def test_bos_is_never_there_twice():
    (request,) = encode(doc("<s>Q", "a", "b"), tokenizer=MarkedTokenizer(), bos="always").requests
    assert request.context == (BOS, *ids("Q"))
    (request,) = encode(doc("", "<s>a", "<s>b"), tokenizer=MarkedTokenizer(), bos="always").requests
    assert (request.context, request.continuations) == ((BOS,), (ids("a"), ids("b")))
    (request,) = encode(doc("", "<s>abc"), tokenizer=MarkedTokenizer(), bos="always", kind="text").requests
    assert (request.context, request.continuations) == ((BOS,), (ids("abc"),))


def test_an_empty_context_is_scored_behind_bos_or_eos():
    """As lm-eval's prefix token; where the tokenizer has BOS it is that, otherwise EOS."""
    tokenizer = ByteTokenizer()
    tokenizer.prefix_ids, tokenizer.eos_id = (), 9
    assert encode(doc("", "ab", "c"), tokenizer=tokenizer).requests[0].context == (BOS,)
    tokenizer.bos_id, tokenizer.eos_id = None, 9
    assert encode(doc("", "ab", "c"), tokenizer=tokenizer).requests[0].context == (9,)
    with pytest.raises(TokenError, match="document d: the context is empty"):
        encode(doc("", "ab", "c"), tokenizer=tokenizer, bos="never")


def test_a_context_of_spaces_only_counts_as_empty():
    (request,) = encode(doc("  ", "a", "b")).requests
    assert (request.context, request.continuations[0]) == ((BOS,), ids("  a"))


def test_always_without_a_bos_token_is_an_error():
    tokenizer = ByteTokenizer()
    tokenizer.bos_id = None
    with pytest.raises(TokenError, match="no BOS token"):
        encode(doc("Q", "a", "b"), tokenizer=tokenizer, bos="always")


class Forgetful(ByteTokenizer):
    """A tokenizer that drops white space at the end."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [list(text.rstrip().encode()) for text in texts]


def test_a_continuation_without_tokens_is_an_error_with_its_document():
    with pytest.raises(TokenError, match=r"task t, document 17: choice 1: the continuation ' ' has no tokens"):
        encode(doc("Q", "a", "b"), doc("Q", "a", " ", doc_id="17"), tokenizer=Forgetful())


def test_truncation_keeps_bos_and_cuts_all_choices_alike():
    encoded = encode(doc("0123456789", "a", "bcd"), doc("0", "a", "b", doc_id="e"), max_length=8)
    long, short = encoded.requests
    assert long.context == (BOS, *ids("6789"))  # 1 + 4 + 3 = 8
    assert long.continuations == (ids("a"), ids("bcd"))
    assert short.context == (BOS, *ids("0"))
    assert encoded.truncated.tolist() == [True, True, False, False]


def test_lm_eval_truncation_cuts_each_choice_and_loses_bos():
    """lm-eval reads the last max_length + 1 tokens of each sequence (HFLM._loglikelihood_tokens)."""
    encoded = encode(doc("0123456789", "a", "bcd"), max_length=8, truncation="lm_eval")
    assert [r.context for r in encoded.requests] == [ids("23456789"), ids("456789")]
    assert encoded.truncated.all()
    assert [piece.rows.tolist() for piece in encoded.pieces] == [[0], [1]]
    whole = encode(doc("0123456789", "a", "bcd"), max_length=13, truncation="lm_eval")
    assert [r.context for r in whole.requests] == [(BOS, *ids("0123456789"))], "what fits is shared"


@pytest.mark.parametrize("truncation", ["left", "lm_eval"])
def test_a_continuation_that_does_not_fit_is_an_error(truncation):
    with pytest.raises(TokenError, match="document d: a continuation of 9 tokens does not fit: max_length is 8"):
        encode(doc("0123456789", "a", "b" * 9), max_length=8, truncation=truncation)


def test_an_unknown_truncation_is_an_error():
    with pytest.raises(TokenError, match="truncation 'right'; expected one of left, lm_eval"):
        encode(doc("Q", "a", "b"), truncation="right")


def test_long_text_is_cut_into_windows_that_add_to_one_row():
    encoded = encode(doc("", "0123456789"), max_length=5, kind="text")
    assert [(r.context, r.continuations) for r in encoded.requests] == [
        ((BOS,), (ids("0123"),)),
        (ids("3"), (ids("4567"),)),
        (ids("567"), (ids("89"),)),
    ]
    assert encoded.n_tokens.tolist() == [10]
    assert [piece.rows.tolist() for piece in encoded.pieces] == [[0], [0], [0]]


def test_contexts_that_differ_become_requests_of_their_own():
    shared = Doc("w", ("the cup", "the ball"), (" was big",), (" was big",) * 2, (0,))
    encoded = encode(shared)
    assert [(r.context[1:], r.continuations) for r in encoded.requests] == [
        (ids("the cup"), (ids(" was big"),)),
        (ids("the ball"), (ids(" was big"),)),
    ]
    assert [piece.rows.tolist() for piece in encoded.pieces] == [[0], [1]]


def test_unconditional_scores_are_asked_once_for_equal_texts():
    encoded = encode(doc("Q", " a", " b"), doc("R", " b", " a", doc_id="e"), unconditional=True)
    extra = {r.continuations[0]: p for r, p in zip(encoded.requests, encoded.pieces, strict=True) if p.unconditional}
    assert {text: piece.rows.tolist() for text, piece in extra.items()} == {ids(" a"): [0, 3], ids(" b"): [1, 2]}
    assert all(r.context == (BOS,) for r, p in zip(encoded.requests, encoded.pieces, strict=True) if p.unconditional)


def test_tokens_are_counted_with_the_context_of_each_choice():
    assert encode(doc("Q:", " a", " bc")).total_tokens == (3 + 2) + (3 + 3)


def test_rows_follow_documents_and_choices():
    encoded = encode(doc("Q", "a", "b", doc_id="x"), doc("Q", "c", "d", "e", doc_id="y"))
    assert encoded.doc_ids == ("x", "x", "y", "y", "y")
    assert encoded.choices.tolist() == [0, 1, 0, 1, 2]
    assert np.concatenate([piece.rows for piece in encoded.pieces]).tolist() == [0, 1, 2, 3, 4]


def test_no_collection_visits_the_ids_of_a_task():
    """Neither while it is encoded nor at the end, where it took a fifth of the time."""
    docs = [doc(f"Q {number}:", " a", " bc", doc_id=str(number)) for number in range(1000)]
    visits: list[object] = []
    gc.callbacks.append(lambda phase, _: visits.append(phase))
    try:
        encode(*docs)
    finally:
        gc.callbacks.pop()
    assert (visits, gc.isenabled(), gc.get_freeze_count()) == ([], True, 0)
