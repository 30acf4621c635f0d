"""Figures over all tasks: the heat map of families and tasks, and predictions against measurements."""

from __future__ import annotations

import harness
from harness import Panel, ReportData
from harness.charts import agreement_layers, covered, covered_shape


def heat_map(data: ReportData) -> Panel:
    """Return the score of the largest checkpoint of each family on each task."""
    from harness.points import ends, largest_known

    shown = data.points[data.points["shown"]]
    keys, order = ["family", "task", "metric"], ["tokens", "step", "flops", "seed"]
    rows = shown[largest_known(shown) & ends(shown, "task")].sort_values(order, kind="stable")
    rows = rows.groupby(keys, sort=False).tail(1)
    rows = rows[[*keys, "label", "value", "low", "high"]]
    text = [{"field": n, "type": "nominal", "title": n} for n in ("label", "task", "metric")]
    numbers = [{"field": n, "type": "quantitative", "format": ".4f"} for n in ("value", "low", "high")]
    x = {"field": "family", "type": "nominal", "title": "Family", "axis": {"labelAngle": -30}}
    y = {"field": "task", "type": "nominal", "title": "Task"}
    colour = {"field": "value", "type": "quantitative", "title": "Score", "scale": {"scheme": "viridis"}}
    label = {"field": "value", "type": "quantitative", "format": ".3f"}
    contrast = {"condition": {"test": "datum.value > 0.6", "value": "#111111"}, "value": "#ffffff"}
    return Panel(
        title="Families and tasks",
        about="Score of the largest checkpoint of each family, in the metric of the task. Scores of different metrics "
        "cannot be compared with each other.",
        chart={
            "layer": [
                {"mark": "rect", "encoding": {"x": x, "y": y, "color": colour, "tooltip": text + numbers}},
                {"mark": "text", "encoding": {"x": x, "y": y, "text": label, "color": contrast}},
            ]
        },
        rows=rows,
        controls=("family",),
    )


def predictions(data: ReportData) -> Panel | None:
    """Return predicted against measured values of the held-out points."""
    if not len(data.held_out):
        return None
    rows = data.held_out[["task", "family", "law", "label", "measured", "predicted", "low", "high", "inside"]]
    rows = rows.assign(inside=covered(rows["inside"]))
    counted = int((rows["inside"] == "covered").sum())
    return Panel(
        title="Predictions of held-out checkpoints",
        about=f"The law was fitted without these checkpoints. {counted} of {len(rows)} measured values lie in the 90 % "
        "interval. On the grey line, prediction and measurement are equal.",
        chart={"layer": agreement_layers(covered_shape(), "label", "task", "law")},
        rows=rows,
        controls=("family",),
    )


@harness.hookimpl
def register_panels(register: harness.Register) -> None:
    """Register the figures, in the order in which they appear."""
    register("heat_map", heat_map)
    register("predictions", predictions)
