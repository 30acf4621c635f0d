"""Differences of two evaluations: reported per document, and none between equal stores."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import harness
from harness import Checkpoint, Doc, PluginHost, StoreError, Task, UsageError
from harness.cli import main
from harness.reports.diff import Diff, diff
from harness.store.cells import Store
from harness.store.choice_cells import Records
from harness.store.identity import CellId, Settings
from harness.store.points import open_store

DTYPES = {"of_a": "dtype == 'float32'", "of_b": "dtype == 'bfloat16'"}


LIMIT = 400  # documents: few choices flip, as heads compute in float32 also in bfloat16


@pytest.fixture(scope="module")
def two_dtypes(tmp_path_factory, host: PluginHost) -> Path:
    """Return a store with real scores of two checkpoints in float32 and in bfloat16."""
    path = tmp_path_factory.mktemp("dtypes") / "store"
    for dtype in ("float32", "bfloat16"):
        harness.evaluate(
            ["aster:w32l2@100,1600"], ["nano_addition", "nano_text"], path,
            limit=LIMIT, options={"dtype": dtype}, registries=host,
        ).check()  # fmt: skip
    return path


@pytest.fixture(scope="module")
def difference(two_dtypes: Path, host: PluginHost) -> Diff:
    return diff(two_dtypes, two_dtypes, registries=host, **DTYPES)


def rows(difference: Diff, table: int = 0, n: int = 20) -> list[dict]:
    shown = difference.tables(n)[table]
    return [dict(zip(shown.columns, row, strict=True)) for row in shown.rows]


def test_differences_are_those_of_the_records(difference: Diff, two_dtypes: Path, host: PluginHost):
    """Recomputed from the frames of the store."""
    scores = open_store(two_dtypes, registries=host).scores("nano_addition")
    sides = [scores[(scores["dtype"] == d) & (scores["step"] == 1600)] for d in ("float32", "bfloat16")]
    a, b = (side["logprob"].to_numpy() for side in sides)
    (row,) = (r for r in rows(difference) if (r["checkpoint"], r["task"]) == ("aster:w32l2@1600", "nano_addition"))
    size = np.abs(b - a)
    assert (row["choices"], row["documents"]) == (4 * LIMIT, LIMIT)
    assert row["mean"] == pytest.approx((b - a).mean())
    assert row["mean abs"] == pytest.approx(size.mean())
    assert (row["median abs"], row["99 % abs"]) == pytest.approx(tuple(np.quantile(size, [0.5, 0.99])))
    assert row["max abs"] == size.max() > 0.01
    worst = sides[0].iloc[int(size.argmax())]
    assert row["at"] == f"document {worst['doc_id']}, choice {worst['choice']}"
    assert row["max abs a token"] == pytest.approx((size / sides[0]["n_tokens"].to_numpy()).max())


def test_flips_and_the_change_of_the_metric_are_those_of_the_records(
    difference: Diff, two_dtypes: Path, host: PluginHost
):
    scores = open_store(two_dtypes, registries=host).scores("nano_addition")
    scores = scores[scores["step"] == 1600]
    picked = {}
    for dtype, side in scores.groupby("dtype"):
        best = side.loc[side.groupby("doc_id")["logprob"].idxmax()].set_index("doc_id")
        picked[dtype] = best[["choice", "is_gold"]]
    a, b = picked["float32"], picked["bfloat16"].loc[picked["float32"].index]
    (row,) = (r for r in rows(difference) if (r["checkpoint"], r["task"]) == ("aster:w32l2@1600", "nano_addition"))
    assert row["flips"] == (a["choice"] != b["choice"]).sum() > 0
    change = b["is_gold"].astype(float) - a["is_gold"].astype(float)
    assert (row["lost"], row["gained"]) == ((change < 0).sum(), (change > 0).sum())
    assert row["metric"] == "acc"
    assert row["change"].value == pytest.approx(change.mean())
    assert row["change"].stderr == pytest.approx(change.std(ddof=1) / np.sqrt(LIMIT))


def test_flipped_documents_come_with_both_margins_the_largest_first(difference: Diff):
    flips = rows(difference, 1, n=1000)
    assert len(flips) == rows(difference)[-1]["flips"]
    margins = [row["margin A"] + row["margin B"] for row in flips]
    assert margins == sorted(margins, reverse=True)
    assert all(row["margin A"] >= 0 and row["margin B"] >= 0 and row["choice A"] != row["choice B"] for row in flips)
    assert rows(difference, 1, n=2) == flips[:2]


def test_a_text_has_differences_and_no_choice_to_flip(difference: Diff):
    (row, *_) = (r for r in rows(difference) if r["task"] == "nano_text")
    assert (row["documents"], row["flips"], row["metric"]) == (None, None, "bits_per_byte")
    assert 0 < abs(row["change"].value) < 0.01
    assert row["change"].stderr > 0


def test_the_total_is_over_all_cells(difference: Diff):
    *cells, total = rows(difference)
    assert total["choices"] == sum(row["choices"] for row in cells) == len(difference.choices())
    assert total["max abs"] == max(row["max abs"] for row in cells) == difference.largest
    assert difference.largest == difference.choices()["difference"].abs().max()


def test_notes_say_what_scored_each_side(difference: Diff, two_dtypes: Path):
    notes = difference.tables()[0].notes
    assert notes[1].startswith(f"A is {two_dtypes}: engine transformers, transformers ")
    assert "dtype float32" in notes[1]
    assert "dtype bfloat16" in notes[2]
    assert "torch " in notes[2]


def test_a_side_does_not_differ_from_itself(two_dtypes: Path, host: PluginHost):
    difference = harness.diff(open_store(two_dtypes, registries=host), two_dtypes, where="dtype == 'bfloat16'")
    assert difference.largest == 0
    for row in rows(difference):
        assert {row[name] for name in ("mean", "max abs", "max abs a token")} == {0}
        assert row["flips"] in {0, None}
        assert row["change"] is None or (row["change"].value, row["change"].stderr) == (0, 0)
    assert rows(difference, 1) == []
    assert "A and B are the same cells." in difference.notes


def test_two_settings_of_one_engine_are_told_apart(tmp_path, fake_host: PluginHost):
    for max_length in (128, 256):
        harness.evaluate(
            ["aster:w32l2@100,200"], ["nano_job"], tmp_path / "s",
            engine="fake", limit=5, options={"max_length": max_length}, registries=fake_host,
        ).check()  # fmt: skip
    difference = diff(
        tmp_path / "s", tmp_path / "s", of_a="max_length == 128", of_b="max_length == 256", registries=fake_host
    )
    assert difference.largest == 0
    assert [row["checkpoint"] for row in rows(difference)] == ["aster:w32l2@100", "aster:w32l2@200", "all"]
    assert "max_length 128" in difference.notes[0]
    assert "A and B are the same cells." not in difference.notes


# --- by hand ---------------------------------------------------------------------------------------------------------

DOCS = tuple(Doc(name, ("Q",), (" x", " y"), ("x", "y"), (0,), "g") for name in "abc")
TASK = Task("tiny", "choice", DOCS, "feed" * 4)


def write(path: Path, logprob, *, checkpoint="c0de" * 4, dtype="float32", task=TASK, notes=()) -> None:
    store, settings = Store(path, create=True), Settings("fake", dtype, "none", "auto", 256, "left")
    store.put_task(task)
    store.put_checkpoint(checkpoint, Checkpoint("fam", checkpoint[:2], 10, 0, f"models/{checkpoint}"))
    store.put_settings(settings)
    rows = len(logprob)
    records = Records(
        doc_ids=tuple(doc.doc_id for doc in task.docs for _ in doc.choices),
        choices=np.tile([0, 1], rows // 2),
        logprob=np.array(logprob),
        n_tokens=np.full(rows, 2),
        truncated=np.zeros(rows, dtype=bool),
        provenance={"engine": "fake", "truncated": 0, "notes": list(notes)},
    )
    store.write(CellId(checkpoint, task.fingerprint, settings.digest), records)


A = [-1.0, -2.0, -3.0, -2.5, -1.0, -4.0]
B = [-1.0, -0.7, -2.0, -2.5, -1.5, -4.0]


def test_lost_and_gained_documents_by_hand(tmp_path, host: PluginHost):
    """a: right in A, wrong in B; b: the other way round; c: stays."""
    write(tmp_path / "a", A)
    write(tmp_path / "b", B, notes=["the fast path is off"])
    difference = diff(tmp_path / "a", tmp_path / "b", registries=host)
    (row,) = rows(difference)
    assert (row["flips"], row["lost"], row["gained"]) == (2, 1, 1)
    assert row["share"] == pytest.approx(2 / 3)
    assert row["mean"] == pytest.approx((1.3 + 1.0 - 0.5) / 6)
    assert (row["max abs"], row["max abs a token"]) == pytest.approx((1.3, 0.65))
    assert row["at"] == "document a, choice 1"
    assert [(r["document"], r["right"]) for r in rows(difference, 1)] == [("a", "A"), ("b", "B")]
    assert (rows(difference, 1)[0]["margin A"], rows(difference, 1)[0]["margin B"]) == pytest.approx((1.0, 0.3))
    assert "B: the fast path is off" in difference.notes


def test_cells_without_a_partner_are_counted_and_named(tmp_path, host: PluginHost):
    write(tmp_path / "a", A)
    write(tmp_path / "a", A, checkpoint="beef" * 4)
    write(tmp_path / "b", B)
    difference = diff(tmp_path / "a", tmp_path / "b", registries=host)
    assert len(difference.pairs) == 1
    assert "1 of 2 cells of A are not in B: fam:be@10 tiny" in difference.notes


def test_nothing_in_common_says_what_each_side_holds(tmp_path, host: PluginHost):
    write(tmp_path / "a", A)
    write(tmp_path / "b", B, task=replace(TASK, fingerprint="f00d" * 4))
    with pytest.raises(StoreError, match=f"A .*has checkpoints fam:c0@10 and tasks tiny {'feed' * 4}.*B .*f00df00d"):
        diff(tmp_path / "a", tmp_path / "b", registries=host)


def test_several_cells_on_one_side_are_an_error_that_says_how_to_choose(tmp_path, host: PluginHost):
    write(tmp_path / "a", A)
    write(tmp_path / "a", B, dtype="bfloat16")
    with pytest.raises(
        StoreError, match='A has fam:c0@10 tiny more than once: dtype .* and .*; choose with --a "dtype'
    ):
        diff(tmp_path / "a", tmp_path / "a", registries=host)
    assert diff(tmp_path / "a", tmp_path / "a", registries=host, **DTYPES).largest == pytest.approx(1.3)


def test_equal_weights_under_two_names_are_one_cell(tmp_path, host: PluginHost):
    write(tmp_path / "a", A)
    Store(tmp_path / "a").put_checkpoint("c0de" * 4, Checkpoint("other", "s", None, 0, "elsewhere"))
    assert len(diff(tmp_path / "a", tmp_path / "a", registries=host).pairs) == 1
    (pair,) = diff(tmp_path / "a", tmp_path / "a", where="family == 'other'", registries=host).pairs
    assert pair.checkpoint == "other:s"


def test_a_side_without_cells_and_a_bad_expression_are_errors(tmp_path, host: PluginHost):
    write(tmp_path / "a", A)
    with pytest.raises(StoreError, match="B: no cell of .* meets task == 'tiny' and dtype == 'float16'"):
        diff(tmp_path / "a", tmp_path / "a", task="tiny", of_b="dtype == 'float16'", registries=host)
    with pytest.raises(UsageError, match="columns are: .*dtype, engine, .*truncation"):
        diff(tmp_path / "a", tmp_path / "a", where="dtyp == 1", registries=host)


def test_a_metric_that_is_not_loaded_leaves_the_change_out(tmp_path, host: PluginHost):
    for metric in ("of_a_plugin", "greedy_match"):
        write(tmp_path / metric, A, task=replace(TASK, metric=metric))
        (row,) = rows(diff(tmp_path / metric, tmp_path / metric, registries=host))
        assert (row["metric"], row["change"]) == (metric, None)


# --- the command -----------------------------------------------------------------------------------------------------


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["diff", *[str(a) for a in arguments]])


def test_the_command_prints_writes_and_fails_above_a_difference(tmp_path):
    write(tmp_path / "a", A)
    write(tmp_path / "b", B)
    result = run(tmp_path / "a", tmp_path / "b", "--format", "json", "-o", tmp_path / "out", "--fail-above", "1.4")
    assert result.exit_code == 0, result.output
    tables = json.loads(result.stdout)
    assert tables["differences"]["rows"][0]["max abs"] == 1.3
    assert [row["document"] for row in tables["flips"]["rows"]] == ["a", "b"]
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "differences.md", "differences.csv", "flips.md", "flips.csv",
    }  # fmt: skip
    above = run(tmp_path / "a", tmp_path / "b", "--n", "1", "--fail-above", "1.2")
    assert above.exit_code == 1
    assert "1 of 2 flips" in above.stdout
    assert "harness: a log-probability differs by 1.3 nats, more than 1.2" in above.stderr
    assert run(tmp_path / "a", tmp_path / "a", "--fail-above", "0").exit_code == 0


def test_the_command_chooses_sides_by_expressions(tmp_path):
    write(tmp_path / "a", A)
    write(tmp_path / "a", B, dtype="bfloat16")
    command = [tmp_path / "a", tmp_path / "a", "--a", DTYPES["of_a"], "--b", DTYPES["of_b"], "--task", "tiny"]
    result = run(*command, "--where", "family == 'fam'")
    assert result.exit_code == 0, result.output
    assert "| fam:c0@10  | tiny | 6 " in result.stdout
    assert run(tmp_path / "a", tmp_path / "a").exit_code == 1
    assert run(tmp_path / "a", tmp_path / "nowhere").exit_code == 1
