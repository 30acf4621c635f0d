"""Figures of models over all tasks and of single documents: capability space, documents on which families disagree."""

from __future__ import annotations

from typing import Any

import harness
from harness import HarnessError, Panel, ReportData
from harness.charts import COLOUR, SCALES

FEWEST_TASKS, FEWEST_MODELS = 3, 5  # with fewer, components are not informative
WIDTH = 240  # largest number of characters shown of a context


def capability_space(data: ReportData) -> Panel | None:
    """Return the final checkpoints in the first two principal components of their scores on all tasks."""
    from harness.points import ends
    from harness_plugins.analyses.capability_lines import coordinates

    shown = data.points[data.points["shown"]]
    shares = shown.groupby("task")["value"].agg(["min", "max"])
    tasks = [str(task) for task, bounds in shares.iterrows() if bounds["min"] >= 0 and bounds["max"] <= 1]
    last = shown[ends(shown, "task") & shown["task"].isin(tasks)]
    scores = last.pivot_table(index=["family", "label"], columns="task", values="value")
    if len(tasks) < FEWEST_TASKS or len(scores) < FEWEST_MODELS:
        return None
    try:
        table, space = coordinates(scores.reset_index(), tasks)
    except HarnessError:
        return None  # the scores have no components, for example because they are constant
    scales = last.drop_duplicates("label")[["label", *(name for name in SCALES if name in last.columns)]]
    rows = table[["family", "label", "pc1", "pc2"]].merge(scales, on="label")
    share = [float(part) for part in space.explained[:2]]
    return Panel(
        title="Capability space",
        about=f"The last checkpoint of each run in the first two principal components of its scores on {len(tasks)} "
        f"tasks, which explain {share[0]:.0%} and {share[1]:.0%} of the variance. Lines join the sizes of a family; "
        "larger circles have more compute. The first component is general capability if all tasks load on it.",
        chart=_space_chart(),
        rows=rows,
        controls=("family",),
    )


def _space_chart() -> dict[str, Any]:
    x = {"field": "pc1", "type": "quantitative", "title": "First principal component", "scale": {"zero": False}}
    y = {"field": "pc2", "type": "quantitative", "title": "Second principal component", "scale": {"zero": False}}
    size = {
        "field": "flops",
        "type": "quantitative",
        "title": "Training compute (FLOPs)",
        "scale": {"type": "log", "range": [40, 300]},
        "legend": None,
    }
    tooltip: list[dict[str, Any]] = [{"field": name, "type": "nominal"} for name in ("label", "family")]
    tooltip += [{"field": name, "type": "quantitative", "format": ".4~g"} for name in ("pc1", "pc2", "flops")]
    order = {"field": "flops", "type": "quantitative"}
    return {
        "layer": [
            {"mark": {"type": "line", "opacity": 0.5}, "encoding": {"x": x, "y": y, "color": COLOUR, "order": order}},
            {
                "mark": {"type": "point", "filled": True, "opacity": 0.9},
                "encoding": {"x": x, "y": y, "color": COLOUR, "size": size, "tooltip": tooltip},
            },
        ]
    }


def documents(data: ReportData) -> Panel | None:
    """Return the margin of the gold choice for each final checkpoint, on the documents where families disagree most."""
    if not len(data.documents):
        return None
    rows = data.documents.assign(
        context=[_short(text) for text in data.documents["context"]],
        right=data.documents["right"].map({True: "right", False: "wrong"}),
    )
    text = ("doc_id", "label", "context", "gold", "picked", "right")
    tooltip = [*({"field": name, "type": "nominal", "title": name} for name in text)]
    tooltip.append({"field": "margin", "type": "quantitative", "title": "margin (nats)", "format": ".2f"})
    x = {
        "field": "label",
        "type": "nominal",
        "title": "Checkpoint",
        "sort": {"field": "flops"},
        "axis": {"labelAngle": -60, "labelLimit": 140},
    }
    y = {
        "field": "doc_id",
        "type": "nominal",
        "title": "Document",
        "sort": {"field": "rank"},
        "axis": {"labelLimit": 120},
    }
    colour = {
        "field": "margin",
        "type": "quantitative",
        "title": "Margin (nats)",
        "scale": {"scheme": "redblue", "domainMid": 0},
        "legend": {"orient": "bottom"},
    }
    return Panel(
        title="Documents on which families disagree",
        about="Log-probability of the gold choice minus that of the best wrong one: blue is right, red is wrong. The "
        "text of a document is in the tooltip and in the data of this figure; harness browse shows more.",
        chart={"mark": "rect", "encoding": {"x": x, "y": y, "color": colour, "tooltip": tooltip}},
        rows=rows,
        controls=("task", "family"),
    )


def _short(text: str) -> str:
    return text if len(text) <= WIDTH else "..." + text[3 - WIDTH :]


@harness.hookimpl
def register_panels(register: harness.Register) -> None:
    """Register the figures, in the order in which they appear."""
    register("capability_space", capability_space)
    register("documents", documents)
