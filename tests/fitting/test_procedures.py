"""Laws that are more than a formula: hold-out, resamples, JSON and options, as of any law."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from harness import Fitted, LawError, UsageError
from harness.cli import main
from harness.fitting.fit import fit, fit_families
from harness.fitting.result import load_fits, save_fits
from harness.host import load_plugins
from harness.testing import check_law
from tests.testing.test_checks import Line

PLUGIN = """
import numpy as np
import harness
from tests.fitting.test_procedures import Average

@harness.hookimpl
def register_laws(register):
    register(Average())
"""


@dataclass(frozen=True)
class Average:
    """y: the mean of the points of the largest compute."""

    last: int = 1

    name = "average"
    features = ("flops",)
    options = {"last": "how many points count"}

    def fit(self, points, value, rng):
        if len(set(points["flops"])) < 3:
            raise LawError("too few budgets")
        largest = points.sort_values("flops", kind="stable").tail(self.last)
        return Fitted({"y": float(largest[value].mean())}, notes=("a mean is no law",))

    def predict(self, fitted, points):
        return np.full(len(points), fitted.parameters["y"])

    def example(self):
        return pd.DataFrame({"flops": [1e18, 1e19, 1e20], "y": [0.5] * 3})


def points(n: int = 12) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame({"flops": np.geomspace(1e18, 1e22, n), "y": 0.5 + rng.normal(scale=0.1, size=n)})


@pytest.fixture
def host():
    plugins = load_plugins()
    plugins.laws.add("average", Average(), "tests")
    return plugins


def test_a_procedure_is_fitted_predicted_and_printed_like_any_law(host):
    table = points()
    fitted = fit(table, "average", value="y", hold_out="flops > 1e21", registries=host, bootstrap=50)
    assert fitted.steps[0].parameters == {"y": table["y"][8]}
    assert [row["predicted"] for row in fitted.hold_out] == [table["y"][8]] * 3
    assert fitted.hold_out[-1]["beyond"] == pytest.approx(1e22 / table["flops"][8])
    assert fitted.hold_out[-1]["low"] < table["y"][8] < fitted.hold_out[-1]["high"]
    assert fitted.predict(flops=[1e25])["value"].tolist() == [table["y"][8]]
    text = str(fitted)
    assert "average: y: the mean of the points of the largest compute." in text
    assert "warning: average: a mean is no law" in text
    assert "of 50 resamples fitted" in text


def test_held_out_points_reach_no_fit(host):
    table = points()
    plain = fit(table, "average", value="y", hold_out="flops > 1e21", registries=host, bootstrap=20)
    table.loc[9:, "y"] = 99.0
    spoilt = fit(table, "average", value="y", hold_out="flops > 1e21", registries=host, bootstrap=20)
    assert spoilt.steps == plain.steps


def test_units_are_resampled_whole(host):
    """Two runs of six points: the last point of a resample is that of either run, and of no other point."""
    table = points().assign(family="f", size=["a"] * 6 + ["b"] * 6)
    fitted = fit(table, "average", value="y", registries=host, bootstrap=200)
    drawn = {draw.parameters["y"] for draw in fitted.steps[0].draws}
    assert drawn == {table["y"][5], table["y"][11]}


def test_resamples_that_fail_are_counted(host):
    fitted = fit(points(3), "average", value="y", registries=host, bootstrap=100)
    failed = fitted.steps[0].failed
    assert 60 < failed < 95  # one of 4.5 resamples of three points holds all three
    assert f"average: {failed} of 100 resamples could not be fitted" in str(fitted)
    few = fit(points(3), "average", value="y", registries=host, bootstrap=20)
    assert "could be fitted; there are no intervals" in str(few)
    assert np.isnan(few.predict(flops=[1e21])[["low", "high"]].to_numpy()).all()


def test_a_fit_is_read_back_with_the_options_of_its_law(host, tmp_path):
    fitted = fit(points(), "average", value="y", registries=host, bootstrap=20, law_options={"last": 4})
    save_fits([fitted], tmp_path / "fit.json")
    (read,) = load_fits(tmp_path / "fit.json", host)
    assert read.steps[0].law == Average(last=4)
    pd.testing.assert_frame_equal(read.predict(flops=[1e23]), fitted.predict(flops=[1e23]))
    assert str(read) == str(fitted)
    assert json.loads(json.dumps(fitted.to_json(), allow_nan=False))["law_options"] == {"last": 4}


def test_options_that_a_law_does_not_have_are_named(host):
    with pytest.raises(UsageError, match="law 'average' has no option first; "):
        fit(points(), "average", value="y", registries=host, law_options={"first": 1})
    with pytest.raises(UsageError, match="law 'sigmoid' has no option last; there are: none"):
        fit(points(), "sigmoid", value="y", registries=host, law_options={"last": 1})


def test_a_law_that_pools_is_fitted_once(host):
    table = points().assign(family=["a", "b"] * 6)
    pooled = type("Pooled", (Average,), {"pools": True})()
    assert [family for family, _ in fit_families(table, pooled, value="y", bootstrap=10)] == [""]
    assert [family for family, _ in fit_families(table, Average(), value="y", bootstrap=10)] == ["a", "b"]


def test_documents_are_redrawn_and_units_stay(host):
    table = points().assign(y_stderr=0.01)
    fitted = fit(table, "average", value="y", registries=host, bootstrap=300, resample="documents")
    assert fitted.steps[0].stderr["y"] == pytest.approx(0.01, rel=0.15)


def test_the_command_line_takes_a_procedure_and_its_options(tmp_path):
    points().to_csv(tmp_path / "points.csv", index=False)
    (tmp_path / "averaging.py").write_text(PLUGIN)
    arguments = ["-p", str(tmp_path / "averaging.py"), "fit", str(tmp_path / "points.csv"), "--law", "average"]
    arguments += ["--value", "y", "--option", "last=3", "--bootstrap", "20", "-o", str(tmp_path / "fit.json")]
    done = CliRunner().invoke(main, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)[0]["law_options"] == {"last": 3}
    again = ["-p", str(tmp_path / "averaging.py"), "predict", str(tmp_path / "fit.json"), "--flops", "1e23"]
    assert "| average |" in CliRunner().invoke(main, again).output


def with_(**changed) -> object:
    return type("Changed", (Average,), changed)()


def test_a_procedure_that_is_right_passes_the_check():
    check_law(Average())


@pytest.mark.parametrize(
    ("law", "message"),
    [
        (with_(fit=lambda self, points, value, rng: {"y": 0.5}), "expected a harness.Fitted"),
        (with_(predict=lambda self, fitted, points: 0.5 * np.ones(9)), r"predict\(\) gives \(9,\) for 3 points"),
        (with_(predict=lambda self, fitted, points: np.full(len(points), 0.4)), "without noise, it is wrong by 0.1"),
        (
            with_(predict=lambda self, fitted, points: points["flops"].to_numpy() * 0 + 0.5 + 1e-4 * (len(points) < 3)),
            "depends on the other predicted points",
        ),
        (with_(fit=lambda self, points, value, rng: Fitted({"y": points.pop(value)[0]})), "modifies its input points"),
        (type("Half", (), {"name": "half", "features": (), "fit": None})(), "lacks predict; expected name, features"),
    ],
)
def test_what_is_wrong_with_a_procedure_is_said(law, message):
    with pytest.raises(AssertionError, match=message):
        check_law(law)


def test_a_formula_is_no_procedure():
    from harness.types.laws import ProcedureLaw

    assert not isinstance(Line(), ProcedureLaw)
