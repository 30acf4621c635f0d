"""Figures of scores against scale: one task, all metrics of a task, and the log-probabilities of its choices."""

from __future__ import annotations

from typing import Any

import harness
from harness import Panel, ReportData

SCALES = ("flops", "params", "tokens", "loss")
X = {
    "field": "x",
    "type": "quantitative",
    "scale": {"type": "log", "nice": False, "padding": 12},
    "axis": {"tickCount": 6},
}
COLOUR = {"field": "family", "type": "nominal", "title": "Family", "legend": {"orient": "bottom", "symbolOpacity": 1}}
IDENTITY = ["task", "metric", "family", "label"]


def y_axis(field: str, title: str) -> dict[str, Any]:
    """Return a vertical axis that may start above 0."""
    return {"field": field, "type": "quantitative", "title": title, "scale": {"zero": False}}


def _tooltip(*names: str) -> list[dict[str, Any]]:
    texts = {"label": "Checkpoint", "family": "Family", "kind": "Kind", "choice": "Choice", "metric": "Metric"}
    numbers = {"x": "$x_title", "value": "Value", "low": "Lower end", "high": "Upper end"}
    named = [{"field": n, "type": "nominal", "title": texts[n]} for n in names if n in texts]
    return named + [
        {"field": n, "type": "quantitative", "title": numbers[n], "format": ".4~g"} for n in names if n in numbers
    ]


def scaling(data: ReportData) -> Panel:
    """Return points with error bars, the law with its interval, and held-out points of one task."""
    import pandas as pd

    columns = [*IDENTITY, *(s for s in SCALES if s in data.points.columns), "value", "low", "high"]
    points = data.points[data.points["shown"]][columns].assign(kind="measured")
    if len(data.held_out):
        held = set(zip(data.held_out["task"], data.held_out["label"], strict=True))
        is_held = [pair in held for pair in zip(points["task"], points["label"], strict=True)]
        points.loc[is_held, "kind"] = "held out"
    rows = pd.concat([points, data.curves.assign(kind="law")], ignore_index=True) if len(data.curves) else points
    law = str(data.curves["law"].iloc[0]) if len(data.curves) else ""
    drawn = f"The line is the law {law}, fitted without them; the band is its interval." if law else "No law is fitted."
    return Panel(
        title="Score against scale",
        about="Each point is a checkpoint, with its 95 % interval over documents. Diamonds were held out. " + drawn,
        chart={"layer": _curve_layers() + _point_layers()},
        rows=rows,
        controls=("task", "family", "x", "level"),
    )


def _curve_layers() -> list[dict[str, Any]]:
    only = [{"filter": "datum.kind == 'law'"}]
    band = {"x": X, "color": COLOUR, "y": y_axis("low", "$metric"), "y2": {"field": "high"}}
    return [
        {"transform": only, "mark": {"type": "area", "opacity": 0.16}, "encoding": band},
        {
            "transform": only,
            "mark": {"type": "line"},
            "encoding": {"x": X, "color": COLOUR, "y": y_axis("value", "$metric")},
        },
    ]


def _point_layers() -> list[dict[str, Any]]:
    only = [{"filter": "datum.kind != 'law'"}]
    bars = {"x": X, "color": COLOUR, "y": y_axis("low", "$metric"), "y2": {"field": "high"}}
    shape = {
        "field": "kind",
        "type": "nominal",
        "title": "Checkpoint",
        "legend": {"orient": "bottom"},
        "scale": {"domain": ["measured", "held out"], "range": ["circle", "diamond"]},
    }
    tooltip = _tooltip("label", "kind", "x", "value", "low", "high")
    marks = {"x": X, "color": COLOUR, "y": y_axis("value", "$metric"), "shape": shape, "tooltip": tooltip}
    return [
        {"transform": only, "mark": {"type": "rule", "aria": False}, "encoding": bars},
        {"transform": only, "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1}, "encoding": marks},
    ]


def _lines(colour: dict[str, Any], tooltip: list[dict[str, Any]], title: str) -> dict[str, Any]:
    detail = {"field": "family", "type": "nominal"}
    encoding = {"x": X, "y": y_axis("value", title), "color": colour, "detail": detail, "tooltip": tooltip}
    return {"mark": {"type": "line", "point": {"size": 45, "filled": True}}, "encoding": encoding}


def metrics(data: ReportData) -> Panel:
    """Return one task under every metric, to show whether a jump is a property of the metric."""
    from harness.points import ends

    columns = [*IDENTITY, *(s for s in SCALES if s in data.points.columns), "value", "low", "high"]
    rows = data.points[ends(data.points, "task", "metric")][columns]
    return Panel(
        title="One task under every metric",
        about="Final checkpoints of each size. If accuracy jumps while the log-probability of the gold choice "
        "(logp_gold) rises smoothly, choose p_choices: it shows whether the jump is a property of the metric.",
        chart=_faceted(),
        rows=rows,
        controls=("task", "family", "metric", "x"),
    )


def _faceted() -> dict[str, Any]:
    inner = _lines(COLOUR, _tooltip("label", "metric", "x", "value", "low", "high"), "")
    return {
        "facet": {"field": "metric", "type": "nominal", "title": None},
        "columns": 2,
        "spec": {**inner, "width": 190, "height": 120},
        "resolve": {"scale": {"y": "independent"}},
    }


def choices(data: ReportData) -> Panel | None:
    """Return the mean log-probability of the gold choice and of the wrong choices against scale."""
    if not len(data.choices):
        return None
    colour = {"field": "choice", "type": "nominal", "title": "Choice", "legend": {"orient": "bottom"}}
    chart = _lines(colour, _tooltip("label", "choice", "x", "value"), "Mean log-probability (nats)")
    chart["encoding"]["strokeDash"] = {
        "field": "family",
        "type": "nominal",
        "title": "Family",
        "legend": {"orient": "bottom"},
    }
    return Panel(
        title="Log-probability of each choice",
        about="Mean over documents of the log-probability of the gold choice and of the wrong choices, ranked within "
        "each document. Accuracy depends on their differences: it rises only where the gold choice gains on the best "
        "wrong one.",
        chart=chart,
        rows=data.choices,
        controls=("task", "family", "x"),
    )


@harness.hookimpl
def register_panels(register: harness.Register) -> None:
    """Register the figures, in the order in which they appear."""
    register("scaling", scaling)
    register("choices", choices)
    register("metrics", metrics)
