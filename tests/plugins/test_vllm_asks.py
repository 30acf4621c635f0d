"""What is read of vLLM's answers: both runners of vLLM, and rows that its prefix cache hides."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from harness_plugins.engines.vllm_asks import Answer, Ask, Asked, canary_of, repairs_of, rows_of

NOTHING = float("nan")


def flat(rows: list[tuple[int, float, int]]) -> SimpleNamespace:
    """Return rows (token, log-probability, rank) behind the empty first one, as in vLLM's flat container."""
    here = [SimpleNamespace(**dict(zip(("token", "logprob", "rank"), row, strict=True))) for row in rows]
    return Container(
        start_indices=[0, *range(len(here))],
        end_indices=[0, *range(1, 1 + len(here))],
        token_ids=[row.token for row in here],
        logprobs=[row.logprob for row in here],
        ranks=[row.rank for row in here],
    )


class Container(SimpleNamespace):
    def __len__(self) -> int:
        return len(self.start_indices)


def listed(rows: list[tuple[int, float, int]]) -> list:
    """Return rows as in vLLM's other container."""
    return [None, *({token: SimpleNamespace(logprob=x, rank=rank)} for token, x, rank in rows)]


@pytest.fixture
def ask() -> Ask:
    """A context of four tokens, a body of three, and two last tokens."""
    asked = Asked(0, (1, 2, 3, 4), ((5, 6, 7, 8), (5, 6, 7, 9)), greedy=True)
    return Ask(asked, (1, 2, 3, 4, 5, 6, 7), 3, (8, 9), (0, 1))


ROWS = [(2, -1.0, 1), (3, -1.0, 1), (4, -1.0, 1), (5, -2.0, 1), (6, -3.0, 2), (7, -4.0, 1)]


@pytest.mark.parametrize("container", [flat, listed])
@pytest.mark.parametrize(
    ("cached", "lost", "logprob"), [(0, 0, -9.0), (3, 0, -9.0), (4, 1, -7.0), (5, 2, -4.0), (6, 3, 0.0)]
)
def test_rows_are_read_from_the_end_whether_those_that_were_cached_are_left_out_or_have_any_value(
    ask, container, cached, lost, logprob
):
    without = container(ROWS[cached:])
    any_value = container([(0, NOTHING, 1)] * cached + ROWS[cached:])
    for rows in (without, any_value):
        last_rows = rows_of(ask, SimpleNamespace(prompt_logprobs=rows, num_cached_tokens=cached))
        assert (last_rows.logprob, last_rows.lost) == (logprob, lost)


def test_rows_of_other_tokens_are_an_error(ask):
    rows = [*ROWS[:4], (600, -3.0, 2), ROWS[5]]
    for container in (flat, listed):
        with pytest.raises(ValueError, match=r"the tokens \[5, 600, 7\]; expected those of \[5, 6, 7\]"):
            rows_of(ask, SimpleNamespace(prompt_logprobs=container(rows), num_cached_tokens=0))


def test_a_list_of_neither_length_is_not_read(ask):
    """As of a request that vLLM put back and read again from other blocks."""
    assert rows_of(ask, SimpleNamespace(prompt_logprobs=flat(ROWS[2:]), num_cached_tokens=3)) is None
    assert rows_of(ask, SimpleNamespace(prompt_logprobs=None, num_cached_tokens=3)) is None


def test_a_lost_row_is_asked_where_it_is_predicted_and_added_to_every_choice(ask):
    answer = Answer.of(2, 1)
    for choice in (0, 1):
        answer.add(choice, -4.0, greedy=True)
    repairs = list(repairs_of(ask, 2))
    assert [(repair.prompt, repair.lasts) for repair in repairs] == [((1, 2, 3, 4), (5, 5)), ((1, 2, 3, 4, 5), (6, 6))]
    for repair, logprob, greedy in zip(repairs, (-2.0, -3.0), (True, False), strict=True):
        for choice in repair.choices:
            answer.add(choice, logprob, greedy=greedy)
    assert (answer.logprobs, answer.greedy) == ([-9.0, -9.0], [False, False])


def test_the_canary_has_a_context_that_ends_with_a_block_and_choices_that_share_tokens_there():
    contexts = {len(asked.context): asked for asked in canary_of(1000, 500, 32)}
    assert contexts[32].continuations[0][0] == contexts[32].continuations[1][0]
    assert contexts[30].continuations[0][:4] == contexts[30].continuations[1][:4]
    assert canary_of(1000, 500) == canary_of(1000, 500, 32)[:3]
