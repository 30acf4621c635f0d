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

from harness.errors import LawError, UsageError, choose
from harness.fitting.columns import check_units, completed, labelled, query, renamed
from harness.fitting.formula import Chain, Options
from harness.fitting.ladder import Ladder, column, is_long, widen, worth
from harness.fitting.laws import configured, steps_of
from harness.fitting.procedures import fit_procedure
from harness.fitting.resampling import Resamples, freedom, in_common, point_weights, scattered, student
from harness.fitting.result import LawFit
from harness.fitting.runs import label, refuse_twice
from harness.fitting.warnings import warn
from harness.host import default_host
from harness.registries import Registries
from harness.store.points import PointStore, read_points
from harness.types import Floats
from harness.types.laws import Law, ProcedureLaw, traits

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
    frame = prepared(points, law, value, where)
    doubts = check_units(frame, [name for step in steps_of(law) for name in step.features])
    ladder = Ladder.of(frame, hold_out)
    if traits(law).uses_unscored and value in ladder.target:
        ladder = replace(ladder, target=ladder.target[ladder.target[value].notna()].reset_index(drop=True))
    found = LawFit(
        law=law.name,
        value=value,
        options=settings,
        runs=ladder.runs.count,
        sizes=ladder.runs.sizes,
        told_apart=ladder.runs.columns,
        law_options=dict(law_options or {}),
        worth=worth(ladder.points, value) if traits(steps_of(law)[-1]).value_range == (0.0, 1.0) else float("nan"),
        labels={
            k: str(ladder.points[k].iloc[0])
            for k in ("family", "task", "flops_convention", "tokens_convention")
            if k in ladder.points and len(set(ladder.points[k])) == 1
        },
        **_steps(law, ladder, settings, value=value, via=via, store=store, weights=weights),
    )
    found = replace(found, hold_out=tuple(_held(found, ladder.target)))
    return replace(found, warnings=(*doubts, *warn(found, ladder.points, ladder.target)))


def _steps(
    law: Law,
    ladder: Ladder,
    options: Options,
    *,
    value: str,
    via: str | None,
    store: PointStore | None,
    weights: Floats | None,
) -> dict[str, Any]:
    """Return the steps of a fit, and the column between them."""
    points = ladder.points
    if isinstance(law, ProcedureLaw):
        if weights is not None:
            raise UsageError(f"law {law.name!r} is a procedure; weights are for formulas")
        units = ladder.units(str(options.resample))
        drawn = _alike(_documents(points, [value], options, store), points, options)
        resamples = Resamples(np.ones((options.bootstrap, len(points))), drawn, units)
        steps = (fit_procedure(law, points, resamples, value=value, options=options),)
        return {"via": "", "negated": False, "steps": steps}
    chain = Chain.of(law, value, via)
    for name in chain.columns:
        column(points, name)  # what is not there is said before documents are resampled
    resamples = _resamples(ladder, chain, options, store) if weights is None else _given(weights, len(points))
    return {"via": chain.via, "negated": chain.negated(points), "steps": chain.fit(points, resamples, options)}


def prepared(points: pd.DataFrame, law: Law | None, value: str, where: str | None = None) -> pd.DataFrame:
    """Return wide points to fit: completed, filtered, pivoted, and checked, in that order.

    `where` applies to the rows of long points, so that it can choose between rows of one checkpoint, and to wide points
    with the columns of their metrics; it must be applicable to one of them. Raises LawError where nothing is left, or
    two rows are of one checkpoint.
    """
    first = steps_of(law)[0] if law else None
    prepare = traits(first).prepare
    rows = completed(points) if is_long(points) else points
    kept = _where(rows, where) if is_long(points) else None
    wide = rows if kept is None else kept
    if not wide.empty:
        wide = completed(widen(wide), value)
        wide = prepare(wide) if prepare else wide
        again = _where(wide, where)
        wide = again if again is not None else wide if kept is not None else query(wide, str(where))
    if wide.empty:
        raise LawError(
            f"there are no points to fit: {f'none of {len(points)} has {where}' if where else 'none is there'}"
        )
    wide = wide.reset_index(drop=True)
    refuse_twice(wide, getattr(first, "features", ()))
    return wide


def _where(frame: pd.DataFrame, where: str | None) -> pd.DataFrame | None:
    """Return the rows for which an expression holds; None where its columns are not those of the frame."""
    try:
        return query(frame, where) if where else frame
    except UsageError:
        return None


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
    frame = prepared(points, law, arguments["value"], arguments.pop("where", None))
    for family, own in by_family(frame) if not traits(law).pools else [("", frame)]:
        try:
            yield family, fit(own, law, **arguments)
        except LawError as error:
            yield family, error


def by_family(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Return the points of each family, whatever its name is; all of them as "" where there is no column family.

    Raises LawError where the family of some points is missing.
    """
    if "family" not in frame.columns:
        return [("", frame)]
    if frame["family"].isna().any():
        rows = ", ".join(map(str, frame.index[frame["family"].isna()][:5]))
        raise LawError(
            f"family is missing in rows {rows} ({int(frame['family'].isna().sum())} of {len(frame)}); name it, leave "
            "them out, or fit all points together (pool)"
        )
    return sorted(((str(name), own) for name, own in frame.groupby("family", sort=False)), key=lambda own: own[0])


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
    run: str | None = None,
    label: str | None = None,
    drop_duplicates: bool = False,
    registries: Registries | None = None,
    **arguments: Any,
) -> tuple[list[LawFit], list[str]]:
    """Fit a law to the points of a store or a table file, family by family unless `pool`.

    `renames` are pairs theirs=ours (`fitting.columns.renamed`), `params_column` the column that counts as params, `run`
    the one that tells runs apart, `label` the one with the names of models; `drop_duplicates` keeps one of equal rows
    of a file. Returns the fits, and what went wrong with the families that could not be fitted.
    """
    registries = registries or default_host()
    metrics = [metric or value, arguments.get("via"), _via(law, registries)]
    read = read_points(path, task, metrics, registries, drop_duplicates=drop_duplicates)
    points = renamed(read.points, labelled(renames, label), params_column, run)
    wanted = metric or value or read.metric
    if wanted is None:
        raise UsageError(
            f"{path} has columns {choose(points.columns)}; name the one that the law describes with --value"
        )
    arguments |= {"value": wanted, "store": read.store, "registries": registries}
    if pool:
        return [replace(fit(points, law, **arguments), notes=read.notes)], []
    found = list(fit_families(points, law, **arguments))
    errors = [f"{family or path}: {result}" for family, result in found if isinstance(result, LawError)]
    return [replace(result, notes=read.notes) for _, result in found if isinstance(result, LawFit)], errors


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


def _resamples(ladder: Ladder, chain: Chain, options: Options, store: PointStore | None) -> Resamples:
    """Redraw the points of few units around the law, weight many units, and resample documents where asked for."""
    unit, rng = str(options.resample), np.random.default_rng(options.seed)
    units, n = ladder.units(unit), len(ladder.points)
    p = max(len(step.parameters) for step in chain.steps)
    redrawn = unit != "documents" and len(set(units)) < FEW_UNITS * p
    columns = _documents(ladder.points, chain.columns, options, store)
    if redrawn or unit == "documents":
        return Resamples(np.ones((options.bootstrap, n)), columns, units, rng if redrawn else None)
    power = student(freedom(n, p, len(set(units))), options.level)
    weights = point_weights(units, options.bootstrap, rng)
    return Resamples(weights, _alike(columns, ladder.points, options), units, power=power)


def _alike(columns: dict[str, Floats], points: pd.DataFrame, options: Options) -> dict[str, Floats]:
    """Return resampled documents for use with resampled runs, whose scatter already contains their noise per point."""
    if options.resample != "joint":
        return columns
    return {name: in_common(draws, column(points, name)) for name, draws in columns.items()}


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
