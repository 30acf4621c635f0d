"""Forecast how a larger model will do on every task, with one calibrated distribution per task and family.

    found = harness.forecast(store.points(metrics=["acc", "gold_bits_per_byte"]), params=1e9, tokens=2e10)
    print(found)
    found.frame                           a row per task and family; found.quantiles has their distributions
    print(found.plan())                   which run or measurement would narrow the intervals most

A forecast is composed: models and laws are fitted to the ladder, weighted by how their forecasts of earlier rungs did
over all tasks and families, averaged, and widened by the misses of those forecasts. It abstains where nothing can be
said. Intervals are for the accuracy to be measured on the same documents (`of="documents"`) or on all documents like
them (`of="population"`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd

from harness.errors import LawError, UsageError, choose, suggest
from harness.fitting.columns import expect_one_model
from harness.fitting.forecast_laws import LawForecaster, takes_part
from harness.fitting.forecast_models import Forecaster
from harness.fitting.forecast_plan import plan
from harness.fitting.forecast_results import Forecast
from harness.fitting.forecast_runs import ForecastRun, Report
from harness.fitting.likelihoods import SAME_DOCS
from harness.fitting.rungs import ForecastLadder, Targets, expect_same_scale, read_ladders
from harness.fitting.runs import refuse_twice
from harness.fitting.wide_points import widen
from harness.host import default_host
from harness.host.registries import Registries

SHARES = {"documents": SAME_DOCS, "population": 1.0}  # of the variance of documents that an interval has in it
MANY = 6  # families that are forecast from one another where each has few sizes
FEW_SIZES = 5  # per family, in the median
NO_SIZE = "neither params nor FLOPs are known"
FIRST = 2  # sizes of the smallest ladder whose forecast counts

Wanted = float | Sequence[float] | None


def forecast(
    points: pd.DataFrame,
    *,
    value: str = "acc",
    via: str | None = None,
    params: Wanted = None,
    tokens: Wanted = None,
    flops: Wanted = None,
    level: float = 0.9,
    of: str = "documents",
    laws: Sequence[str] | None = None,
    forecasters: Sequence[str] | None = None,
    family: str | None = None,
    seed: int = 0,
    registries: Registries | None = None,
    report: Report = lambda *_: None,
) -> Forecast:
    """Return the distribution of the accuracy of a larger model, per task and family.

    :param points: `store.points(...)`, or a table with one row per checkpoint: `value`, params or flops, and, if known,
        task, family, size, seed, step, tokens, chance, the number of documents (n or VALUE_n) or VALUE_stderr.
    :param via: a column of task losses, such as bits per byte of the correct answer (default: none).
    :param params: those of the larger model, with `tokens`; or `flops`; several models as sequences. Without any, the
        largest size of every family is held out and forecast.
    :param of: "documents": the value measured on these documents; "population": the value over all similar documents.
    :param laws: laws to combine with the models (default: those of third-party plugins).
    :param forecasters: names of registered forecasters (default: all).
    :param family: the only family to forecast; the models are fitted to all sizes of the others.
    :param report: called with (name, done, total) to report progress.

    Raises LawError where there are no accuracies or no ladder has two sizes below its target.
    """
    if of not in SHARES:
        raise UsageError(f"of={of!r}; expected one of {choose(SHARES)}")
    if not 0 < level < 0.99:
        raise UsageError(f"level={level}: expected a share above 0 and below 0.99, such as 0.9")
    registries = registries or default_host()
    wide = widen(points)
    refuse_twice(wide)
    if via is not None and via not in wide.columns:
        raise LawError(f"the points have no column {via!r} (via); {suggest(via, map(str, wide.columns))}")
    wide, unplaced = _with_sizes(wide)
    ladders = read_ladders(wide, value, via)
    asked = _asked(params, tokens, flops)
    wanted = [ladder for ladder in ladders if family in (None, ladder.family)]
    if not wanted:
        raise UsageError(f"there is no family {family!r}; {suggest(family, {ladder.family for ladder in ladders})}")
    if asked is not None:
        expect_same_scale(wanted, asked)
    fitted = [_held(ladder) if asked is None else _aimed(ladder, asked) for ladder in wanted]
    many = _many(ladders)
    first = 1 if many else FIRST
    fitted = [ladder for ladder in fitted if ladder.rungs >= first and ladder.targets]
    if not fitted:
        raise LawError(f"0 of {len(wanted)} ladders have two sizes below the target; add sizes")
    measured = np.array([_measured(ladder, ladders) if asked is None else np.nan for ladder in fitted])
    others = [ladder for ladder in ladders if family not in (None, ladder.family)]
    run = ForecastRun(
        fitted, others, _parts(registries, laws, forecasters, many), seed, SHARES[of], report, first, many
    )
    result = run.forecast(measured, level=level, of=of, value=value)
    notes = (*unplaced, *_left_out(wide, value), *_without_loss(wide, fitted, via), *result.notes)
    return replace(result, planner=partial(plan, run), points=_ends(wanted), notes=notes)


def _with_sizes(wide: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return the points of families of which some params or FLOPs are known (all if none has), and a note on others."""
    columns = [name for name in ("params", "flops") if name in wide.columns]
    if "family" not in wide.columns or not columns:
        return wide, []
    is_known = wide[columns].notna().any(axis=1).groupby(wide["family"], dropna=False).transform("any")
    lost = sorted(set(wide["family"][~is_known].astype(str)))
    if not lost or not is_known.any():
        return wide, []
    return wide[is_known], [f"{NO_SIZE}: {', '.join(lost)} (not forecast)"]


def _left_out(wide: pd.DataFrame, value: str) -> list[str]:
    """Return a note on rows without a value."""
    lost = int(pd.to_numeric(wide[value], errors="coerce").isna().sum())
    return [f"{lost} of {len(wide)} rows have no {value} and were left out"] if lost else []


def _without_loss(wide: pd.DataFrame, ladders: Sequence[ForecastLadder], via: str | None) -> list[str]:
    """Return a note on ladders whose task loss is known at some sizes only, so that no model uses it."""
    if via is None:
        return []
    loss = pd.to_numeric(wide[via], errors="coerce")
    names = pd.DataFrame({name: wide.get(name, "") for name in ("task", "family")}).astype(str)
    some = {tuple(row) for row in names[loss.notna()].itertuples(index=False)}
    without = [ladder.name for ladder in ladders if ladder.via is None and (ladder.task, ladder.family) in some]
    why = f"{via} is missing or 0 at some sizes, or changes sign, so it is not used for"
    return [f"{why}: {'; '.join(without)}"] if without else []


def _ends(ladders: Sequence[ForecastLadder]) -> pd.DataFrame:
    """Return the measured ends of runs: task, family, label, params, tokens, flops, value."""
    frames = []
    for ladder in ladders:
        columns = {name: getattr(ladder, name) for name in ("params", "tokens", "flops", "value")}
        labels = [f"{ladder.family} {size:.3g}".strip() for size in ladder.params]
        frames.append(pd.DataFrame({"task": ladder.task, "family": ladder.family, "label": labels, **columns}))
    return pd.concat(frames, ignore_index=True)


def _many(ladders: Sequence[ForecastLadder]) -> bool:
    """Say whether these are many families of few sizes, which are forecast from one another."""
    families = {ladder.family for ladder in ladders}
    return len(families) >= MANY and float(np.median([ladder.rungs for ladder in ladders])) <= FEW_SIZES


def _asked(params: Wanted, tokens: Wanted, flops: Wanted) -> Targets | None:
    """Return the models to forecast, or None where none is named."""
    named = {"params": params, "tokens": tokens, "flops": flops}
    given = {
        name: np.atleast_1d(np.asarray(values, dtype=np.float64))
        for name, values in named.items()
        if values is not None
    }
    if not given:
        return None
    wrong = [name for name, values in given.items() if not ((values > 0) & np.isfinite(values)).all()]
    if wrong:
        raise UsageError(f"{', '.join(wrong)} of the model to forecast: expected numbers above 0")
    if flops is None and params is None:
        raise UsageError("name the model to forecast: params and tokens, or flops")
    counts = {len(values) for values in given.values()}
    if len(counts) > 1:
        raise UsageError(f"{', '.join(given)} give {choose(counts)} models; expected equal numbers")
    unknown = np.full(counts.pop(), np.nan)
    whole = {name: given.get(name, unknown) for name in named}
    expect_one_model(**whole)
    return Targets(**whole, docs=unknown)


def _held(ladder: ForecastLadder) -> ForecastLadder:
    """Return a ladder without its largest size, which is the target."""
    if ladder.rungs < 2:
        return ladder
    return ladder.cut(ladder.rungs - 1)


def _aimed(ladder: ForecastLadder, asked: Targets) -> ForecastLadder:
    """Return a ladder with the target that was asked for; it answers as many documents as the largest size did."""
    return replace(ladder, targets=replace(asked, docs=np.repeat(ladder.docs[ladder.tops[-1]], len(asked))))


def _measured(fitted: ForecastLadder, ladders: Sequence[ForecastLadder]) -> float:
    whole = next(ladder for ladder in ladders if (ladder.task, ladder.family) == (fitted.task, fitted.family))
    return float(whole.value[whole.tops[-1]])


def _parts(
    registries: Registries, laws: Sequence[str] | None, forecasters: Sequence[str] | None, many: bool
) -> list[Forecaster]:
    """Return what a forecast is composed of: the models of one ladder, or those of `many` families."""
    parts: list[Forecaster] = [registries.forecasters[name] for name in forecasters or registries.forecasters]
    if not forecasters:
        parts = [part for part in parts if getattr(part, "many", many) == many]
    if laws is None:
        shipped = getattr(registries, "ships", lambda _: True)
        laws = [name for name in registries.laws if not shipped(registries.laws.entries[name].plugin)]
        laws = [name for name in laws if takes_part(registries.laws[name])]
    return [*parts, *(LawForecaster(registries.laws[name], registries) for name in laws)]
