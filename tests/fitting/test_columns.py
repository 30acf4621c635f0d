"""Input columns: renamed, completed, and checked for plausible units."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from harness import LawError, UsageError
from harness.cli import main
from harness.fitting.columns import check_units, query, renamed
from harness.fitting.fit import fit
from harness.fitting.point_source import table_points
from harness.fitting.wide_points import FILLED, completed, widen
from harness.host import PluginHost
from tests.conftest import published

N, D = (x.ravel() for x in np.meshgrid(np.geomspace(1e8, 1e10, 4), np.geomspace(1e9, 1e11, 4)))
LOSS = 1.8 + 480 * N**-0.35 + 2100 * D**-0.37
THEIRS = pd.DataFrame({"n": N, "body": 0.8 * N, "d_b": D / 1e9, "nll": LOSS})


def test_columns_are_renamed_and_computed():
    renamed_points = renamed(THEIRS, ["n=params", "d_b * 1e9 = tokens", "nll=loss"])
    assert (renamed_points["params"] == N).all()
    assert renamed_points["tokens"].to_numpy() == pytest.approx(D)
    assert set(THEIRS.columns) <= set(renamed_points.columns)
    assert (renamed(THEIRS, ["n=params"], "body")["params"] == 0.8 * N).all()


@pytest.mark.parametrize("pair", ["n", "n=", "=params", "n=6 params"])
def test_a_pair_that_is_none_is_refused(pair):
    with pytest.raises(UsageError, match="expected THEIRS=OURS"):
        renamed(THEIRS, [pair])


def test_a_column_that_is_not_there_is_named():
    with pytest.raises(UsageError, match="'m' is neither a column nor an expression of columns, which are: body"):
        renamed(THEIRS, ["m=params"])


def test_flops_follow_from_params_and_tokens_where_there_are_none():
    points = pd.DataFrame({"params": N, "tokens": D, "loss": LOSS})
    assert (completed(points, "loss")["flops"] == 6 * N * D).all()
    assert (completed(points.assign(flops=1e20), "loss")["flops"] == 1e20).all()
    assert set(completed(points.assign(flops=np.nan), "loss")["flops_convention"]) == {FILLED}


def test_rates_follow_from_successes_and_trials():
    points = pd.DataFrame({"successes": [1, 5], "trials": [10, 20]})
    assert completed(points, "rate")["rate"].tolist() == [0.1, 0.25]


@pytest.mark.parametrize(
    ("name", "values"), [("params", [0.07, 12.0]), ("tokens", [20.0, 400.0]), ("flops", [1.0, 9.0])]
)
def test_units_that_cannot_be_are_named(name, values):
    with pytest.raises(
        LawError, match=rf"{name} are {values[0]:g} to {values[1]:g}, too few for .* or --map '{name} \* 1e9"
    ):
        check_units(pd.DataFrame({name: values}), [name])


def test_tokens_in_billions_stop_a_fit(host: PluginHost):
    with pytest.raises(LawError, match="tokens are 1 to 100, too few for training tokens"):
        fit(renamed(THEIRS, ["n=params", "d_b=tokens"]), "chinchilla", value="nll", registries=host)


def run(tmp_path, *arguments: str):
    THEIRS.to_csv(tmp_path / "theirs.csv", index=False)
    return CliRunner().invoke(main, ["fit", str(tmp_path / "theirs.csv"), "--value", "nll", *arguments])


def test_a_table_of_others_is_fitted_by_the_command(tmp_path):
    mapped = ("--map", "n=params", "--map", "d_b*1e9=tokens", "--bootstrap", "20", "--json")
    (fitted,) = json.loads(run(tmp_path, "--law", "chinchilla", *mapped).stdout)
    (step,) = fitted["steps"]
    assert step["parameters"]["alpha"] == pytest.approx(0.35, rel=1e-3)
    assert step["derived"]["A"] == pytest.approx(480, rel=1e-2)
    assert {"stderr", "intervals", "domain", "objective", "agree"} <= set(step)
    assert fitted["seconds"] > 0
    body = json.loads(run(tmp_path, "--law", "chinchilla", *mapped, "--params-column", "body").stdout)[0]["steps"][0]
    assert body["derived"]["A"] == pytest.approx(480 * 0.8**0.35, rel=1e-2)


def test_flops_that_are_filled_in_are_noted(tmp_path):
    mapped = ("--map", "n=params", "--map", "d_b*1e9=tokens", "--bootstrap", "20")
    assert (
        "note: the points have no flops; computed as 6 x params x tokens"
        in run(tmp_path, "--law", "power", *mapped).stdout
    )
    assert "note" not in run(tmp_path, "--law", "chinchilla", *mapped).stdout


def test_laws_are_listed_and_unverified_formulas_marked():
    done = CliRunner().invoke(main, ["laws"])
    line = {row.split("|")[1].strip(): row for row in done.stdout.splitlines() if row.startswith("|")}
    assert "experimental: formula unverified" in line["kaplan"]
    assert "experimental" not in line["chinchilla"]
    assert "Hoffmann et al. 2022" in line["chinchilla"]
    assert "chinchilla -> accuracy_from_loss" in line["two_step_nd"]


def test_flops_computed_from_columns_of_whole_numbers_do_not_overflow():
    """6 N D of a 7B model on 139B tokens exceeds 64-bit integers: products were negative."""
    points = pd.DataFrame({"n": [6_889_672_704, 1_439_795_200], "d": [137_793_454_080, 28_795_904_000]})
    renamed_points = renamed(points, ["n=params", "d=tokens", "6 * params * tokens=flops"])
    assert renamed_points["flops"].tolist() == pytest.approx([5.6961e21, 2.4876e20], rel=1e-4)
    assert len(query(renamed_points, "6 * n * d > 1e21")) == 1
    assert renamed_points["params"].tolist() == points["n"].tolist()


def test_a_pair_sees_the_columns_mapped_before_it():
    renamed_points = renamed(THEIRS, ["n=params", "d_b * 1e9=tokens", "6 * params * tokens=flops"])
    assert renamed_points["flops"].to_numpy() == pytest.approx(6 * N * D)


def test_the_published_table_whose_flops_overflow_is_refused():
    points = pd.read_csv(published("laws", "gadre", "redpajama_models_35.csv"))
    points = points.rename(columns={"n_params": "params", "n_tokens": "tokens", "model_name": "size"})
    wrapped = points.assign(flops=6 * points["params"] * points["tokens"])
    with pytest.raises(LawError, match="9 of 35 rows differ by a factor above 100, or are not above 0.*overflow"):
        check_units(wrapped, ["flops"])
    assert check_units(renamed(points, ["6 * params * tokens=flops"]), ["flops"]) == ()


def test_flops_that_conventions_do_not_explain_are_said(host: PluginHost):
    """A factor of 3 is that of a forward pass; of two ways to count parameters, the nearer one counts."""
    points = pd.DataFrame({"params": N, "tokens": D, "loss": LOSS, "flops": 2 * N * D})
    assert check_units(points, ["flops"]) == ()
    points["flops"] = 6 * 8 * N * D
    (warning,) = check_units(points, ["flops"])
    assert warning.startswith("flops are 8 to 8 times 6 x params x tokens in 16 of 16 rows")
    assert warning in fit(points, "power", value="loss", registries=host, bootstrap=10).warnings
    assert check_units(points.assign(params_non_embedding=8 * N), ["flops"]) == ()
    with pytest.raises(LawError, match="1e\\+03 times 6 x params x tokens; 16 of 16 rows"):
        check_units(points.assign(flops=6e3 * N * D), ["flops"])


def test_tokens_follow_from_flops_and_params_and_the_fit_says_so(host: PluginHost):
    points = pd.DataFrame({"params": N, "flops": 6 * N * D, "loss": LOSS})
    assert completed(points)["tokens"].to_numpy() == pytest.approx(D)
    fitted = fit(points, "chinchilla", value="loss", registries=host, bootstrap=10)
    assert fitted.steps[0].parameters["alpha"] == pytest.approx(0.35, rel=1e-2)
    assert "note: the points have no tokens; computed as flops / (6 x params)" in str(fitted)


@pytest.mark.parametrize("name", ["params", "tokens"])
def test_counts_in_millions_beside_full_counts_are_refused(name):
    """Large models in millions are above every limit of one column alone, and FLOPs filled in from them were wrong."""
    points = pd.DataFrame({"params": [1.3e9, 6.7e9, 3e10, 1.75e11], "tokens": [3e11] * 4, "loss": [2.4, 2.2, 2.1, 2.0]})
    assert not check_units(points, ["flops"])
    with pytest.raises(LawError, match=rf"tokens per parameter; if {name} are in millions.*--map '{name} \* 1e6"):
        check_units(points.assign(**{name: points[name] / 1e6}), ["flops"])


def test_a_metric_named_loss_is_that_of_an_imported_table_without_training_losses(host: PluginHost):
    """The metric of a column loss_c4_eval could not be ranked: loss "has the name of another column"."""
    table = pd.DataFrame({"family": "f", "params": np.geomspace(1e8, 1e10, 6), "tokens": 1e11})
    table = table.assign(loss_c4=4 - 0.2 * np.arange(6), acc_piqa=0.5 + 0.05 * np.arange(6))
    wide = widen(table_points(table, registries=host).points("c4").assign(loss=np.nan))
    assert sorted(wide["loss"]) == pytest.approx(sorted(table["loss_c4"]))
