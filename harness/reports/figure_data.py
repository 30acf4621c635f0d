"""Data of figures that need more than one fit per task: forecasts, two-step laws and back-tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from harness.charts import CURVE, FORECAST, HELD_OUT, LARGEST_FORECAST, LEVELS, POINT
from harness.errors import HarnessError, LawError
from harness.fitting.earlier_sizes import FIRST
from harness.fitting.fit import fit_families
from harness.fitting.fit_figures import ends_of
from harness.fitting.fitted_formula import StepFit
from harness.fitting.forecast_files import TASK_LOSS
from harness.fitting.forecast_results import Forecast
from harness.fitting.forecasts import forecast
from harness.fitting.result import LawFit
from harness.fitting.runs import label
from harness.fitting.wide_points import widen
from harness.host.registries import Registries
from harness.reports.back_test import back_test
from harness.types import Floats, Scalar

GOLD_LOGPROB = "logp_gold"  # between the steps of a two-step law
NEXT = 10.0  # factor beyond the largest compute at which the next model is forecast
TWO_STEP = "two_step"
BASELINE = "last"
RESAMPLES = 200
LADDERS = 60  # tasks times families beyond which forecasts and back-tests would take many minutes
RUNGS = 3  # largest sizes that a back-test predicts
GRID = 40
Notes = Callable[[str], None]


def _tasks(points: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield task, its shown metric, and all its rows, where the shown metric is a rate."""
    for task, task_points in points.groupby("task", sort=True):
        shown = task_points[task_points["shown"]]
        if len(shown) and shown["is_rate"].all():
            yield str(task), str(shown["metric"].iloc[0]), task_points


def two_steps(points: pd.DataFrame, hold_out: str, registries: Registries, note: Notes) -> pd.DataFrame:
    """Return accuracy against the task loss: measured points, and the second step of a two-step law.

    Columns: task, metric, family, label, kind (measured, held out, law), task_loss (nats), value, low, high, and
    low_LEVEL and high_LEVEL of the law.
    """
    rows = []
    for task, metric, task_points in _tasks(points):
        if GOLD_LOGPROB not in set(task_points["metric"]) or TWO_STEP not in registries.laws:
            continue
        wide = widen(task_points[task_points["metric"].isin([metric, GOLD_LOGPROB])])
        wide = wide[wide[[metric, GOLD_LOGPROB]].notna().all(axis=1)]
        fits = fit_families(wide, TWO_STEP, value=metric, hold_out=hold_out, bootstrap=RESAMPLES, registries=registries)
        for family, result in fits:
            fit = None if isinstance(result, LawError) else result
            if fit is None:
                note(f"{TWO_STEP}: {task}, {family}: {result}")
            measured = wide[wide["family"] == family]
            held = {str(prediction["point"]) for prediction in fit.hold_out} if fit else set()
            named: dict[str, Scalar] = {"task": task, "metric": metric, "family": family}
            rows += [row | named for row in _measured(measured, metric, held)]
            losses = -measured[GOLD_LOGPROB].to_numpy(dtype=np.float64)
            rows += [row | named for row in _second_step(fit, losses)] if fit else []
    return pd.DataFrame(rows)


def _measured(wide: pd.DataFrame, metric: str, held: set[str]) -> Iterator[dict[str, Scalar]]:
    """Yield the measured points of a two-step law, with their intervals."""
    low, high = ends_of(wide, metric)
    for i, (_, row) in enumerate(wide.iterrows()):
        name = label(row)
        kind = HELD_OUT if name in held else POINT
        ends = {"low": float(low[i]), "high": float(high[i])}
        yield {"label": name, "kind": kind, "task_loss": -float(row[GOLD_LOGPROB]), "value": float(row[metric]), **ends}


def _second_step(fit: LawFit, losses: Floats) -> Iterator[dict[str, Scalar]]:
    """Yield places on the law from loss to accuracy, with its intervals."""
    step = fit.steps[1]
    if not isinstance(step, StepFit):
        return
    x = np.linspace(max(losses.min() * 0.7, 1e-6), losses.max() * 1.05, GRID)
    features = {step.law.features[0]: x}
    values, draws = step.value(features), step.curves(features)
    ends = {level: np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0) for level in LEVELS}
    for i, loss in enumerate(x):
        named = {
            f"{end}_{level * 100:.0f}": float(quantiles[k, i]) for level, quantiles in ends.items() for k, end in ENDS
        }
        yield {"kind": CURVE, "task_loss": float(loss), "value": float(values[i]), **named}


ENDS = ((0, "low"), (1, "high"))


def forecasts(points: pd.DataFrame, registries: Registries, note: Notes) -> pd.DataFrame:
    """Return forecasts of each family's largest size from the smaller ones, and of one with ten times its compute.

    Columns: task, metric, family, kind (forecast of the largest, forecast), flops, params, tokens, value (median),
    low_LEVEL and high_LEVEL, verdict, abstains, measured.
    """
    if _too_many(points, "forecasts", "harness forecast", note):
        return pd.DataFrame()
    metrics: dict[str, list[str]] = {}
    for task, metric, _ in _tasks(points):
        metrics.setdefault(metric, []).append(task)
    rows = []
    for metric, tasks in metrics.items():
        metric_points = points[points["task"].isin(tasks) & points["metric"].isin([metric, TASK_LOSS])]
        try:
            wide = widen(metric_points)
            wide = wide[wide[metric].notna()]
            via = TASK_LOSS if TASK_LOSS in wide and wide[TASK_LOSS].notna().all() else None
            largest = forecast(wide, value=metric, via=via, registries=registries)
            rows += _forecast_rows(largest, metric, LARGEST_FORECAST)
            most = NEXT * float(wide["flops"].max())
            ahead = forecast(wide, value=metric, via=via, flops=most, registries=registries)
            rows += _forecast_rows(ahead, metric, FORECAST)
        except HarnessError as error:
            note(f"forecast of {metric}: {error}")
    return pd.DataFrame(rows)


def _forecast_rows(result: Forecast, metric: str, kind: str) -> list[dict[str, Scalar]]:
    ends = {level: result.interval(level) for level in LEVELS}
    rows = []
    for i, row in enumerate(result.frame.to_dict("records")):
        named = {
            f"{end}_{level * 100:.0f}": float(interval[k][i]) for level, interval in ends.items() for k, end in ENDS
        }
        scales = {name: row[name] for name in ("task", "family", "flops", "params", "tokens", "verdict", "measured")}
        abstains = str(row["verdict"]).startswith("abstain")
        rows.append({**scales, "metric": metric, "kind": kind, "value": row["median"], "abstains": abstains, **named})
    return rows


def back_tests(points: pd.DataFrame, law: str, registries: Registries, note: Notes) -> pd.DataFrame:
    """Return what a law, and the baseline `last`, predicted for the largest sizes, and what was measured.

    Columns are those of `harness.BackTest.rows`, and metric. Intervals are at 90 %.
    """
    if _too_many(points, "back-tests", "harness fit --back-test", note):
        return pd.DataFrame()
    frames = []
    for task, metric, task_points in _tasks(points):
        laws = [name for name in dict.fromkeys((law, BASELINE)) if name in registries.laws]
        rows = task_points[task_points["metric"] == metric].drop(columns=["label", "shown", "is_rate"])
        try:
            first = max(FIRST, _sizes(rows) - RUNGS)
            result = back_test(rows, laws, value=metric, registries=registries, bootstrap=RESAMPLES, first=first)
        except HarnessError as error:
            note(f"back-test: {task}: {error}")
            continue
        frames.append(result.rows.assign(metric=metric))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _sizes(rows: pd.DataFrame) -> int:
    """Return the sizes of the family that has most."""
    return int(rows.groupby("family")["params"].nunique().max())


def _too_many(points: pd.DataFrame, figure: str, command: str, note: Notes) -> bool:
    """Say, in a note as well, whether there are too many ladders for a slow figure."""
    ladders = len(points[points["shown"]].groupby(["task", "family"]))
    if ladders > LADDERS:
        note(f"{figure}: omitted for {ladders} ladders (limit: {LADDERS} tasks x families); see {command}")
    return ladders > LADDERS
