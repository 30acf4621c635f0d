"""The scheduler: which cells a worker gets, and what happens to those of a worker that is lost."""

from __future__ import annotations

import numpy as np

from harness.evaluation.schedule import MOST_LOSSES, Schedule, Work, shard
from harness.evaluation.schedule_simulation import Faults, simulate


def work(name: str, *seconds: float, shape: str = "s", load: float = 0.0) -> Work:
    return Work(shape, {f"{name}{i}": s for i, s in enumerate(seconds)}, load)


def test_the_longest_checkpoint_is_done_first_and_whole():
    schedule = Schedule([work("a", 1, 1), work("b", 5, 5), *(work(f"c{i}", 4, 4) for i in range(9))], 2)
    assert schedule.take(0).cells == ("b0", "b1")


def test_a_worker_keeps_to_the_shape_of_its_engine():
    works = [work("a", 9, shape="x"), work("b", 8, shape="y"), work("c", 7, shape="x"), work("d", 6, shape="y")]
    schedule = Schedule(works, 2)
    taken = [schedule.take(worker).job for worker in (0, 1, 0, 1)]
    assert taken == [0, 1, 2, 3]


def test_workers_spread_over_shapes_by_the_work_that_waits():
    works = [*(work(f"a{i}", 10, shape="x") for i in range(30)), *(work(f"b{i}", 10, shape="y") for i in range(10))]
    schedule = Schedule(works, 4)
    shapes = sorted(works[schedule.take(worker).job].shape for worker in range(4))
    assert shapes == ["x", "x", "x", "y"]


def test_the_last_checkpoint_is_split_by_task():
    schedule = Schedule([work("a", *[10] * 8)], 4)
    parts = [schedule.take(worker).cells for worker in range(4)]
    assert all(len(part) < 8 for part in parts)
    assert simulate([work("a", *[10] * 8)], 4).end == 20


def test_what_takes_long_to_load_is_not_split_into_small_parts():
    schedule = Schedule([work("a", *[10] * 8, load=20)], 4)
    assert len(schedule.take(0).cells) == 8


def test_what_was_read_ahead_is_done_next_and_by_no_other():
    schedule = Schedule([work("a", 9), work("b", 8), work("c", 7), work("d", 1)], 2)
    schedule.take(0)
    assert schedule.read_ahead(0) == 1
    assert schedule.take(1).job == 2
    assert schedule.take(0).job == 1


def test_cells_of_a_lost_worker_are_done_by_another_once():
    schedule = Schedule([work("a", 3, 2, 1)], 1)
    assert schedule.take(0).cells[0] == "a0"
    assert schedule.lost(0, ["a1", "a2"]) is None
    done = []
    while assignment := schedule.take(1):
        done += assignment.cells
    assert sorted(done) == ["a1", "a2"]
    assert schedule.is_done


def test_a_cell_that_costs_worker_after_worker_fails_and_the_others_are_done():
    schedule = Schedule([work("a", 2, 1)], 1)
    for _ in range(MOST_LOSSES - 1):
        schedule.take(0)
        assert schedule.lost(0, ["a0", "a1"]) is None
    schedule.take(0)
    assert schedule.lost(0, ["a0", "a1"]) == "a0"
    assert schedule.take(0).cells == ("a1",)
    assert schedule.take(0) is None
    assert schedule.is_done


def test_shards_hold_every_checkpoint_once_and_about_equal_work():
    rng = np.random.default_rng(0)
    works = [work(f"{i}.", *rng.uniform(1, 9, 5)) for i in range(40)]
    shards = [shard(works, number, 3) for number in (1, 2, 3)]
    assert sorted(job for jobs in shards for job in jobs) == list(range(40))
    totals = [sum(works[job].seconds for job in jobs) for jobs in shards]
    assert max(totals) < 1.1 * min(totals)


def test_with_wrong_estimates_and_failures_every_cell_is_done_once():
    rng = np.random.default_rng(1)
    works = [work(f"{i}.", *rng.uniform(1, 9, 6), shape=f"s{i % 3}", load=2) for i in range(60)]
    real = {cell: cost * rng.lognormal(0, 0.4) for checkpoint in works for cell, cost in checkpoint.cells.items()}
    faults = Faults(lambda: float(rng.exponential(400)), restart=30)
    outcome = simulate(works, 8, start=5, seconds=lambda _, cell: real[cell], faults=faults)
    assert outcome.deaths > 0
    assert not outcome.failed
    assert outcome.times_done == dict.fromkeys(real, 1)
