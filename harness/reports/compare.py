"""Compare families: scores, predictions of the largest size, and the compute to reach a score.

Four tables: `families` (the largest checkpoint of each family on every task), `ladder` (every size), `predictions`
(the largest size predicted from the smaller ones, against its measurement), `compute` (training FLOPs at which each
family reaches a score).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from harness.errors import LawError, StoreError, UsageError, choose, suggest
from harness.fitting.columns import query
from harness.fitting.crossings import REACH, reach
from harness.fitting.forecast_files import TASK_LOSS
from harness.fitting.laws import steps_of
from harness.fitting.options import Options
from harness.fitting.runs import OLD, along, doubled, ends, label, largest_known
from harness.metrics.intervals import shown_error
from harness.reports.compared import Compared
from harness.reports.predictions import Comparison, each_fit, in_order, is_accuracy, predictions
from harness.reports.store_notes import store_notes
from harness.store.imported import SAMPLES_ENGINE
from harness.store.points import PointStore
from harness.tables import Cell, Measured, Table, as_cell
from harness.types.laws import ComposedLaw

CELL = ["family", "size", "step", "seed", "task"]  # a checkpoint and a task of a store
CLEAR = 2.0  # standard errors by which a score is clearly worse than the best
ALL_AGREE = (
    "If all documents agree, the standard error is 0; ± is then the width of the 95 % interval (Wilson's) / 3.92."
)


def compare(
    store: PointStore,
    *,
    where: str | None = None,
    metrics: Mapping[str, str] | None = None,
    mix_engines: bool = False,
    laws: Sequence[str] | None = None,
    reach: str = "sigmoid",
    hold_out: str = "largest",
    score: float | None = None,
    objective: str | None = None,
    resample: str | None = None,
    bootstrap: int = 1000,
    level: float = 0.9,
    starts: int | str = 32,
    seed: int = 0,
) -> Compared:
    """Return tables that compare the families of a store.

    :param where: an expression that selects points.
    :param metrics: the metric shown for a task (default: that of its task.yaml).
    :param mix_engines: allow scores of different engines in one table.
    :param laws: names of the laws that predict the held-out sizes (default: none; `harness.forecast` predicts the
        largest size of each family).
    :param reach: the law of FLOPs for the compute table.
    :param hold_out: the held-out points, as in `harness.fit`, like objective to seed.
    :param score: the score to reach (default: half-way from chance to 1, for accuracies).

    Raises StoreError if a checkpoint and task has several cells, or engines are mixed; UsageError if `reach` is not a
    law of flops, a task of `metrics` is unknown, no point is selected, or no law is named for another `hold_out`.
    """
    options = Options(objective, resample, bootstrap, level, starts, seed)
    comparison = Comparison(laws, reach, hold_out, score, options, store)
    if laws is None and hold_out != "largest":
        raise UsageError(
            f"a forecast predicts the largest size, not hold_out={hold_out!r}; choose laws (--law two_step)"
        )
    known = [store.registries.laws[name] for name in (*(laws or ()), reach)]
    if tuple(steps_of(known[-1])[0].features) != ("flops",):
        raise UsageError(f"{reach} is not a law of flops alone; expected one, such as sigmoid")
    via = {TASK_LOSS} if laws is None else {law.via for law in known if isinstance(law, ComposedLaw)}
    points = _points(store, metrics or {}, via)
    points = _where(points, where) if where else points
    _refuse_mixtures(points, mix_engines=mix_engines)
    shown = _shown(points)
    notes = store_notes(store, points, shown, where=where)
    tables = [
        _families(shown, notes, store.rises),
        _ladder(shown),
        predictions(points, shown, comparison),
        _compute(points, comparison),
    ]
    return Compared(tables, shown)


def _where(points: pd.DataFrame, where: str) -> pd.DataFrame:
    """Return the selected points; raise UsageError if none of those shown is selected."""
    chosen = query(points, where)
    if not chosen["shown"].any():
        raise UsageError(f"{where!r} selects 0 of {len(points)} points; columns are: {choose(points.columns)}")
    return chosen


def _points(store: PointStore, metrics: Mapping[str, str], via: set[str]) -> pd.DataFrame:
    """Return the points of all tasks; `shown` marks the one metric of each task that tables show."""
    task_metrics = store.tasks()
    if set(metrics) - set(task_metrics):
        unknown = set(metrics) - set(task_metrics)
        raise UsageError(f"{store.path} has no task {choose(unknown)}; {suggest(min(unknown), task_metrics)}")
    named = task_metrics | dict(metrics)
    points = store.points(metrics=sorted({*named.values(), *via}))
    points["shown"] = points["metric"] == points["task"].map(named)
    for task in set(task_metrics) - set(points[points["shown"]]["task"]):
        raise StoreError(f"the scores of {task} lack what the metric {named[task]!r} needs; choose another metric")
    return points


def _refuse_mixtures(points: pd.DataFrame, *, mix_engines: bool) -> None:
    """Raise StoreError if engines are mixed, or a checkpoint and task has several cells."""
    engines = set(points["engine"][points["checkpoint"].notna()]) - {SAMPLES_ENGINE}
    if len(engines) > 1 and not mix_engines:
        raise StoreError(f"the store mixes engines ({choose(engines)}); choose one with --where, or pass --mix-engines")
    twice = doubled(points, [*CELL, "metric"])
    if len(twice):
        row = twice.iloc[0]
        keys = ["family", "size", "seed", "task", "metric"]
        cells = twice[(twice[keys] == row[keys]).all(axis=1) & (twice["step"].isna() | (twice["step"] == row["step"]))]
        differing = {name: set(cells[name]) for name in ("checkpoint", "fingerprint", "settings")}
        differing = {name: values for name, values in differing.items() if len(values) > 1}
        said = "; ".join(f"{name} {choose(values)}" for name, values in differing.items())
        name, values = next(iter(differing.items()), ("checkpoint", {row["checkpoint"]}))
        how = f"select one with --where \"{name} == '{min(values)}'\""
        raise StoreError(
            f"{label(row)} has several cells of {row['task']} ({said}); {OLD if name == 'checkpoint' else how}"
        )


def _shown(points: pd.DataFrame) -> pd.DataFrame:
    """Return the shown metric of the last step of every size; of several lengths of training, that of the longest."""
    shown = points[points["shown"]].sort_values(["family", "params", "size", "seed", "step"], kind="stable")
    shown = shown[ends(shown, "task")]
    run = [name for name in ("family", "params", "size", "seed", "run", "label", "task") if name in shown.columns]
    longest = shown.iloc[along(shown)].groupby(run, sort=False, dropna=False).tail(1).index
    return shown[shown.index.isin(longest)]


def _measured(rows: pd.DataFrame) -> Measured | None:
    """Return the value of one checkpoint, or the mean of its seeds, which `_seeds` notes.

    Seeds answer the same documents, so averaging them removes little of the error over documents: the error of the mean
    is at most the mean of their errors, which is returned.
    """
    if rows.empty:
        return None
    errors = np.array([shown_error(*ends) for ends in zip(rows["stderr"], rows["low"], rows["high"], strict=True)])
    return Measured(float(rows["value"].mean()), float(errors.mean()))


def _seeds(shown: pd.DataFrame) -> list[str]:
    """Return a note on sizes whose seeds are averaged."""
    sizes = shown.groupby(["family", "size"], dropna=False)
    counts = {f"{family} {size}": points["seed"].nunique() for (family, size), points in sizes}
    several = [f"{name} ({count} seeds)" for name, count in counts.items() if count > 1]
    if several:
        seeds = f"Mean over seeds: {', '.join(several)}"
        return [f"{seeds}; ± is the mean of their errors, an upper limit. One: --where seed == 0."]
    runs = {f"{family} {size}": points["task"].value_counts().max() for (family, size), points in sizes}
    several = [f"{name} ({count} runs)" for name, count in runs.items() if count > 1]
    return [f"Mean over runs: {', '.join(several)}; ± is the mean of their errors, an upper limit."] if several else []


def _families(shown: pd.DataFrame, notes: Sequence[str], rises: Callable[[str], bool]) -> Table:
    last = shown[largest_known(shown)]  # params are unknown without safetensors
    families = sorted(last["family"].unique())
    _expect_one_size(last)
    rows, best = list[tuple[Cell, ...]](), list[tuple[int, int]]()
    for (task, metric), points in last.groupby(["task", "metric"]):
        values = [_measured(points[points["family"] == family]) for family in families]
        best += [(len(rows), 2 + i) for i in _best(values, rises=rises(str(metric)))]
        counts = (_most(points["n"]), _total(points["truncated"]), _total(points["ties"]))
        rows.append((as_cell(task), as_cell(metric), *values, *counts))
    sizes = ", ".join(f"{f} {last[last['family'] == f]['size'].iloc[0]}" for f in families)
    columns = ("task", "metric", *families, "documents", "truncated", "ties")
    about = f"The largest size of each family, at its last step: {sizes}. Values ± standard error over documents."
    said = (about, *_seeds(last), *_certain(last), *notes)
    return Table(
        "families",
        "Families side by side",
        columns,
        tuple(rows),
        said,
        best=tuple(best),
        optional=("ties", "truncated", "documents", "metric"),
    )


def _expect_one_size(last: pd.DataFrame) -> None:
    """Raise StoreError if the largest size of a family cannot be told from others, so that they would be averaged."""
    for family, points in last.groupby("family"):
        sizes = sorted(set(points["size"].astype(str)))
        if len(sizes) > 1:
            why = "have equal params" if points["params"].notna().all() else "have neither params nor FLOPs nor tokens"
            raise StoreError(
                f"the largest size of {family} is unknown: {choose(sizes)} {why}; add a column, or select one with "
                f"--where \"size == '{sizes[-1]}'\""
            )


def _best(values: Sequence[Measured | None], *, rises: bool) -> list[int]:
    """Return the positions of the best value, and of those that two standard errors of the difference do not part."""
    known = [(v.value if rises else -v.value, v.stderr, i) for i, v in enumerate(values) if v is not None]
    if len(known) < 2:
        return []
    top, error, _ = max(known)
    return [i for value, stderr, i in known if value == top or top - value < CLEAR * np.hypot(error, stderr)]


def _certain(rows: pd.DataFrame) -> list[str]:
    """Say what stands behind ± where all documents agree, so that a standard error would be 0."""
    return [ALL_AGREE] if (rows["stderr"] == 0).any() else []


def _most(column: pd.Series[float]) -> int | None:
    return None if column.isna().all() else int(column.max())


def _total(column: pd.Series[float]) -> int | None:
    return None if column.isna().all() else int(column.sum())


def _common(column: pd.Series[float]) -> float | None:
    """Return the one value of a column; None if it is unknown, or if tasks were scored at several steps."""
    (value, *others) = column.unique()
    return None if others or pd.isna(value) else float(value)


def _ladder(shown: pd.DataFrame) -> Table:
    tasks = sorted(shown["task"].unique())
    ordered = shown.sort_values(["family", "params", "flops", "size"], kind="stable")
    rows: list[tuple[Cell, ...]] = [
        (
            as_cell(family),
            as_cell(size),
            *(_common(points[name]) for name in ("params", "flops")),
            *(_measured(points[points["task"] == t]) for t in tasks),
        )
        for (family, _, size), points in ordered.groupby(["family", "params", "size"], dropna=False, sort=False)
    ]
    columns = ("family", "size", "params", "FLOPs", *tasks)
    return Table(
        "ladder",
        "Every size at its last step",
        columns,
        tuple(rows),
        ("Values ± standard error over documents.", *_seeds(shown), *_certain(shown)),
    )


def _compute(points: pd.DataFrame, asked: Comparison) -> Table:
    """Find the training FLOPs at which each family's law reaches a score."""
    rows: list[tuple[Cell, ...]] = []
    notes: list[str] = []
    for task, family, fit in each_fit(points, asked.reach, asked):
        if isinstance(fit, LawError):
            notes.append(f"{task}, {family}: {fit}")
            continue
        score = _half_way(points, task, asked.store.rises) if asked.score is None else asked.score
        if isinstance(score, str):
            notes.append(f"{task}, {family}: {score}; pass the score to reach with --score")
            continue
        rises = asked.store.rises(fit.value)
        rows.append((task, family, score, *reach(fit, score, rises=rises)))
    about = (
        f"Compute at which the law {asked.reach}, fitted to all points of a family, reaches the score (default: half "
        f"way from chance to 1). Searched up to {REACH:g} times the largest fitted compute."
    )
    columns = ("task", "family", "score", "FLOPs", "remark")
    return Table("compute", "Training compute to reach a score", columns, in_order(rows), (about, *notes))


def _half_way(points: pd.DataFrame, task: str, rises: Callable[[str], bool]) -> float | str:
    """Return the score half way from chance to 1, or why there is none."""
    shown = points[(points["task"] == task) & points["shown"]]
    metric = str(shown["metric"].iloc[0])
    if not is_accuracy(shown) or not rises(metric):
        return f"{metric} is not an accuracy"
    known = shown["chance"].dropna()
    return (1 + float(known.iloc[0])) / 2 if len(known) else "the accuracy of guessing (a column chance) is unknown"
