"""`harness plot`: the figure of one task of a store or table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from harness.charts import CURVE, HELD_OUT, POINT, scaling_chart
from harness.errors import UsageError, choose
from harness.fitting.point_source import table_points
from harness.host import default_host
from harness.host.registries import Registries
from harness.reports.report import collect, scales_of
from harness.store.points import PointStore
from harness.tables import printable


def plot_task(
    source: PointStore | pd.DataFrame,
    task: str | None = None,
    *,
    law: str | None = None,
    hold_out: str = "largest",
    x: str | None = None,
    log_x: bool = True,
    note: Callable[[str], None] = lambda _: None,
    registries: Registries | None = None,
) -> Any:
    """Return an Altair chart of one task: points with error bars, the law with its 90 % interval, held-out points.

    `x` is the horizontal axis (default: the first of flops, params, tokens and loss that points have), `note` is told
    why a family has no curve. Raises StoreError when the store has no such task, UsageError where there are several and
    none is named, x has no values, or the extra `report` is not installed.
    """
    store = source if isinstance(source, PointStore) else table_points(source, registries=registries or default_host())
    task = task or _only_task(store)
    data = collect(store, law=law, hold_out=hold_out, task=task, registries=registries)
    for said in data.notes:
        note(said)
    shown = data.points[data.points["shown"]].assign(kind=POINT)
    if len(data.held_out):
        shown.loc[shown["label"].isin(data.held_out["label"]), "kind"] = HELD_OUT
    scales = scales_of(shown)
    x = x or scales[0]
    if x not in scales:
        raise UsageError(f"no point of {task} has {x}; choose another --x of {choose(scales)}")
    if said := _not_drawn(shown, x):
        note(said)
    curves = data.curves.rename(columns={"low_90": "low", "high_90": "high"}).assign(kind=CURVE, label="")
    if len(curves) and curves[x].isna().all():
        note(f"the law is a function of FLOPs, which do not follow from {x} here; no curve is drawn")
        curves = curves.iloc[:0]
    columns = ["family", "label", "kind", "value", "low", "high", x]
    rows = pd.concat([shown[columns], curves[columns]] if len(data.curves) else [shown[columns]], ignore_index=True)
    metric, laws = str(shown["metric"].iloc[0]), ", ".join(dict.fromkeys(fit for fit in data.curves.get("law", ())))
    title = printable(f"{task}: {laws}" if laws else task)
    return scaling_chart(rows.dropna(subset=[x]), x=x, value=metric, log_x=log_x, title=title)


def _not_drawn(shown: pd.DataFrame, x: str) -> str:
    """Say how many points have no place on an axis, and of which families; nothing if all have one."""
    lost = shown[shown[x].isna()]
    families = choose(sorted(set(lost["family"].map(str))))
    return f"{len(lost)} of {len(shown)} points have no {x} and are not drawn: those of {families}" if len(lost) else ""


def _only_task(store: PointStore) -> str:
    """Return the task of a store or table that has one."""
    tasks = list(store.tasks())
    if len(tasks) > 1:
        raise UsageError(f"{store.path} has {len(tasks)} tasks; choose one with --task: {choose(tasks)}")
    return tasks[0]
