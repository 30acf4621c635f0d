"""Replicates are cached between fits; cached values equal recomputed ones."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import harness
from harness.fitting.wide_points import widen
from harness.store import measured, replicates


@pytest.fixture
def points(nano_store):
    tasks = ("nano_addition", "nano_birthplace")
    both = [widen(nano_store.points(task, metrics=["acc", "logp_gold"])) for task in tasks]
    return pd.concat(both, ignore_index=True)


def drawn(store, points, names=("acc", "logp_gold")):
    rng = np.random.default_rng([0, 1])
    return store.replicates(points, names, 50, rng), rng.random()


@pytest.mark.parametrize("budget", [1 << 28, 0])
def test_replicates_and_later_draws_are_the_same_from_a_used_and_from_a_new_store(
    nano_store, points, monkeypatch, budget
):
    monkeypatch.setattr(replicates, "KEPT_BYTES", budget)
    monkeypatch.setattr(replicates, "VALUES_BYTES", budget)
    used, new = harness.open_store(nano_store.path), harness.open_store(nano_store.path)
    drawn(used, points, ["acc"])
    drawn(used, points.iloc[::-1])
    again, after = drawn(used, points)
    expected, expected_after = drawn(new, points)
    assert after == expected_after
    assert {name: column.tobytes() for name, column in again.items()} == {
        name: column.tobytes() for name, column in expected.items()
    }


def test_cells_are_loaded_once_for_equal_draws(nano_store, points, monkeypatch):
    store = harness.open_store(nano_store.path)
    drawn(store, points)
    monkeypatch.setattr(type(store), "load", None)
    assert drawn(store, points.iloc[:3])[0]["acc"].shape == (50, 3)


def test_cells_that_points_were_made_of_are_not_read_again(nano_store, monkeypatch):
    """A comparison read every file of its cells twice: once for points, once for resamples of their documents."""
    store = harness.open_store(nano_store.path)
    points = widen(store.points("nano_addition", metrics=["acc", "gold_bits_per_byte"]))
    expected, _ = drawn(harness.open_store(nano_store.path), points, ["acc", "gold_bits_per_byte"])
    monkeypatch.setattr(type(store), "load", None)
    columns, _ = drawn(store, points, ["acc", "gold_bits_per_byte"])
    assert {name: column.tobytes() for name, column in columns.items()} == {
        name: column.tobytes() for name, column in expected.items()
    }


def test_points_of_cells_measured_together_are_those_of_each_alone(nano_store, monkeypatch):
    """Values, standard errors and intervals are the same to the bit; only the number of calls of a metric differs."""
    together = harness.open_store(nano_store.path).points()
    monkeypatch.setattr(measured, "DOCUMENTS", 1)
    alone = harness.open_store(nano_store.path).points()
    pd.testing.assert_frame_equal(together, alone, check_exact=True)
