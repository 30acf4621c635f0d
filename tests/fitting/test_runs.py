"""What a run is, which rows are of one checkpoint, and how rows are named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import harness
from harness import LawError
from harness.cli import main
from harness.fitting.fit import fit, fit_families
from harness.fitting.fit_files import PointsFile, fit_file
from harness.fitting.options import Options
from harness.fitting.runs import ends, label, largest, refuse_twice, runs_of
from harness.fitting.wide_points import widen
from harness.host import PluginHost
from tests.conftest import published

FLOPS = np.geomspace(1e18, 1e22, 9)
RNG = np.random.default_rng(0)


def table(**columns) -> pd.DataFrame:
    y = 1.7 + np.exp(7 - 0.15 * np.log(FLOPS)) * np.exp(0.01 * np.random.default_rng(0).normal(size=9))
    return pd.DataFrame({"flops": FLOPS, "params": np.sqrt(FLOPS), "y": y, **columns})


def quick(points, host, **arguments):
    return fit(points, "power", registries=host, **{"value": "y", "bootstrap": 50, "starts": 8, **arguments})


def designed() -> pd.DataFrame:
    """Return sixteen trainings: four sizes, each for 20, 40, 100 and 200 tokens per parameter."""
    params, ratio = (x.ravel() for x in np.meshgrid([2e8, 4e8, 8e8, 1.3e9], [20, 40, 100, 200], indexing="ij"))
    tokens = params * ratio
    y = 1.7 + np.exp(7 - 0.15 * np.log(6 * params * tokens)) * np.exp(0.01 * RNG.normal(size=16))
    size = [f"{n / 1e6:g}M" for n in params]
    return pd.DataFrame({"family": "f", "size": size, "params": params, "tokens": tokens, "y": y})


def test_sixteen_trainings_at_four_sizes_are_sixteen_runs(host: PluginHost):
    told = runs_of(designed())
    assert (told.count, told.sizes, told.columns) == (16, 4, ("family", "size", "tokens per parameter"))
    assert runs_of(designed().drop(columns="size")).count == 16
    fitted = quick(designed(), host)
    assert (fitted.runs, fitted.sizes) == (16, 4)
    assert "  runs: 16 of 4 sizes, identified by family, size, tokens per parameter" in str(fitted).splitlines()


def test_checkpoints_at_the_same_tokens_are_of_one_run_per_size():
    """Trainings that save at the same tokens, with steps or without, are no design of tokens per parameter."""
    params, tokens = (x.ravel() for x in np.meshgrid([1e8, 2e8, 4e8], [1e9, 2e9, 4e9, 8e9], indexing="ij"))
    points = pd.DataFrame({"size": params.astype(str), "params": params, "tokens": tokens})
    assert runs_of(points).count == 3
    assert runs_of(designed().assign(step=np.arange(16))).count == 4
    assert runs_of(points.drop(columns="size").assign(step=tokens / 1e6)).count == 3


def test_a_run_column_tells_runs_apart_and_may_count_anew_at_every_size():
    points = designed().assign(run=np.tile(range(4), 4), step=1)
    assert runs_of(points).count == 16
    assert runs_of(points.drop(columns="size")).columns == ("family", "run", "params")
    assert runs_of(points.drop(columns="size")).count == 16


def test_a_family_without_sizes_is_not_one_run(host: PluginHost):
    fitted = quick(table(family="f"), host, resample="runs")
    assert fitted.runs == 9
    assert np.isfinite(list(fitted.steps[0].stderr.values())).all()
    assert runs_of(pd.DataFrame({"family": "f", "step": [1, 2, 3], "y": 1.0})).count == 1


def test_the_published_ladder_needs_a_column_that_tells_its_runs_apart(tmp_path, host: PluginHost):
    path = published("laws", "olmo_ladder", "ladder_runs_16.csv.gz")
    mapped = ["model_size=size", "n_params=params", "n_tokens=tokens"]
    asked = {"where": "step % 5000 == 0", "options": Options(bootstrap=10, starts=4), "registries": host}
    source = PointsFile(path, value="loss_c4", renames=mapped)
    with pytest.raises(LawError, match=r"two points for 190M@5000 .*differ in chinchilla_multiple.*with --run"):
        fit_file(source, "power", **asked)
    (fitted,), _ = fit_file(replace(source, run="chinchilla_multiple"), "power", **asked)
    assert (fitted.runs, fitted.sizes) == (16, 4)


def test_families_with_falsy_names_are_fitted_by_themselves(host: PluginHost):
    """0 and "" were taken for no family, and all points pooled."""
    points = pd.concat([table().assign(family=0), table().assign(family=1, y=lambda t: t["y"] + 1)])
    fits = dict(fit_families(points, "power", value="y", registries=host, bootstrap=10))
    assert [(name, fitted.steps[0].n, fitted.labels["family"]) for name, fitted in fits.items()] == [
        ("0", 9, "0"),
        ("1", 9, "1"),
    ]
    named = points.assign(family=points["family"].map({0: "", 1: "b"}))
    assert [
        fitted.steps[0].n for _, fitted in fit_families(named, "power", value="y", registries=host, bootstrap=10)
    ] == [
        9,
        9,
    ]


def test_nine_rows_given_twice_are_refused_and_can_be_dropped(tmp_path, host: PluginHost):
    path = tmp_path / "points.csv"
    pd.concat([table(), table()]).to_csv(path, index=False)
    arguments = ["fit", str(path), "--value", "y", "--law", "power", "--bootstrap", "20", "--starts", "4"]
    refused = CliRunner().invoke(main, arguments)
    assert refused.exit_code == 1
    assert "(rows 0 and 9; 9 of 18 rows repeat others), equal in every column: pass --drop-duplicates" in str(
        refused.output
    )
    output = CliRunner().invoke(main, [*arguments, "--drop-duplicates"]).stdout
    assert "note: 9 of 18 rows are equal to others in every column and were dropped" in output
    assert "    9 points" in output


@pytest.mark.parametrize("y", [1.0, 2.0])
def test_two_rows_of_one_checkpoint_are_an_error_equal_or_not(y):
    points = pd.DataFrame({"family": "f", "size": ["s", "m", "s"], "step": 7, "y": [1.0, 1.0, y]})
    with pytest.raises(LawError, match=r"two points for f:s@7 \(rows 0 and 2"):
        refuse_twice(points)
    refuse_twice(points.assign(seed=[0, 0, 1]))
    refuse_twice(points.drop(columns=["size", "step"]).assign(x=[1, 2, 1], y=[1.0, 1.0, 2.0]))  # unnamed replicates


def test_two_cells_of_one_checkpoint_are_refused_by_fit_and_forecast_and_resolved_by_where(host: PluginHost):
    """A store with `--limit` and whole cells of one task counted each checkpoint twice."""
    cells = table(family="f", size=list("abcdefghi"), task="t", checkpoint=list("abcdefghi"), engine="vllm", n=400)
    both = pd.concat([cells.assign(fingerprint="1"), cells[:2].assign(fingerprint="2", n=20)], ignore_index=True)
    with pytest.raises(LawError, match=r"two points for f:a .*2 of 11 .*with --where \"fingerprint == '1'\"$"):
        quick(both, host)
    with pytest.raises(LawError, match="two points for f:a"):
        harness.forecast(both, value="y", params=1e12, tokens=1e12, registries=host)
    assert quick(both, host, where="fingerprint == '1'").steps[0].n == 9
    bits = np.repeat([8.0, 16.0], [9, 2])
    refuse_twice(both.assign(fingerprint="1", dtype=bits.astype(str), bits=bits), ["bits"])


def test_duplicates_of_a_long_table_are_resolved_by_where(host: PluginHost):
    """Applied after the pivot, an expression over rows came too late."""
    long = table(family="f", size=list("abcdefghi"), metric="acc").rename(columns={"y": "value"})
    both = pd.concat([long.assign(shots=0), long.assign(shots=5, value=9.0)])
    with pytest.raises(LawError, match="two points of acc for f:a .*differ in value, shots"):
        quick(both, host, value="acc")
    assert quick(both, host, value="acc", where="shots == 0").steps[0].n == 9
    assert quick(long, host, value="acc", where="acc < 3 and flops > 1e18").steps[0].n < 9


def test_checkpoints_of_a_long_table_may_lack_a_size():
    long = table(metric="acc").rename(columns={"y": "value"})
    assert len(widen(long)) == 9


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"family": "f", "size": "s", "step": 100.0, "seed": 1.0}, "f:s@100#1"),
        ({"family": "f", "size": "s", "step": "final", "seed": 0}, "f:s@final"),
        ({"family": 0, "size": "s", "step": np.nan, "seed": np.nan}, "0:s"),
        ({"size": "s", "run": 2}, "s, run 2"),
        ({"flops": 1.0}, "row 3"),
    ],
)
def test_a_row_is_named_with_its_seed_and_whatever_its_step(row, name):
    assert label(pd.Series(row, name=3)) == name


def test_steps_of_text_can_be_held_out(host: PluginHost):
    points = table(family="f", size=list("abcdefghi"), step="final")
    assert [row["point"] for row in quick(points, host, hold_out="largest").hold_out] == ["f:i@final"]


def test_the_last_checkpoints_do_not_depend_on_the_order_of_rows():
    points = pd.DataFrame({"size": list("aabb"), "seed": 0, "tokens": [2, 1, 1, 2], "params": [1, 1, 2, 2]})
    assert ends(points).tolist() == [True, False, False, True]
    assert largest(points).tolist() == [False, False, True, True]
    with pytest.raises(LawError, match="selected by params, which is missing for b"):
        largest(points.assign(params=[1, 1, 2, np.nan]))


def test_the_largest_size_of_a_family_without_params_is_that_of_most_flops(host: PluginHost):
    """`--hold-out largest`, the default of plot, was an error for tables that say FLOPs only, so they had no curve."""
    points = table(family="f", size=list("aabbccddd"), step=[1, 2] * 4 + [3]).drop(columns="params")
    fitted = quick(points, host, hold_out="largest")
    assert [row["point"] for row in fitted.hold_out] == ["f:d@1", "f:d@2", "f:d@3"]
    assert "no params of f are known; the largest size is the one with the most FLOPs" in fitted.warnings
    assert not any("no params" in said for said in quick(points.assign(params=points["flops"]), host).warnings)
    with pytest.raises(LawError, match="params, which is missing for f:b@1"):
        quick(points.assign(params=[1e9, 1e9, None, None, 2e9, 2e9, 3e9, 3e9, 3e9]), host, hold_out="largest")
