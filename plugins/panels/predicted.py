"""Figures of predictions: forecasts with intervals, back-tests, and accuracy from the task loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import harness
from harness import Panel, ReportData
from harness_plugins.panels.scaling import COLOUR, IDENTITY, SCALES, X, y_axis

if TYPE_CHECKING:
    import pandas as pd

KINDS = ["measured", "forecast of the largest", "forecast"]


def forecasts(data: ReportData) -> Panel | None:
    """Return measured scores of final checkpoints and forecasts with intervals."""
    import pandas as pd

    from harness.points import ends

    if not len(data.forecasts):
        return None
    tasks = set(data.forecasts["task"])
    shown = data.points[data.points["shown"] & data.points["task"].isin(tasks)]
    columns = [*IDENTITY, *(s for s in SCALES if s in shown.columns), "value"]
    measured = shown[ends(shown, "task")][columns].assign(kind="measured", abstains=False, verdict="")
    rows = pd.concat([measured, data.forecasts.drop(columns="measured")], ignore_index=True)
    known = data.forecasts[data.forecasts["measured"].notna() & ~data.forecasts["abstains"].astype(bool)]
    covered = int(((known["measured"] >= known["low_90"]) & (known["measured"] <= known["high_90"])).sum())
    return Panel(
        title="Forecasts",
        about="Squares forecast the largest size from the smaller ones, triangles a model with ten times the compute, "
        "with their intervals; circles are measurements. Pale forecasts abstain: their intervals are not "
        f"informative. {covered} of {len(known)} measured values lie in the 90 % interval of the other forecasts.",
        chart={"layer": _forecast_layers()},
        rows=rows,
        controls=("task", "family", "x", "level"),
    )


def _forecast_layers() -> list[dict[str, Any]]:
    only = [{"filter": "datum.kind != 'measured'"}]
    pale = {"condition": {"test": "datum.abstains", "value": 0.3}, "value": 1}
    shape = {
        "field": "kind",
        "type": "nominal",
        "title": None,
        "legend": {"orient": "bottom", "columns": 1, "labelLimit": 260},
        "scale": {"domain": KINDS, "range": ["circle", "square", "triangle-up"]},
    }
    named = [{"field": name, "type": "nominal"} for name in ("label", "family", "kind", "verdict")]
    tooltip = [
        *named,
        *({"field": name, "type": "quantitative", "format": ".4~g"} for name in ("value", "low", "high")),
    ]
    bars = {"x": X, "color": COLOUR, "opacity": pale, "y": y_axis("low", "$metric"), "y2": {"field": "high"}}
    marks = {
        "x": X,
        "color": COLOUR,
        "opacity": pale,
        "shape": shape,
        "tooltip": tooltip,
        "y": y_axis("value", "$metric"),
    }
    return [
        {"transform": only, "mark": {"type": "rule", "strokeWidth": 3, "aria": False}, "encoding": bars},
        {"mark": {"type": "point", "filled": True, "size": 70}, "encoding": marks},
    ]


def loss_to_accuracy(data: ReportData) -> Panel | None:
    """Return accuracy against the task loss, with the second step of a two-step law."""
    if not len(data.two_steps):
        return None
    title = "Task loss: -log p of the gold choice (nats)"
    x = {"field": "task_loss", "type": "quantitative", "title": title, "scale": {"zero": False}}
    law, points = ([{"filter": f"datum.kind {sign} 'law'"}] for sign in ("==", "!="))
    band = {"x": x, "color": COLOUR, "y": y_axis("low", "$metric"), "y2": {"field": "high"}}
    line = {"x": x, "color": COLOUR, "y": y_axis("value", "$metric")}
    shape = {
        "field": "kind",
        "type": "nominal",
        "title": "Checkpoint",
        "legend": {"orient": "bottom"},
        "scale": {"domain": ["measured", "held out"], "range": ["circle", "diamond"]},
    }
    tooltip: list[dict[str, Any]] = [{"field": name, "type": "nominal"} for name in ("label", "kind")]
    tooltip += [
        {"field": name, "type": "quantitative", "format": ".4~g"} for name in ("task_loss", "value", "low", "high")
    ]
    return Panel(
        title="Accuracy against task loss",
        about="Each point is a checkpoint. The line is the second step of the law two_step, which gives accuracy from "
        "the task loss; diamonds were held out. If families lie on one line, equal loss gives equal accuracy.",
        chart={
            "layer": [
                {"transform": law, "mark": {"type": "area", "opacity": 0.16}, "encoding": band},
                {"transform": law, "mark": "line", "encoding": line},
                {"transform": points, "mark": {"type": "rule", "aria": False}, "encoding": band},
                {
                    "transform": points,
                    "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1},
                    "encoding": {**line, "shape": shape, "tooltip": tooltip},
                },
            ]
        },
        rows=data.two_steps,
        controls=("task", "family", "level"),
    )


def back_test(data: ReportData) -> Panel | None:
    """Return predictions of every size from the smaller sizes against measurements, one chart per law."""
    if not len(data.back_tests):
        return None
    names = ["task", "metric", "family", "law", "target", "sizes", "measured", "predicted", "low", "high"]
    inside = data.back_tests["inside"].map({True: "covered", False: "missed"}).fillna("no interval")
    rows = data.back_tests[names].assign(inside=inside)
    return Panel(
        title="Back-test",
        about="Predictions of every size from the smaller sizes of its family, with 90 % intervals, against "
        f"measurements. On the grey line both are equal. {_coverage(rows)} The law last predicts no change.",
        chart=_back_test_chart(),
        rows=rows,
        controls=("family",),
    )


def _coverage(rows: pd.DataFrame) -> str:
    """Describe each law's coverage and mean absolute error."""
    sentences = []
    for law, predictions in rows.groupby("law", sort=False):
        known = predictions[predictions["inside"] != "no interval"]
        error = float((predictions["predicted"] - predictions["measured"]).abs().mean())
        covered = int((known["inside"] == "covered").sum())
        sentences.append(f"{law}: {covered} of {len(known)} covered, mean absolute error {error:.3f}.")
    return " ".join(sentences)


def _back_test_chart() -> dict[str, Any]:
    unit = {"scale": {"domain": [0, 1]}, "axis": {"tickCount": 6}}
    x = {"field": "measured", "type": "quantitative", "title": "Measured", **unit}
    y = {"field": "predicted", "type": "quantitative", "title": "Predicted", **unit}
    shape = {
        "field": "inside",
        "type": "nominal",
        "title": "90 % interval",
        "legend": {"orient": "bottom"},
        "scale": {"domain": ["covered", "missed", "no interval"], "range": ["circle", "cross", "triangle-up"]},
    }
    named = [{"field": name, "type": "nominal"} for name in ("target", "task", "law", "sizes")]
    numbers = ("measured", "predicted", "low", "high")
    tooltip = [*named, *({"field": name, "type": "quantitative", "format": ".4f"} for name in numbers)]
    layers = [
        {
            "mark": {"type": "line", "strokeDash": [4, 4], "color": "#888888"},
            "encoding": {"x": x, "y": {**y, "field": "measured"}},
        },
        {
            "mark": {"type": "rule", "clip": True, "aria": False},
            "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, "color": COLOUR},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1},
            "encoding": {"x": x, "y": y, "color": COLOUR, "shape": shape, "tooltip": tooltip},
        },
    ]
    return {
        "facet": {"field": "law", "type": "nominal", "title": None, "sort": None},
        "columns": 2,
        "spec": {"layer": layers, "width": 200, "height": 200},
    }


@harness.hookimpl
def register_panels(register: harness.Register) -> None:
    """Register the figures, in the order in which they appear."""
    register("forecasts", forecasts)
    register("loss_to_accuracy", loss_to_accuracy)
    register("back_test", back_test)
