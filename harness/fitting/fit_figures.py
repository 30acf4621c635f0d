"""Figures of fitted laws: points, curves with intervals, and held-out points; or predicted against measured values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.charts import CURVE, HELD_OUT, POINT, agreement_chart, scaling_chart
from harness.errors import LawError, UsageError, choose
from harness.fitting.columns import readable
from harness.fitting.fit_view import FitView
from harness.fitting.runs import label
from harness.metrics.intervals import Z

if TYPE_CHECKING:
    from harness.charts import Chart

GRID = 80  # places on a curve
BEYOND = 4.0  # factor beyond the points up to which a curve is drawn
WITH_ENDS = ("low", "high")


def point_rows(fit: FitView) -> pd.DataFrame:
    """Return one row per point of a fit: label, its features, measured, low, high, is_held_out.

    Empty where the fit does not keep its points, as one of an older file.
    """
    if fit.points is None or fit.points.empty:
        return pd.DataFrame()
    points = fit.points
    low, high = ends_of(points, fit.value)
    return pd.DataFrame(
        {
            "label": [label(row) for _, row in points.iterrows()],
            **{name: readable(points, name) for name in fit.features},
            "measured": pd.to_numeric(points[fit.value]).to_numpy(dtype=np.float64),
            "low": low,
            "high": high,
            "is_held_out": points["is_held_out"].to_numpy(dtype=bool),
        }
    )


def read_rows(rows: Sequence[dict[str, Any]], value: str) -> pd.DataFrame:
    """Return points as `LawFit.points` keeps them from the rows of a file."""
    names = {"measured": value, **{name: f"{value}_{name}" for name in WITH_ENDS}}
    return pd.DataFrame(rows).rename(columns=names)


def ends_of(points: pd.DataFrame, value: str) -> tuple[Any, Any]:
    """Return the ends (n,) of the 95 % intervals of measured values of wide points; NaN where they are unknown.

    They are the columns VALUE_low and VALUE_high, or follow from VALUE_stderr; those of rates stay from 0 to 1.
    """
    measured, stderr, low, high = (
        pd.to_numeric(points[name], errors="coerce").to_numpy(dtype=np.float64)
        if name in points.columns
        else np.full(len(points), np.nan)
        for name in (value, f"{value}_stderr", f"{value}_low", f"{value}_high")
    )
    is_rate = (measured >= 0) & (measured <= 1)
    below, above = measured - Z * stderr, measured + Z * stderr
    below, above = (np.where(is_rate, np.clip(end, 0, 1), end) for end in (below, above))
    return np.where(np.isfinite(low), low, below), np.where(np.isfinite(high), high, above)


def fits_chart(fits: Sequence[FitView], *, log_x: bool = True) -> Chart:
    """Draw fits of one value side by side, one colour per family.

    Laws of one number are drawn over it: points with 95 % intervals, the curve with its interval, and held-out points.
    Laws of several are drawn as predicted against measured values of their points. Raises UsageError if the extra
    `report` is missing, fits are of several values or features, or there is nothing to draw.
    """
    kinds = {(fit.value, fit.features) for fit in fits}
    if len(kinds) != 1:
        said = choose(f"{value} from {', '.join(names)}" for value, names in kinds)
        raise UsageError(
            f"a figure shows one value over the same features; the fits describe {said}: draw them separately"
        )
    ((value, features),) = kinds
    tasks = {str(fit.labels["task"]) for fit in fits if "task" in fit.labels}
    laws = list(dict.fromkeys(fit.law for fit in fits))
    title = ": ".join([*(tasks if len(tasks) == 1 else ()), ", ".join(laws)])
    if len(features) == 1:
        rows = pd.concat([_over_feature(fit, features[0], _name(fit, laws)) for fit in fits], ignore_index=True)
        positive = bool((rows[features[0]] > 0).all())
        return scaling_chart(rows, x=features[0], value=value, log_x=log_x and positive, title=title)
    rows = pd.concat([_against_measured(fit, _name(fit, laws)) for fit in fits], ignore_index=True)
    if rows.empty:
        raise UsageError(f"{laws[0]} has several features, and this fit does not keep its points: fit it again")
    return agreement_chart(rows, "label", "kind", by="law", title=title)


def _name(fit: FitView, laws: Sequence[str]) -> str:
    """Name a fit in the legend: its family, and its law where there are several."""
    family = fit.labels.get("family", "all families")
    return family if len(laws) == 1 else f"{family}, {fit.law}"


def _over_feature(fit: FitView, x: str, name: str) -> pd.DataFrame:
    """Return the points of a fit and places on its curve, over its one feature."""
    points = point_rows(fit)
    if len(points):
        kind = np.where(points["is_held_out"], HELD_OUT, POINT)
        points = points.rename(columns={"measured": "value"}).assign(kind=kind)
    curve = _curve(fit, x, [float(value) for value in points[x]] if len(points) else [])
    shown = pd.concat([points, curve.assign(kind=CURVE, label="")], ignore_index=True)
    return shown.assign(family=name, task=fit.labels.get("task", ""))


def _curve(fit: FitView, x: str, measured: Sequence[float]) -> pd.DataFrame:
    """Return places on the curve of a law, from its smallest point to some way beyond its largest."""
    low, high = fit.domain[x]
    high = max([high, *(value for value in measured if np.isfinite(value))])
    places = np.geomspace(low, high * BEYOND, GRID) if low > 0 else np.linspace(low, high, GRID)
    try:
        return fit.predict(pd.DataFrame({x: places}))[[x, "value", "low", "high"]]
    except LawError:
        return pd.DataFrame(columns=[x, "value", "low", "high"])


def _against_measured(fit: FitView, name: str) -> pd.DataFrame:
    """Return predicted and measured values of the points of a law, with intervals."""
    points = point_rows(fit)
    if points.empty or fit.points is None:
        return pd.DataFrame()
    predicted = fit.predict(fit.points)
    rows = points[["label", "measured"]].assign(
        predicted=predicted["value"],
        low=predicted["low"],
        high=predicted["high"],
        kind=np.where(points["is_held_out"], HELD_OUT, POINT),
        family=name,
        law=fit.law,
    )
    inside = (rows["measured"] >= rows["low"]) & (rows["measured"] <= rows["high"])
    return rows.assign(inside=inside.astype(object).where(rows["low"].notna(), None))


def fits_of(fits: Sequence[FitView], task: str | None) -> Iterator[FitView]:
    """Yield the fits of a task; raise UsageError where there are none, or several tasks and none is named."""
    tasks = sorted({str(fit.labels.get("task", "")) for fit in fits})
    if task is None and len(tasks) > 1:
        raise UsageError(f"the fits cover {len(tasks)} tasks; choose one with --task: {choose(tasks)}")
    chosen = [fit for fit in fits if task in (None, str(fit.labels.get("task", "")))]
    if not chosen:
        raise UsageError(f"no fit is for task {task!r}; there are: {choose(tasks)}")
    yield from chosen
