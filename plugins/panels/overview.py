"""Figures over all tasks: the heat map of families and tasks, and predictions against measurements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import harness
from harness import Panel, ReportData
from harness.charts import agreement_layers, covered, covered_shape

if TYPE_CHECKING:
    import pandas as pd

MOST_WRITTEN = 8  # families beside each other whose scores are written into the cells
VALID = "isValid(datum.share)"
SHARES = "scores from 0 to 1"


def heat_map(data: ReportData) -> Panel:
    """Return the score of the largest checkpoint of each family on each task; only scores from 0 to 1 are coloured."""
    from harness.points import ends, largest_known

    shown = data.points[data.points["shown"]]
    keys, order = ["family", "task", "metric"], ["tokens", "step", "flops", "seed"]
    rows = shown[largest_known(shown) & ends(shown, "task")].sort_values(order, kind="stable")
    rows = rows.groupby(keys, sort=False).tail(1)
    rows = rows[[*keys, "label", "value", "low", "high"]]
    rows = rows.assign(row=_named(rows), share=rows["value"].where(_is_share(rows, "value")))
    return Panel(
        title="Families and tasks",
        about="Score of the largest checkpoint of each family, in the metric of the task. Scores of different metrics "
        "cannot be compared with each other; grey ones do not lie from 0 to 1.",
        chart={"layer": _cells(rows["family"].nunique())},
        rows=rows,
        controls=("family",),
    )


def _named(rows: pd.DataFrame) -> pd.Series[Any]:
    """Return the name of each row of the heat map: its task, with its metric if tasks have several."""
    named = rows["task"] + " (" + rows["metric"] + ")"
    return rows["task"] if rows["metric"].nunique() < 2 else named.where(rows["metric"] != rows["task"], rows["task"])


def _is_share(rows: pd.DataFrame, *names: str) -> pd.Series[bool]:
    """Mark the rows of metrics whose values all lie from 0 to 1."""
    outside = ((rows[list(names)] < 0) | (rows[list(names)] > 1)).any(axis=1)
    return ~outside.groupby([rows["task"], rows["metric"]]).transform("any")


def _cells(families: int) -> list[dict[str, Any]]:
    """Return the layers of the heat map; numbers are written where they fit."""
    text = [{"field": n, "type": "nominal", "title": n} for n in ("label", "task", "metric")]
    numbers = [{"field": n, "type": "quantitative", "format": ".4~g"} for n in ("value", "low", "high")]
    is_written = families <= MOST_WRITTEN
    angle = {"labelAngle": -30 if is_written else -90, "labelLimit": 120}
    x = {"field": "family", "type": "nominal", "title": "Family", "axis": angle}
    y = {"field": "row", "type": "nominal", "title": "Task", "axis": {"labelLimit": 220}}
    scale = {"scheme": "viridis", "domain": [0, 1]}
    colour = {"field": "share", "type": "quantitative", "title": "Score", "scale": scale}
    colour |= {"condition": {"test": f"!{VALID}", "value": "#9a9a9a"}}
    contrast = {"condition": {"test": f"{VALID} && datum.share <= 0.6", "value": "#ffffff"}, "value": "#111111"}
    mark = {"type": "rect", "invalid": None}  # grey cells too
    cells = {"mark": mark, "encoding": {"x": x, "y": y, "color": colour, "tooltip": text + numbers}}
    number = f"format(datum.value, {VALID} ? '.3f' : '.3~g')"
    label = {"field": "number", "type": "nominal"}
    written = {
        "mark": "text",
        "transform": [{"calculate": number, "as": "number"}],
        "encoding": {"x": x, "y": y, "text": label, "color": contrast},
    }
    return [cells, written] if is_written else [cells]


def predictions(data: ReportData) -> Panel | None:
    """Return predicted against measured values of the held-out points; a chart per metric beyond scores from 0 to 1."""
    if not len(data.held_out):
        return None
    names = ["task", "metric", "family", "law", "label", "measured", "predicted", "low", "high", "inside"]
    rows = data.held_out[names]
    is_share = _is_share(rows, "measured", "predicted")
    rows = rows.assign(inside=covered(rows["inside"]), chart=rows["metric"].where(~is_share, SHARES))
    counted, known = int((rows["inside"] == "covered").sum()), int((rows["inside"] != "no interval").sum())
    without = f"; {len(rows) - known} have none" if known < len(rows) else ""
    return Panel(
        title="Predictions of held-out checkpoints",
        about=f"The law was fitted without these checkpoints. {counted} of {known} measured values lie in the 90 % "
        f"interval{without}. On the grey line, prediction and measurement are equal.",
        chart=_agreement(list(dict.fromkeys(rows["chart"].sort_values(key=lambda names: names != SHARES)))),
        rows=rows,
        controls=("family",),
    )


def _agreement(charts: list[str]) -> dict[str, Any]:
    """Return the chart of predictions: one, or one per metric, each with its own axes."""
    layers = agreement_layers(covered_shape(), "label", "task", "law")
    if len(charts) < 2:
        return {"layer": layers}
    return {
        "facet": {"field": "chart", "type": "nominal", "title": None, "sort": charts},
        "columns": 2,
        "spec": {"layer": layers, "width": 180, "height": 180},
        "resolve": {"scale": {"x": "independent", "y": "independent"}},
    }


@harness.hookimpl
def register_panels(register: harness.Register) -> None:
    """Register the figures, in the order in which they appear."""
    register("heat_map", heat_map)
    register("predictions", predictions)
