"""Predictions in a comparison: forecasts of the largest sizes, or what named laws predict of held-out points."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from harness.errors import LawError
from harness.fitting.fit import FitRequest, each_family
from harness.fitting.forecast_files import LOSS, SCORE, TASK_LOSS, one_task
from harness.fitting.forecast_results import Forecast
from harness.fitting.forecast_scores import PredictionScores
from harness.fitting.forecasts import NO_SIZE, forecast
from harness.fitting.held_out_scores import HeldOut, held_out_scores
from harness.fitting.hold_out import hold_out_notes
from harness.fitting.options import Options
from harness.fitting.published_values import UNBOUNDED
from harness.fitting.result import LawFit
from harness.fitting.runs import label
from harness.fitting.wide_points import prepared
from harness.metrics.intervals import shown_error
from harness.store.points import PointStore
from harness.tables import Cell, Measured, Range, Table

TITLE = "Predicted from the smaller sizes, and measured"
ABSTAIN = "abstain"


@dataclass(frozen=True)
class Comparison:
    """The arguments of `compare` for its fits; documented there."""

    laws: Sequence[str] | None
    reach: str
    hold_out: str
    score: float | None
    options: Options
    store: PointStore


def predictions(points: pd.DataFrame, shown: pd.DataFrame, asked: Comparison) -> Table:
    """Return predictions of the held-out points by laws; without laws, forecasts of the largest size of each family.

    `points` are long, with a column `shown`; `shown` are the shown points at the last step of every size.
    """
    return _of_forecast(points, shown, asked) if asked.laws is None else _of_laws(points, asked.laws, asked)


def is_accuracy(shown: pd.DataFrame) -> bool:
    """Return whether the shown points of one task are accuracies: measured ones have ties or trials, others are rates.

    An imported rate has values from 0 to 1; `rises` says whether its metric is better when higher.
    """
    counted = shown[[name for name in ("ties", "trials") if name in shown.columns]].notna().any(axis=1)
    is_rate = shown["checkpoint"].isna() & shown["value"].between(0, 1) & shown["metric"].map(bounded)
    return bool((counted | is_rate).all())


def bounded(metric: str) -> bool:
    """Return whether the name of an imported metric allows that it is a rate."""
    return not UNBOUNDED.search(metric)


def in_order(rows: list[tuple[Cell, ...]]) -> tuple[tuple[Cell, ...], ...]:
    """Sort rows by task and family; laws keep the order in which they were named."""
    return tuple(sorted(rows, key=lambda row: row[:2]))


def each_fit(
    points: pd.DataFrame, name: str, asked: Comparison, hold_out: str | None = None
) -> Iterator[tuple[str, str, LawFit | LawError]]:
    """Yield (task, family, fit or error) for the shown metric of every task with choices."""
    law = asked.store.registries.laws[name]
    is_rate = points["checkpoint"].isna() & points["metric"].map(bounded)
    for task, task_points in points[points["chance"].notna() | is_rate].groupby("task"):
        if not task_points["shown"].any():
            continue
        metric = task_points[task_points["shown"]]["metric"].iloc[0]
        store = asked.store if asked.store.holds_errors_of(task_points[task_points["shown"]]) else None
        request = FitRequest(metric, hold_out=hold_out, store=store, options=asked.options)
        for family, fit in each_family(task_points, law, request):
            yield str(task), family, fit


def _of_laws(points: pd.DataFrame, laws: Sequence[str], asked: Comparison) -> Table:
    """Predict the held-out points with every law, for each family."""
    rows: list[tuple[Cell, ...]] = []
    notes = list(hold_out_notes(points[points["shown"]], asked.hold_out))
    held_out: dict[str, list[tuple[str, HeldOut]]] = {}
    for law in laws:
        for task, family, fit in each_fit(points, law, asked, asked.hold_out):
            if isinstance(fit, LawError):
                notes.append(f"{task}, {family}, {law}: {fit}")
                continue
            rows += [(task, family, law, *_prediction(held), len(fit.warnings)) for held in fit.hold_out]
            held_out.setdefault(law, []).extend((task, held) for held in fit.hold_out)
    notes += [f"{law}: {_scores(pairs, asked.options.level)}." for law, pairs in held_out.items()]
    columns = ("task", "family", "law", "target", "measured", "predicted", "error", "inside", "warnings")
    about = (
        f"Fitted without the {asked.hold_out} size of each family, which is predicted with a "
        f"{asked.options.level:.0%} interval. Warnings: their number, which `harness fit` prints."
    )
    return Table("predictions", TITLE, columns, in_order(rows), (about, *notes), optional=("warnings", "error"))


def _scores(held: Sequence[tuple[str, HeldOut]], level: float) -> PredictionScores:
    """Score held-out points; tasks are the independent units."""
    return held_out_scores([prediction for _, prediction in held], level, [task for task, _ in held])


def _prediction(held: HeldOut) -> tuple[Cell, ...]:
    measured = Measured(held["measured"], held["stderr"])
    return (
        held["point"],
        measured,
        Range(held["predicted"], held["low"], held["high"]),
        held["error"],
        held["inside"],
    )


def _of_forecast(points: pd.DataFrame, shown: pd.DataFrame, asked: Comparison) -> Table:
    """Forecast the largest size of each family from its smaller sizes, all tasks and families together."""
    columns = ("task", "family", "target", "measured", "forecast", "error", "inside", "verdict")
    about = (
        "The largest size of each family is held out and forecast from the smaller ones, all tasks and families "
        f"together (`harness forecast`): median and {asked.options.level:.0%} interval. Verdict: forecast, wide (the "
        "interval exceeds a quarter of the way from chance to 1) or abstain, with the reason below."
    )
    has_answers = shown["chance"].notna() | (shown["checkpoint"].isna() & shown["metric"].map(bounded))
    scored = {str(task): task_points for task, task_points in shown[has_answers].groupby("task")}
    rises = asked.store.rises
    able = [
        task
        for task, task_points in scored.items()
        if is_accuracy(task_points) and all(map(rises, task_points["metric"]))
    ]
    notes = [
        f"{task}: {scored[task]['metric'].iloc[0]} is not an accuracy, so it is not forecast; name laws with --law"
        for task in sorted(set(scored) - set(able))
    ]
    rows: list[tuple[Cell, ...]] = []
    try:
        result = _forecast(points[points["task"].isin(able)], asked) if able else None
    except LawError as error:
        result = None
        notes.append(f"no forecast: {error}")
    if result:
        rows = [_forecast_row(row, target_of(row, scored[row["task"]])) for row in result.frame.to_dict("records")]
        notes += _too_few(result, [scored[task] for task in able])
        notes += [
            f"{row['task']}, {row['family']}: {row['verdict']}"
            for row in result.frame[result.abstained].to_dict("records")
        ]
        notes.append(f"Forecasts that do not abstain: {result.scores}.")
    optional = ("error", "target")
    return Table("predictions", TITLE, columns, in_order(rows), (about, *notes), optional=optional)


def _forecast(points: pd.DataFrame, asked: Comparison) -> Forecast:
    frames = [
        one_task(task_points, str(task_points[task_points["shown"]]["metric"].iloc[0]), TASK_LOSS)
        for _, task_points in points.groupby("task")
    ]
    wide = prepared(pd.concat(frames, ignore_index=True), None, SCORE)
    via = LOSS if LOSS in wide.columns else None
    options = asked.options
    return forecast(
        wide, value=SCORE, via=via, level=options.level, seed=options.seed, registries=asked.store.registries
    )


def target_of(row: Mapping[Hashable, Any], scored: pd.DataFrame) -> pd.Series:
    """Return the point that a forecast is of: the checkpoint of its family with its params, tokens and flops.

    Runs that have the same of all three, such as two seeds, are distinguished by their value.
    """
    candidates = scored[scored["family"] == row["family"]]
    for name in ("params", "tokens", "flops", "measured"):
        column = candidates["value" if name == "measured" else name].astype(float)
        matches = np.isclose(column, float(row[name]), rtol=1e-9, atol=0.0, equal_nan=True)
        candidates = candidates[matches] if matches.any() else candidates
    point: pd.Series = candidates.iloc[-1]
    return point


def _forecast_row(row: Mapping[Hashable, Any], point: pd.Series) -> tuple[Cell, ...]:
    """Return the cells of one forecast, with the measured point."""
    measured, median, low, high = (float(row[name]) for name in ("measured", "median", "low", "high"))
    verdict = ABSTAIN if str(row["verdict"]).startswith(ABSTAIN) else str(row["verdict"])
    return (
        row["task"],
        row["family"],
        label(point),
        Measured(measured, shown_error(point["stderr"], point["low"], point["high"])),
        Range(median, low, high, step=1 / point["n"] if point["n"] > 0 else 0.0),  # ends are whole documents
        median - measured,
        bool(low <= measured <= high),
        verdict,
    )


def _too_few(result: Forecast, scored: Sequence[pd.DataFrame]) -> list[str]:
    """Return a note for each task and family that has too few sizes for a forecast, or unknown ones."""
    known = set(zip(result.frame["task"], result.frame["family"], strict=True))
    why: dict[tuple[str, str], str] = {}
    for points in scored:
        for family, family_points in points.groupby("family"):
            no_size = family_points[["params", "flops"]].isna().all(axis=None)
            few = NO_SIZE if no_size else "fewer than two sizes are below the largest"
            why[str(points["task"].iloc[0]), str(family)] = few
    return [f"{task}, {family}: not forecast; {why[task, family]}" for task, family in sorted(set(why) - known)]
