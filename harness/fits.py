"""Fit a law to points, with honest uncertainty, and predict what was held out.

    fit = harness.fit(store.points(task="nano_addition"), "two_step", value="acc", hold_out="largest")
    print(fit)
    fit.predict(flops=[1e16])

Every fit starts from many places and says how many agree. Uncertainty comes from resamples of runs (or what `resample`
says), all solved as one batch, plus the scatter of the points around the law (Student's t). The points of few runs are
redrawn around the fitted law: weights cannot move a fit at its ends, where the points themselves hold it, and gave 75 %
where 90 % was said. Ten runs a parameter or more get the random weights of a Bayesian bootstrap, which need no equal
scatter; where squares are minimised, a run's weight varies the more the more the fit follows it. Held-out points are
never seen by the fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.checks import warn
from harness.columns import check_units, completed, renamed
from harness.errors import LawError, UsageError, choose
from harness.host import default_host
from harness.ladders import (
    Resamples,
    column,
    freedom,
    in_common,
    label,
    point_weights,
    query,
    scattered,
    split,
    student,
    units_of,
    widen,
    worth,
)
from harness.lawfits import LawFit
from harness.laws import Law, ProcedureLaw, configured, steps_of
from harness.points import PointStore, read_points
from harness.procedures import fit_procedure
from harness.registries import Registries
from harness.steps import Chain, Options
from harness.types import Floats

FEW_UNITS = 10  # a parameter: the points of fewer units are redrawn around the law, more units are weighted


def fit(
    points: pd.DataFrame,
    law: str | Law,
    *,
    value: str,
    via: str | None = None,
    hold_out: str | float | None = None,
    where: str | None = None,
    store: PointStore | None = None,
    registries: Registries | None = None,
    law_options: Mapping[str, Any] | None = None,
    weights: Floats | None = None,
    **options: Any,
) -> LawFit:
    """Fit a law to points and predict what is held out.

    :param points: `store.points(...)`, or any table with a column `value` and the features of the law.
    :param law: the name of a registered law, or a law.
    :param value: the metric (of long points) or the column (of a wide table) that the law describes.
    :param via: for a composed law, the column between its steps; the law's own by default.
    :param hold_out: an expression, "largest", or a share of the points (those of most flops).
    :param where: an expression; other points are left out altogether.
    :param store: where documents are resampled from (resample="documents" or "joint").
    :param law_options: options of the law itself, where it has any (`harness ls laws`).
    :param weights: resamples of one's own for a formula: weights (R, n) of the n points fitted, in their order, such as
        how often each is drawn; they take the place of `resample` and `bootstrap`.
    :param options: objective; resample: runs | checkpoints | seeds | documents | joint (runs and documents: the default
        where there is a store, otherwise runs); bootstrap (resamples), level (of intervals), starts, seed.

    Raises LawError for points that no law could be fitted to; weak inference is a warning in the fit.
    """
    law = configured(_named(law, registries), law_options)
    options["resample"] = options.get("resample") or ("runs" if store is None else "joint")
    if weights is not None:
        options |= {"resample": "weights", "bootstrap": len(weights)}
    settings = Options(**options)
    frame = chosen(_read(points, law, value), where)
    check_units(frame, [name for step in steps_of(law) for name in step.features])
    ladder, target = split(frame.reset_index(drop=True), hold_out)
    if getattr(law, "uses_unscored", False) and value in target:
        target = target[target[value].notna()].reset_index(drop=True)
    found = LawFit(
        law=law.name,
        value=value,
        options=settings,
        runs=len(set(units_of(ladder, "runs"))),
        law_options=dict(law_options or {}),
        worth=worth(ladder, value) if getattr(steps_of(law)[-1], "value_range", None) == (0.0, 1.0) else float("nan"),
        labels={
            k: str(ladder[k].iloc[0])
            for k in ("family", "task", "flops_convention")
            if k in ladder and len(set(ladder[k])) == 1
        },
        **_steps(law, ladder, settings, value=value, via=via, store=store, weights=weights),
    )
    found = replace(found, hold_out=tuple(_held(found, target)))
    return replace(found, warnings=tuple(warn(found, ladder, target)))


def _steps(
    law: Law,
    ladder: pd.DataFrame,
    options: Options,
    *,
    value: str,
    via: str | None,
    store: PointStore | None,
    weights: Floats | None,
) -> dict[str, Any]:
    """Return the steps of a fit, and the column between them."""
    if isinstance(law, ProcedureLaw):
        if weights is not None:
            raise UsageError(f"law {law.name!r} is a procedure; weights are for formulas")
        units = units_of(ladder, str(options.resample))
        drawn = _alike(_documents(ladder, [value], options, store), ladder, options)
        resamples = Resamples(np.ones((options.bootstrap, len(ladder))), drawn, units)
        steps = (fit_procedure(law, ladder, resamples, value=value, options=options),)
        return {"via": "", "negated": False, "steps": steps}
    chain = Chain.of(law, value, via)
    for name in chain.columns:
        column(ladder, name)  # what is not there is said before documents are resampled
    resamples = _resamples(ladder, chain, options, store) if weights is None else _given(weights, len(ladder))
    return {"via": chain.via, "negated": chain.negated(ladder), "steps": chain.fit(ladder, resamples, options)}


def _read(points: pd.DataFrame, law: Law, value: str) -> pd.DataFrame:
    """Return wide points, with the columns that follow from others."""
    prepare = getattr(steps_of(law)[0], "prepare", None)
    frame = completed(widen(points), value)
    return prepare(frame) if prepare else frame


def chosen(frame: pd.DataFrame, where: str | None) -> pd.DataFrame:
    """Return the points to fit; raise LawError where there are none."""
    kept = query(frame, where) if where else frame
    if kept.empty:
        raise LawError(
            f"there are no points to fit: {f'none of {len(frame)} has {where}' if where else 'none is there'}"
        )
    return kept


def _pools(law: str | Law, registries: Registries | None = None) -> bool:
    """Say whether a law is fitted to all families together."""
    return bool(getattr(_named(law, registries), "pools", False))


def _named(law: str | Law, registries: Registries | None) -> Law:
    if not isinstance(law, str):
        return law
    found: Law = (registries or default_host()).laws[law]
    return found


def fit_families(points: pd.DataFrame, law: str | Law, **arguments: Any) -> Iterator[tuple[str, LawFit | LawError]]:
    """Fit a law to each family by itself; yield (family, fit), or (family, error) where one cannot be fitted.

    A law that pools families is fitted once, and its family is "". Arguments are those of `fit`; `where` is applied
    before families are told apart. Raises LawError where no points are left.
    """
    law = _named(law, arguments.get("registries"))
    frame = chosen(_read(points, law, arguments["value"]), arguments.pop("where", None))
    if "family" in frame.columns and frame["family"].isna().any():
        rows = ", ".join(map(str, frame.index[frame["family"].isna()][:5]))
        raise LawError(f"family is missing in rows {rows}; name it, leave them out, or fit all points together (pool)")
    apart = "family" in frame.columns and not _pools(law, arguments.get("registries"))
    for family in sorted(set(frame["family"])) if apart else [""]:
        try:
            yield family, fit(frame[frame["family"] == family] if family else frame, law, **arguments)
        except LawError as error:
            yield family, error


def fit_file(
    path: Path,
    *,
    law: str,
    task: str | None = None,
    metric: str | None = None,
    value: str | None = None,
    pool: bool = False,
    renames: Sequence[str] = (),
    params_column: str | None = None,
    registries: Registries | None = None,
    **arguments: Any,
) -> tuple[list[LawFit], list[str]]:
    """Fit a law to the points of a store or a table file, family by family unless `pool`.

    `renames` are pairs theirs=ours (`harness.columns.renamed`), `params_column` the column that counts as params.
    Returns the fits, and what went wrong with the families that could not be fitted.
    """
    registries = registries or default_host()
    points, named, store = read_points(
        path, task, [metric or value, arguments.get("via"), _via(law, registries)], registries
    )
    points = renamed(points, renames, params_column)
    wanted = metric or value or named
    if wanted is None:
        raise UsageError(
            f"{path} has columns {choose(points.columns)}; name the one that the law describes with --value"
        )
    arguments |= {"value": wanted, "store": store, "registries": registries}
    if pool:
        return [fit(points, law, **arguments)], []
    found = list(fit_families(points, law, **arguments))
    errors = [f"{family or path}: {result}" for family, result in found if isinstance(result, LawError)]
    return [result for _, result in found if isinstance(result, LawFit)], errors


def _via(law: str, registries: Registries) -> str | None:
    return getattr(registries.laws[law], "via", None)


def _held(found: LawFit, target: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield measured and predicted for each held-out point."""
    if target.empty:
        return
    measured, predicted = column(target, found.value), found.predict(target)
    for (_, row), y, guess in zip(target.iterrows(), measured, predicted.to_dict("records"), strict=True):
        error = guess["value"] - y
        yield {
            "point": label(row),
            **{name: guess[name] for name in found.features},
            "measured": float(y),
            "stderr": float(row.get(f"{found.value}_stderr", np.nan)),
            "predicted": guess["value"],
            "low": guess["low"],
            "high": guess["high"],
            "error": error,
            "relative_error": error / y if y else float("nan"),
            "inside": bool(guess["low"] <= y <= guess["high"]) if np.isfinite(guess["low"]) else None,
            "beyond": guess["beyond"],
        }


def _resamples(ladder: pd.DataFrame, chain: Chain, options: Options, store: PointStore | None) -> Resamples:
    """Redraw the points of few units around the law, weight many units, and resample documents where asked for."""
    unit, rng = str(options.resample), np.random.default_rng(options.seed)
    units = units_of(ladder, unit)
    p = max(len(step.parameters) for step in chain.steps)
    redrawn = unit != "documents" and len(set(units)) < FEW_UNITS * p
    columns = _documents(ladder, chain.columns, options, store)
    if redrawn or unit == "documents":
        return Resamples(np.ones((options.bootstrap, len(ladder))), columns, units, rng if redrawn else None)
    power = student(freedom(len(ladder), p, len(set(units))), options.level)
    weights = point_weights(units, options.bootstrap, rng)
    return Resamples(weights, _alike(columns, ladder, options), units, power=power)


def _alike(columns: dict[str, Floats], ladder: pd.DataFrame, options: Options) -> dict[str, Floats]:
    """Return resampled documents beside resampled runs, which contain the noise of documents at single points."""
    if options.resample != "joint":
        return columns
    return {name: in_common(draws, column(ladder, name)) for name, draws in columns.items()}


def _given(weights: Floats, n: int) -> Resamples:
    """Return resamples of one's own; raise UsageError where they are none of n points."""
    weights = np.asarray(weights, dtype=np.float64)
    if weights.ndim != 2 or weights.shape[1] != n or not (weights >= 0).all():
        raise UsageError(f"weights of shape {weights.shape}: expected (resamples, {n}) numbers of 0 or more")
    return Resamples(weights, {}, np.arange(n))


def _documents(
    ladder: pd.DataFrame, columns: list[str], options: Options, store: PointStore | None
) -> dict[str, Floats]:
    """Return the fitted columns in resamples of their documents, where these are asked for."""
    if options.resample not in {"documents", "joint"}:
        return {}
    rng = np.random.default_rng([options.seed, 1])
    if store is not None and "fingerprint" in ladder.columns:
        return store.replicates(ladder, columns, options.bootstrap, rng)
    return scattered(ladder, columns, options.bootstrap, rng)
