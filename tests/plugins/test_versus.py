"""harness versus and harness predictability: two checkpoints document by document, and obstacles to prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from scipy.stats import binomtest

from harness import UsageError
from harness.cli import main
from harness.fitting.point_source import table_points
from harness.store.points import PointStore
from harness_plugins.analyses.task_predictability import predictability
from harness_plugins.analyses.versus import versus
from tests.benchmarks import equal_compute

A, B = "aster:w64l2", "birch:w64l2@1600"


def documents(store: PointStore, task: str, metric: str, family: str):
    points = store.points(task, family, metrics=[metric], unit="document").query("size == 'w64l2' and step == 1600")
    return points.set_index("doc_id")["value"].sort_index()


def test_accuracies_are_tested_by_the_documents_that_differ(nano_store: PointStore):
    rows = {row[0]: row for row in versus(nano_store, A, B).rows}
    assert list(rows) == ["nano_addition", "nano_birthplace", "nano_saying", "nano_text"]
    a, b = (documents(nano_store, "nano_birthplace", "acc", family) for family in ("aster", "birch"))
    only_a, only_b = int((a > b).sum()), int((b > a).sum())
    row = rows["nano_birthplace"]
    assert row[2:4] == (a.mean(), b.mean())
    assert row[4].value == pytest.approx((b - a).mean())
    assert row[5:8] == (only_a, only_b, "McNemar")
    assert row[8] == pytest.approx(binomtest(only_a, only_a + only_b).pvalue)


def test_other_metrics_are_tested_by_their_paired_difference(nano_store: PointStore):
    (row,) = versus(nano_store, A, B, task="nano_text").rows
    assert row[5:8] == (None, None, "t")
    assert row[-1] == "A better"  # fewer bits
    assert row[8] == "<1e-09" or row[8] < 0.05


def test_p_values_are_corrected_over_tasks(nano_store: PointStore):
    rows = versus(nano_store, A, B).rows
    for row in rows:
        assert isinstance(row[9], str) or row[9] >= row[8]
    alone = versus(nano_store, A, B, task="nano_addition").rows[0]
    assert alone[8] == alone[9]


def test_equal_checkpoints_are_seldom_told_apart(tmp_path: Path):
    """Runs of one skill on shared documents: of the pairs, about 5 % differ by chance, and none by much."""
    store = equal_compute.write_store(tmp_path / "store", np.random.default_rng(3))
    pairs = [(f"{name}:s0@1", f"{other}:s0@1") for name in equal_compute.TRUTH for other in equal_compute.TRUTH]
    rows = [versus(store, a, b).rows[0] for a, b in pairs if a < b]
    assert all(row[8] > 1e-3 for row in rows)
    assert versus(store, "ash:s0@1", "ash:s8@1").rows[0][-1] == "B better"


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ("elm:w1", B, "A: elm:w1 selects no checkpoint"),
        (A, "family == 'birch'", "B: family == 'birch' selects"),
        ("size ==", B, "cannot be applied"),
    ],
)
def test_a_checkpoint_that_is_none_or_several_is_refused(nano_store: PointStore, a: str, b: str, said: str):
    with pytest.raises(UsageError, match=said):
        versus(nano_store, a, b)


def test_models_with_names_are_also_found_by_family_and_size():
    """FAMILY:SIZE selected nothing in a table that names its models, and the message had 18,000 characters."""
    names = [f"org/m{i}" for i in range(40)]
    table = pd.DataFrame({"model": names, "family": "f", "size": [f"s{i}" for i in range(40)], "step": 100})
    table = table.assign(
        params=np.geomspace(1e8, 1e10, 40), tokens=1e11, acc=np.linspace(0.3, 0.8, 40), acc_stderr=0.01
    )
    store = table_points(table)
    by_label, by_size, by_step = (versus(store, *pair) for pair in (
        ("org/m1", "org/m39"), ("f:s1", "f:s39"), ("f:s1@100", "f:s39@100")
    ))  # fmt: skip
    assert by_label.rows == by_size.rows == by_step.rows
    with pytest.raises(UsageError, match="f:s41 selects no checkpoint") as refused:
        versus(store, "f:s41", "f:s1")
    assert len(str(refused.value)) < 400


def test_the_command_tests_two_checkpoints(nano_store: PointStore):
    result = CliRunner().invoke(
        main, ["versus", str(nano_store.path), A, "family == 'aster' and step == 100 and size == 'w64l2'"]
    )
    assert result.exit_code == 0, result.output
    assert "A better" in result.stdout


def test_each_task_says_what_stands_in_the_way_of_predicting_it(nano_store: PointStore):
    table = predictability(nano_store, laws=["line"], bootstrap=20, where="family == 'aster'")
    rows = {row[0]: row for row in table.rows}
    assert set(rows) == {"nano_addition", "nano_birthplace", "nano_saying", "nano_text"}
    assert rows["nano_text"][2] == "-"
    assert "of 1)" in rows["nano_birthplace"][2]
    assert rows["nano_birthplace"][4] is None  # two sizes: no back-test
    assert any("a back-test from 3 sizes needs 4" in note for note in table.notes)


def test_the_best_law_is_that_of_the_lowest_interval_score(tmp_path: Path):
    store = equal_compute.write_store(tmp_path / "store", np.random.default_rng(5))
    (row,) = predictability(store, laws=["line"], bootstrap=20, where="family == 'ash'").rows
    assert row[4] in {"line", "last"}
    assert row[5].endswith("of 6")
    assert "; last 0." in row[6]
