"""Figures of predictions: forecasts with intervals, back-tests, and accuracy from the task loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import harness
from harness import Panel, ReportData
from harness.charts import (
    POINT,
    SCALES,
    agreement_layers,
    covered,
    covered_shape,
    forecast_layers,
    scaling_layers,
)
from harness_plugins.panels.scaling import IDENTITY

if TYPE_CHECKING:
    import pandas as pd

TEXTS = ("target", "task", "law", "sizes")  # of a prediction, under the pointer


def forecasts(data: ReportData) -> Panel | None:
    """Return measured scores of final checkpoints and forecasts with intervals."""
    import pandas as pd

    from harness.points import ends

    if not len(data.forecasts):
        return None
    tasks = set(data.forecasts["task"])
    shown = data.points[data.points["shown"] & data.points["task"].isin(tasks)]
    columns = [*IDENTITY, *(s for s in SCALES if s in shown.columns), "value"]
    measured = shown[ends(shown, "task")][columns].assign(kind=POINT, abstains=False, verdict="")
    rows = pd.concat([measured, data.forecasts.drop(columns="measured")], ignore_index=True)
    known = data.forecasts[data.forecasts["measured"].notna() & ~data.forecasts["abstains"].astype(bool)]
    counted = int(((known["measured"] >= known["low_90"]) & (known["measured"] <= known["high_90"])).sum())
    return Panel(
        title="Forecasts",
        about="Squares forecast the largest size from the smaller ones, triangles a model with ten times the compute, "
        "with their intervals; circles are measurements. Families are drawn side by side. Pale forecasts abstain: "
        "their intervals are not "
        f"informative. {counted} of {len(known)} measured values lie in the 90 % interval of the other forecasts.",
        chart={"layer": forecast_layers()},
        rows=rows,
        controls=("task", "family", "x", "level"),
    )


def loss_to_accuracy(data: ReportData) -> Panel | None:
    """Return accuracy against the task loss, with the second step of a two-step law."""
    if not len(data.two_steps):
        return None
    title = "Task loss: -log p of the gold choice (nats)"
    x = {"field": "task_loss", "type": "quantitative", "title": title, "scale": {"zero": False}}
    return Panel(
        title="Accuracy against task loss",
        about="Each point is a checkpoint. The line is the second step of the law two_step, which gives accuracy from "
        "the task loss; diamonds were held out. If families lie on one line, equal loss gives equal accuracy.",
        chart={"layer": scaling_layers(x)},
        rows=data.two_steps,
        controls=("task", "family", "level"),
    )


def back_test(data: ReportData) -> Panel | None:
    """Return predictions of every size from the smaller sizes against measurements, one chart per law."""
    if not len(data.back_tests):
        return None
    names = ["task", "metric", "family", "law", "target", "sizes", "measured", "predicted", "low", "high"]
    rows = data.back_tests[names].assign(inside=covered(data.back_tests["inside"]))
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
    return {
        "facet": {"field": "law", "type": "nominal", "title": None, "sort": None},
        "columns": 2,
        "spec": {"layer": agreement_layers(covered_shape(), *TEXTS, domain=(0, 1)), "width": 200, "height": 200},
    }


@harness.hookimpl
def register_panels(register: harness.Register) -> None:
    """Register the figures, in the order in which they appear."""
    register("forecasts", forecasts)
    register("loss_to_accuracy", loss_to_accuracy)
    register("back_test", back_test)
