"""What figures show: families beside each other, metrics that cannot share an axis, names that fit the legend."""

from __future__ import annotations

import json
import re
from itertools import cycle, islice

import numpy as np
import pandas as pd
import pytest

from harness.charts import forecast_chart, scaling_chart, specification
from harness.charts.layers import DASHES, LIGHT
from harness.fitting.point_source import table_points
from harness.reports.page import _about
from harness.reports.report import collect
from harness.reports.task_figure import plot_task
from harness.store.points import PointStore
from harness_plugins.panels.overview import heat_map, predictions
from harness_plugins.panels.scaling import choices, scaling

vl_convert = pytest.importorskip("vl_convert")


def test_forecasts_of_families_with_equal_compute_do_not_hide_each_other():
    """All families had the same place on the axis, so that only the last was seen."""
    rows = pd.DataFrame({"family": ["a", "b", "c"], "label": "x", "flops": 1e18, "value": 0.5, "low": 0.4, "high": 0.6})
    chart = forecast_chart(rows.assign(kind="forecast", verdict="", abstains=False))
    svg = vl_convert.vegalite_to_svg(specification(chart))
    marks = re.findall(r'aria-roledescription="point"[^>]*transform="translate\(([\d.]+),', svg)
    places = sorted(map(float, marks))
    assert np.diff(places) == pytest.approx([7, 7])


def test_families_after_the_24th_do_not_look_like_others():
    """The 25th family had the colour and the line of the first."""
    looks = list(zip(islice(cycle(LIGHT), 48), map(tuple, islice(cycle(DASHES), 48)), strict=True))
    assert len(set(looks)) == 48


def test_long_names_of_families_get_fewer_columns_in_the_legend():
    rows = pd.DataFrame({"family": ["a" * 40, "b"], "label": "x", "flops": 1e18, "value": 0.5, "low": 0.4, "high": 0.6})
    spec = specification(scaling_chart(rows.assign(kind="measured")))
    assert {layer["encoding"]["color"]["legend"]["columns"] for layer in spec["layer"]} == {2}


@pytest.fixture(scope="module")
def both() -> pd.DataFrame:
    """Return accuracies and perplexities of two families, without standard errors."""
    flops = np.geomspace(1e18, 1e22, 5)
    rows = [{"family": f, "flops": flops, "params": np.sqrt(flops / 120)} for f in ("a", "b")]
    table = pd.concat(map(pd.DataFrame, rows), ignore_index=True)
    return table.assign(acc=0.2 + 0.02 * np.arange(10), ppl=np.geomspace(900, 5, 10))


def test_perplexities_do_not_share_the_axes_and_colours_of_accuracies(both: pd.DataFrame):
    """Accuracies were one colour of the heat map, and one point of the predictions, beside perplexities."""
    data = collect(table_points(both), law="line", hold_out="largest")
    cells = heat_map(data).rows.set_index("task")
    assert cells["share"]["acc"].between(0, 1).all()
    assert cells["share"]["ppl"].isna().all()
    assert list(heat_map(data).rows["row"].unique()) == ["acc", "ppl"]
    panel = heat_map(data)
    chart = panel.chart | {"data": {"values": json.loads(panel.rows.to_json(orient="records"))}}
    fills = re.findall(r'aria-roledescription="rect mark"[^>]*fill="([^"]+)"', vl_convert.vegalite_to_svg(chart))
    assert (len(fills), fills.count("#9a9a9a")) == (4, 2)
    drawn = predictions(data)
    assert drawn is not None
    assert drawn.chart["facet"]["sort"] == ["scores from 0 to 1", "ppl"]
    assert drawn.chart["resolve"] == {"scale": {"x": "independent", "y": "independent"}}
    assert set(drawn.rows["chart"][drawn.rows["task"] == "ppl"]) == {"ppl"}


def test_error_bars_that_are_unknown_are_not_announced(both: pd.DataFrame):
    data = collect(table_points(both[["family", "flops", "params", "acc"]]), law="line", hold_out="largest")
    assert "No standard errors are known" in _about(data)
    assert "Each point is a checkpoint; its error is unknown. Diamonds" in scaling(data).about


def test_points_that_lack_the_axis_are_counted(both: pd.DataFrame):
    """A family without params was missing from the figure of --x params without a word."""
    table = both[["family", "flops", "params", "acc"]].copy()
    table.loc[table["family"] == "b", "params"] = np.nan
    notes = list[str]()
    chart = plot_task(table, law="line", x="params", note=notes.append)
    assert "5 of 10 points have no params and are not drawn: those of b" in notes
    assert set(chart.data["family"]) == {"a"}


def test_losses_on_an_axis_are_plain_numbers():
    """The ticks of losses were 1.2e+0, 1.4e+0."""
    rows = pd.DataFrame({"family": "a", "label": "x", "loss": [1.2, 1.9], "value": 0.5, "low": 0.4, "high": 0.6})
    spec = specification(scaling_chart(rows.assign(kind="measured"), x="loss"))
    assert {layer["encoding"]["x"]["axis"]["format"] for layer in spec["layer"]} == {"~g"}


def test_choices_are_drawn_of_final_checkpoints(nano_store: PointStore):
    """Early checkpoints of large sizes stood between late ones of small sizes, on one line."""
    data = collect(nano_store, law="line", hold_out="largest", task="nano_birthplace")
    panel = choices(data)
    assert panel is not None
    assert panel.rows["label"].str.endswith("@1600").all()
    assert not data.choices["label"].str.endswith("@1600").all()
    assert panel.chart["layer"][0]["encoding"]["strokeDash"]["legend"]["symbolType"] == "stroke"
