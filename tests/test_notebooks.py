"""Display of tables, fits, forecasts and stores in a notebook."""

from __future__ import annotations

import base64
import builtins
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import harness
from harness.cli import main
from harness.fitting.result import LawFit, save_fits
from harness.host import PluginHost
from harness.store.points import PointStore
from harness.tables import Measured, Table


def test_a_table_is_shown_with_its_text_escaped():
    table = Table("t", "A <b>", ("doc", "acc"), (("<script>x</script>", Measured(0.5, 0.01)),), ("a & b",))
    shown = table._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;x&lt;/script&gt;" in shown
    assert "<td>0.500 ± 0.010</td>" in shown
    assert "<li>a &amp; b</li>" in shown


def test_a_fit_has_a_short_repr_and_a_report(nano_store: PointStore):
    points = nano_store.points("nano_text", "aster", metrics=["bits_per_byte"])
    fit = harness.fit(points, "line", value="bits_per_byte", hold_out="largest", bootstrap=20)
    assert repr(fit) == "<LawFit line: bits_per_byte from flops, family aster, task nano_text; 5 points, 5 held out>"
    assert fit._repr_html_().startswith("<pre>line: bits_per_byte from flops")


def test_a_store_lists_its_tasks(nano_store: PointStore):
    assert "<td>nano_addition</td><td>13</td><td>0</td>" in nano_store._repr_html_()


def ladder() -> pd.DataFrame:
    """Return points of two families of five sizes on two tasks."""
    rng, flops = np.random.default_rng(0), np.geomspace(1e18, 1e21, 5)
    size = {"size": list("abcde"), "seed": 0, "flops": flops, "params": np.sqrt(flops / 120)}
    size["tokens"] = flops / 6 / size["params"]
    frames = [
        pd.DataFrame({"task": task, "family": family, **size, "acc_stderr": 0.01, "acc_n": 1000.0}).assign(
            acc=0.3 + 0.1 * np.log10(flops / 1e18) + gain + rng.normal(scale=0.005, size=5)
        )
        for task in ("arc", "piqa")
        for family, gain in (("ash", 0.0), ("elm", 0.05))
    ]
    return pd.concat(frames, ignore_index=True)


@pytest.fixture(scope="module")
def one_fit(host: PluginHost) -> LawFit:
    points = ladder().query("task == 'arc' and family == 'ash'")
    return harness.fit(points, "line", value="acc", hold_out="largest", bootstrap=20, registries=host)


def rows_of(chart: Any) -> list[dict[str, Any]]:
    """Return the data of a chart, from the JSON that a browser gets."""
    specification = json.loads(chart.to_json())
    (rows,) = specification["datasets"].values()
    return list(rows)


def image_of(shown: str) -> str:
    """Return the figure in the HTML of a notebook."""
    return base64.b64decode(shown.partition("base64,")[2].partition('"')[0]).decode()


def test_a_fit_is_drawn_with_its_points_and_those_held_out(one_fit: LawFit):
    rows = rows_of(one_fit.plot())
    kinds = [row["kind"] for row in rows]
    assert (kinds.count("measured"), kinds.count("held out")) == (4, 1)
    held = next(row for row in rows if row["kind"] == "held out")
    assert held["value"] == pytest.approx(one_fit.hold_out[0]["measured"])
    assert held["high"] - held["low"] == pytest.approx(2 * 1.96 * 0.01, rel=1e-3)
    curve = [row for row in rows if row["kind"] == "law"]
    assert curve[-1]["x"] == pytest.approx(4e21)
    assert all(row["low"] < row["value"] < row["high"] for row in curve)


def test_a_saved_fit_is_drawn_as_the_fit_was(one_fit: LawFit, host: PluginHost):
    again = LawFit.from_json(json.loads(json.dumps(one_fit.to_json())), host)
    assert rows_of(again.plot()) == rows_of(one_fit.plot())


def test_a_law_of_several_features_is_drawn_as_predicted_against_measured(host: PluginHost):
    points = ladder().query("task == 'arc'").assign(loss=lambda p: 1.5 + 40 * p["params"] ** -0.2)
    fit = harness.fit(points, "chinchilla", value="loss", hold_out="largest", bootstrap=10, starts=4, registries=host)
    rows = rows_of(fit.plot())
    assert len(rows) == len(points)
    assert {row["inside"] for row in rows} <= {"covered", "missed", "no interval"}


def test_a_forecast_is_drawn_beside_what_was_measured(host: PluginHost):
    forecast = harness.forecast(ladder(), registries=host)
    rows = rows_of(forecast.plot())
    assert sum(row["kind"] == "measured" for row in rows) == 20
    assert sum(row["kind"] == "forecast of the largest" for row in rows) == 4
    assert {row["task"] for row in rows} == {"arc", "piqa"}
    assert "Training compute (FLOPs)" in image_of(forecast._repr_html_())


def test_a_back_test_has_a_chart_per_law(host: PluginHost):
    result = harness.back_test(ladder(), ["last", "line"], value="acc", bootstrap=10, registries=host)
    chart = result.plot()
    assert chart.to_dict()["facet"]["sort"][0] == result.summary().rows[0][0]  # the best law comes first
    assert len(rows_of(chart)) == len(result.rows)
    assert "<svg" in image_of(result._repr_html_())


def test_a_store_and_a_comparison_are_drawn(nano_store: PointStore):
    rows = rows_of(nano_store.plot("nano_addition"))
    points = nano_store.points("nano_addition", metrics=["acc"])
    assert [row["value"] for row in rows] == pytest.approx(points["value"].tolist())
    assert rows[0]["label"] == "aster:w32l2@0" or "aster:w32l2@" in rows[0]["label"]
    comparison = harness.compare(nano_store, laws=["line"], where="task == 'nano_birthplace'", bootstrap=10)
    assert {row["family"] for row in rows_of(comparison.plot())} == {"aster", "birch"}
    assert "<table>" in comparison._repr_html_()
    with pytest.raises(harness.UsageError, match="no points of task 'other'"):
        comparison.plot("other")


def test_without_altair_a_notebook_shows_the_text_alone(one_fit: LawFit, monkeypatch):
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.split(".", maxsplit=1)[0] == "altair":
            raise ImportError(name="altair")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert one_fit._repr_html_().endswith("</pre>")
    with pytest.raises(harness.UsageError, match="extra `report`"):
        one_fit.plot()


def test_saved_fits_are_drawn_by_harness_plot(one_fit: LawFit, tmp_path: Path):
    save_fits([one_fit], tmp_path / "fits.json")
    result = CliRunner().invoke(main, ["plot", str(tmp_path / "fits.json"), "-o", str(tmp_path / "f.json")])
    assert result.exit_code == 0, result.output
    (rows,) = json.loads((tmp_path / "f.json").read_text())["datasets"].values()
    assert {row["kind"] for row in rows} == {"measured", "held out", "law"}
    result = CliRunner().invoke(
        main, ["plot", str(tmp_path / "fits.json"), "--task", "other", "-o", str(tmp_path / "g.svg")]
    )
    assert result.exit_code == 2
    assert "no fit is for task 'other'; there are: arc" in result.stderr
