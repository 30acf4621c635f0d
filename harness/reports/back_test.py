"""Back-test laws: fit each to the sizes up to k, and compare its prediction with the measured size k + 1.

    found = harness.back_test(store.points(task="nano_ordering"), value="acc")
    print(found.rows)                     one row per law and prediction

A comparison of laws on the largest size alone selects a winner by chance. A back-test repeats the prediction for every
size that has enough smaller ones, and reports the error of each law, the coverage of its intervals, and whether it
beats two trivial laws (`last`: the value does not change; `line`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from harness.errors import LawError, choose
from harness.fitting.columns import column
from harness.fitting.earlier_sizes import FIRST, tests_of, with_rungs
from harness.fitting.fit import FitRequest, fit_points, named_law
from harness.fitting.forecast_scores import interval_score
from harness.fitting.laws import steps_of
from harness.fitting.options import Options
from harness.fitting.result import LawFit
from harness.fitting.runs import label
from harness.fitting.wide_points import prepared
from harness.host import default_host
from harness.host.registries import Registries
from harness.reports.back_test_result import TEST, BackTest
from harness.store.points import PointStore
from harness.types.json import JsonObject, Scalar
from harness.types.laws import ComposedLaw, Law, traits
from harness.types.metrics import UNBOUNDED

FLAT = 1e-6  # share of the range of the points: a law that changes less does not describe them

Prediction = dict[str, Scalar]  # a row of BackTest.rows


def back_test(
    points: pd.DataFrame,
    laws: Sequence[str | Law] | None = None,
    *,
    value: str,
    via: str | None = None,
    where: str | None = None,
    first: int = FIRST,
    store: PointStore | None = None,
    objective: str | None = None,
    resample: str | None = None,
    bootstrap: int = 1000,
    level: float = 0.9,
    starts: int | str = 32,
    seed: int = 0,
    law_options: JsonObject | None = None,
    registries: Registries | None = None,
) -> BackTest:
    """Fit laws to the sizes up to k, and predict the last checkpoint of size k + 1, for every k from `first` on.

    :param points: as in `harness.fit`, with a column params that orders the sizes of each family.
    :param laws: names or laws (default: all registered laws that apply: their columns exist, the values are in their
        range, and they are not flat on every ladder).
    :param value: as in `harness.fit`, like via, where, store, law_options, and objective to seed.
    :param first: the number of sizes in the first fit.

    Predictions and their distributions are cut to the range of a registered metric, such as 0 to 1 for acc.
    Laws that pool families are fitted to all of them, up to the same k. Raises LawError if no size has `first`
    smaller ones in its family, or no law makes a prediction.
    """
    options = Options(objective, resample, bootstrap, level, starts, seed)
    request = FitRequest(value, via, None, "is_target", store, options, law_options or {})
    registries = registries or default_host()
    frame = with_rungs(prepared(points, None, value, where), first)
    request = replace(request, bounds=_bounds(frame, value, registries))
    able = [named_law(law, registries) for law in laws or registries.laws]
    able = [law for law in able if laws or not _lacks(law, frame, value, via)]
    tests = list(tests_of(frame, first))
    rows: list[Prediction] = []
    missing: list[tuple[str, str]] = []
    for law in able:
        predictions, failures = _try(law, tests, request)
        if laws or traits(law).baseline or any(row["moves"] for row in predictions):
            rows += predictions
            missing += [(law.name, reason) for reason in failures]
        elif predictions:
            missing.append((law.name, f"{_of_task(frame)}flat on every ladder, so it does not apply to this value"))
        else:
            missing.append((law.name, failures[0]))
    if not rows:
        reasons = "".join(f"; {name} ({reason})" for name, reason in missing[:3])
        raise LawError(f"no law predicts {value}; tried: {choose(law.name for law in able)}{reasons}")
    return BackTest(_ranked(pd.DataFrame(rows).drop(columns="moves"), level), value, level, tuple(missing))


def _bounds(frame: pd.DataFrame, value: str, registries: Registries) -> tuple[float, float]:
    """Return the range of a registered metric, if all values lie in it (percentages of a table do not)."""
    low, high = registries.metrics[value].bounds if value in registries.metrics else UNBOUNDED
    y = pd.to_numeric(frame[value], errors="coerce").dropna() if value in frame.columns else pd.Series(dtype=float)
    return (low, high) if y.between(low, high).all() else UNBOUNDED


def _ranked(rows: pd.DataFrame, level: float) -> pd.DataFrame:
    """Return predictions with their interval scores and ranks; a prediction without an interval ranks last."""
    y, low, high = (rows[name].to_numpy(dtype=np.float64) for name in ("measured", "low", "high"))
    rows = rows.assign(interval_score=interval_score(y, low, high, level))
    groups = [rows[key] for key in TEST]
    return rows.assign(rank=rows["interval_score"].groupby(groups).rank(method="min", na_option="bottom"))


def _of_task(frame: pd.DataFrame) -> str:
    tasks = sorted(set(frame["task"].astype(str))) if "task" in frame.columns else []
    return f"{', '.join(tasks)}: " if tasks else ""


def _lacks(law: Law, frame: pd.DataFrame, value: str, via: str | None) -> bool:
    """Return whether a law does not apply to points: columns are missing, or values lie outside its range."""
    needs = {*steps_of(law)[0].features, *traits(law).needs}
    if isinstance(law, ComposedLaw):
        needs.add(via or law.via)
    low, high = traits(steps_of(law)[-1]).value_range
    y = column(frame, value)
    return not needs or not needs <= set(frame.columns) or y.min() < low or y.max() > high


def _try(law: Law, tests: Iterable[pd.DataFrame], request: FitRequest) -> tuple[list[Prediction], list[str]]:
    """Return the predictions of one law, and the reasons for missing ones."""
    rows: list[Prediction] = []
    failures: list[str] = []
    for test in tests:
        groups = [test] if traits(law).pools else [points for _, points in test.groupby("of_family")]
        for points in (group for group in groups if group["is_target"].any()):
            k = int(points["rung"].max()) - 1
            try:
                fit = fit_points(points, law, request)
            except LawError as error:
                where = [*([points["task"].iloc[0]] if "task" in points else []), choose(set(points["of_family"]))]
                failures.append(f"{', '.join(name for name in where if name)} up to size {k}: {error}")
                continue
            targets = points[points["is_target"]]
            rows += [
                {
                    "task": str(row.get("task", "")),
                    "family": row["of_family"],
                    "law": law.name,
                    "sizes": k,
                    "target": label(row),
                    "point": row["point"],
                    **{name: held[name] for name in ("measured", "stderr", "predicted", "low", "high", "error")},
                    "inside": held["inside"],
                    **{name: held[name] for name in ("beyond", "crps", "last", "constant")},
                    "cluster": f"{row['of_family']} {row.get('task', '')}",
                    "moves": _moves(fit, points, request.value),
                }
                for (_, row), held in zip(targets.iterrows(), fit.hold_out, strict=True)
            ]
    return rows, failures


def _moves(fit: LawFit, points: pd.DataFrame, value: str) -> bool:
    """Return whether a fitted law varies over the points."""
    curve = fit.curve(fit.steps[0].read(points))
    return bool(np.ptp(curve) > FLAT * np.ptp(column(points, value)))
