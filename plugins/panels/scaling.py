"""Figures of scores against scale: one task, all metrics of a task, and the log-probabilities of its choices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import harness
from harness import Panel, ReportData
from harness.charts import COLOUR, CURVE, HELD_OUT, POINT, SCALES, X, over_decades, scaling_layers, tooltip, y_axis

if TYPE_CHECKING:
    import pandas as pd

IDENTITY = ["task", "metric", "family", "label"]


def scaling(data: ReportData) -> Panel:
    """Return points with error bars, the law with its interval, and held-out points of one task."""
    import pandas as pd

    columns = [*IDENTITY, *(s for s in SCALES if s in data.points.columns), "value", "low", "high"]
    points = data.points[data.points["shown"]][columns].assign(kind=POINT)
    if len(data.held_out):
        held = set(zip(data.held_out["task"], data.held_out["label"], strict=True))
        is_held = [pair in held for pair in zip(points["task"], points["label"], strict=True)]
        points.loc[is_held, "kind"] = HELD_OUT
    rows = pd.concat([points, data.curves.assign(kind=CURVE)], ignore_index=True) if len(data.curves) else points
    laws = ", ".join(dict.fromkeys(data.curves["law"])) if len(data.curves) else ""
    drawn = (
        f"The line is the law ({laws}), fitted without them; the band is its interval." if laws else "No law is fitted."
    )
    over = {str(task): over_decades(of_task) for task, of_task in rows.groupby("task")}
    cut = {task: of_task for task, of_task in over.items() if of_task is not None}
    for of_task in cut.values():
        rows.loc[of_task.index] = of_task
    return Panel(
        title="Score against scale",
        about=f"Each point is a checkpoint{_with_errors(points)}. Diamonds were held out. {drawn}",
        chart={"layer": scaling_layers()},
        rows=rows,
        controls=("task", "family", "x", "level"),
        decades=list(cut),
    )


def _with_errors(points: pd.DataFrame) -> str:
    """Say which of the measured points have intervals."""
    known = (points["low"].notna() & points["high"].notna()).mean()
    if known in (0, 1):
        return ", with its 95 % interval over documents" if known else "; its error is unknown"
    return f", with its 95 % interval over documents where it is known ({known:.0%} of the points)"


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
    inner = _lines(COLOUR, tooltip("label", "metric", "x", "value", "low", "high"), "")
    return {
        "facet": {"field": "metric", "type": "nominal", "title": None},
        "columns": 2,
        "spec": {**inner, "width": 190, "height": 120},
        "resolve": {"scale": {"y": "independent"}},
    }


def choices(data: ReportData) -> Panel | None:
    """Return the mean log-probability of the gold and of the wrong choices of final checkpoints against scale."""
    if not len(data.choices):
        return None
    colour = {"field": "choice", "type": "nominal", "title": "Choice", "legend": {"orient": "bottom"}}
    points = _lines(colour, tooltip("label", "choice", "x", "value"), "Mean log-probability (nats)")["encoding"]
    stroke = {"symbolType": "stroke", "symbolSize": 500, "symbolStrokeColor": "#888888", "symbolStrokeWidth": 2}
    legend = {"orient": "bottom", "columns": 4, **stroke}
    dash = {"field": "family", "type": "nominal", "title": "Family", "legend": legend}
    chart = {
        "layer": [
            {"mark": "line", "encoding": {**points, "strokeDash": dash}},
            {"mark": {"type": "point", "size": 45, "filled": True, "opacity": 1}, "encoding": points},
        ]
    }
    return Panel(
        title="Log-probability of each choice",
        about="Final checkpoints of each size. Mean over documents of the log-probability of the gold choice and of "
        "the wrong choices, ranked within each document. Accuracy depends on their differences: it rises only where "
        "the gold choice gains on the best wrong one.",
        chart=chart,
        rows=_of_finals(data),
        controls=("task", "family", "x"),
    )


def _of_finals(data: ReportData) -> pd.DataFrame:
    """Return the choices of final checkpoints; of all checkpoints if every family has one size."""
    from harness.points import ends

    shown = data.points[data.points["shown"]]
    finals = shown[ends(shown, "task")]
    if finals.groupby(["task", "family"])["label"].nunique().max() < 2:
        return data.choices
    return data.choices.merge(finals[["task", "label"]].drop_duplicates())


@harness.hookimpl
def register_panels(register: harness.Register) -> None:
    """Register the figures, in the order in which they appear."""
    register("scaling", scaling)
    register("choices", choices)
    register("metrics", metrics)
