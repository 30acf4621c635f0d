"""Scores of published tables: columns of benchmarks, numbers, and percentages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatch

import numpy as np
import pandas as pd

from harness.errors import UsageError, choose
from harness.store.points import PointStore
from harness.types.columns import COLUMNS

METRICS = (
    "acc_norm", "acc", "accuracy", "exact_match", "em", "f1", "mc1", "mc2", "pass_at_1", "pass_rate", "err", "error",
    "bpb", "bits_per_byte", "ppl", "perplexity", "loss", "nll", "brier",
)  # fmt: skip
UNBOUNDED = re.compile(r"(^|_)(bpb|bits_per_byte|ppl|perplexity|loss|nll|logp|logprob|cross_entropy|elo|rating)($|_|,)")
FALLS = re.compile(r"(^|_)(err(or)?|bpb|bits_per_byte|ppl|perplexity|loss|nll|brier|cross_entropy|wer)($|_|,)")
NO_TASK = re.compile(
    r"param|token|flop|compute|budget|step|seed|size|layer|width|year|date|log10|ratio|(^|_)per_|multiple|ci95|_low$|"
    r"_high$|_[bmt]$|_1e\d+$|^n_|_id$|index|unnamed|lr$|learning_rate|batch|stderr|std"
)
WRITTEN = r"[-+]?\d+([.,]\d+)*\s*(%|(%\s*)?(±|\+/-|\+-).*)?"  # a number that only people read
MISSING = {"", "-", "--", "—", "n/a", "na", "nan", "none", "null"}
SCORE = "score"  # the metric of a benchmark whose table does not say which
LARGEST_ERROR = 0.5  # of a rate, from one document
MOST_DOCUMENTS = 1e6  # of a benchmark; a smaller error was divided by 100 once too often
MIXED = 0.25  # share of values of 1 or less from which a column of percentages is in doubt


def falls(metric: object) -> bool:
    """Return whether the name of a metric says that lower is better.

    >>> falls("bpb"), falls("err_avg_17"), falls("acc")
    (True, True, False)
    """
    return bool(FALLS.search(str(metric)))


def names_values(frame: pd.DataFrame) -> bool:
    """Return whether a table is long: one row per value, with its task or its metric."""
    return "value" in frame.columns and bool({"task", "metric"} & set(frame.columns))


def chosen(frame: pd.DataFrame, tasks: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
    """Return the rows of a long table that are of some tasks and metrics (wildcards are allowed; none: all).

    Without a column task, each metric is a task. Raises UsageError for a pattern that matches nothing.
    """
    rows = frame if "task" in frame.columns else frame.assign(task=frame["metric"])
    for name, patterns in (("task", tasks), ("metric", metrics)):
        if not patterns:
            continue
        known = set(rows[name].map(str)) if name in rows.columns else set()
        matching = {entry for entry in known for pattern in patterns if fnmatch(entry, pattern)}
        unknown = [pattern for pattern in patterns if not any(fnmatch(entry, pattern) for entry in known)]
        if unknown:
            raise UsageError(f"the table has no {name} {choose(unknown)}; it has: {choose(known)}")
        rows = rows[rows[name].map(str).isin(matching)]
    return rows


def melted(frame: pd.DataFrame, asked: Sequence[str], metric: str | None, notes: list[str]) -> pd.DataFrame:
    """Return one row per model and benchmark; errors and counts are in columns NAME_stderr and NAME_n.

    If a column names the task of each row, the columns are metrics of that task.
    """
    tasks = list(_benchmarks(frame, asked))
    if not tasks:
        raise UsageError(
            f"no column is a benchmark; name the columns with --tasks, or, in a long table, map task, metric and "
            f"value; columns are: {choose(frame.columns)}"
        )
    if not asked:
        notes.append(f"benchmarks: {few(tasks)}; harness import --tasks names others")
    frame = _without_shared_errors(frame, tasks)
    of_row = "task" in frame.columns
    beside = {f"{task}{ending}" for task in tasks for ending in ("_stderr", "_n")}
    known = frame.drop(columns=[c for c in frame.columns if c in beside or (c in tasks and c not in COLUMNS)])
    rows = []
    for column in tasks:
        task, task_metric = (column, metric) if metric else _task_and_metric(column)
        of = {"task": frame["task"], "metric": metric or column} if of_row else {"task": task, "metric": task_metric}
        added = {ours: frame[f"{column}_{ours}"] for ours in ("stderr", "n") if f"{column}_{ours}" in frame.columns}
        rows.append(known.assign(**of, value=frame[column], **added))
    return pd.concat(rows, ignore_index=True)


def _without_shared_errors(frame: pd.DataFrame, tasks: Sequence[str]) -> pd.DataFrame:
    """Return a table without columns of errors that would be those of several benchmarks.

    Raises UsageError if none of them has errors of its own, such as a column NAME_stderr.
    """
    shared = [name for name in ("stderr", "low", "high") if name in frame.columns and len(tasks) > 1]
    if any(frame[name].notna().any() for name in shared) and not any(f"{t}_stderr" in frame.columns for t in tasks):
        raise UsageError(
            f"the column {shared[0]} would belong to all of {few(tasks)}; say whose it is with "
            f"--map {shared[0]}={tasks[0]}_stderr, or choose one benchmark"
        )
    return frame.drop(columns=shared)


def _benchmarks(frame: pd.DataFrame, asked: Sequence[str]) -> Iterator[str]:
    """Yield the columns of benchmarks: those in `asked`, else numeric columns whose names have no other meaning."""
    for pattern in asked:
        if not any(fnmatch(str(column), pattern) for column in frame.columns):
            raise UsageError(f"{pattern!r} names no column; columns are: {choose(frame.columns)}")
    for column in map(str, frame.columns):
        if asked:
            if column in asked or (any(fnmatch(column, pattern) for pattern in asked) and not _beside(column, frame)):
                yield column
        elif column not in COLUMNS | {"run", "value"} and not NO_TASK.search(column.lower()):
            if not is_numeric(frame[column]):
                _refuse_written(frame[column])
            elif not _beside(column, frame):
                yield column


def _beside(column: str, frame: pd.DataFrame) -> bool:
    """Return whether a column has the errors or counts of another: NAME_stderr or NAME_n."""
    return any(column.endswith(end) and column.removesuffix(end) in frame.columns for end in ("_stderr", "_n"))


def _refuse_written(column: pd.Series) -> None:
    """Raise UsageError for a column of text whose cells are all numbers with a decimal comma, % or an error."""
    text = column.dropna().map(str).str.strip()
    text = text[~text.str.lower().isin(MISSING)]
    if len(text) and text.str.fullmatch(WRITTEN).all():
        raise UsageError(
            f"{column.name} has {text.iloc[0]!r}, which is not read as a number; write numbers with a decimal point "
            "and no sign (an error in a column NAME_stderr), or name the benchmarks with --tasks to leave it out"
        )


def is_numeric(column: pd.Series) -> bool:
    """Return whether a column has numbers."""
    if pd.api.types.is_bool_dtype(column):
        return False
    return bool(pd.to_numeric(column, errors="coerce").notna().any())


def _task_and_metric(column: str) -> tuple[str, str]:
    """Split the name of a column at a metric at its start or end.

    >>> _task_and_metric("bpb_mmlu_stem"), _task_and_metric("words_2shot_exact_match"), _task_and_metric("mmlu")
    (('mmlu_stem', 'bpb'), ('words_2shot', 'exact_match'), ('mmlu', 'score'))
    """
    for metric in METRICS:
        if column == metric:
            return column, metric
        if column.startswith(f"{metric}_"):
            return column.removeprefix(f"{metric}_"), metric
        if column.endswith(f"_{metric}"):
            return column.removesuffix(f"_{metric}"), metric
    return column, SCORE


def numbers(frame: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Return long points with numeric values; rows without a value are dropped and counted in a note."""
    points = frame.assign(metric=frame["metric"].map(str) if "metric" in frame.columns else SCORE)
    points = points.assign(task=points["task"].map(str))
    for name in ("value", "stderr", "n", "chance", "low", "high"):
        if name in points.columns:
            points[name] = checked(points[name], name)
    if "stderr" in points.columns and (points["stderr"] < 0).any():
        raise UsageError(
            f"stderr is {points['stderr'].min():.4g} in row {points['stderr'].idxmin()}; expected 0 or more"
        )
    if "n" in points.columns and (points["n"] < 1).any():
        raise UsageError(
            f"n, the number of documents, is {points['n'].min():.4g} in row {points['n'].idxmin()}; expected 1 or "
            "more, or an empty cell where it is unknown"
        )
    lost = int(points["value"].isna().sum())
    if lost:
        notes.append(f"{lost} of {len(points)} rows have no value and were dropped")
    return points[points["value"].notna()].reset_index(drop=True)


def checked(column: pd.Series, name: str) -> pd.Series[float]:
    """Return a column as numbers, NaN if empty; raise UsageError for any other text."""
    values = pd.to_numeric(column, errors="coerce").astype(np.float64)
    text = column[values.isna() & column.notna()]
    wrong = [(row, value) for row, value in text.items() if str(value).strip().lower() not in MISSING]
    if wrong:
        raise UsageError(f"{name} is {str(wrong[0][1])!r} in row {wrong[0][0]}; expected a number or an empty cell")
    return values


def fractions(frame: pd.DataFrame, notes: list[str], *, as_they_are: bool = False) -> pd.DataFrame:
    """Return long points with percentages converted to fractions, as decided for each task and metric.

    Values that are neither fractions nor percentages are refused or, with `as_they_are`, taken unchanged with a note.
    """
    points, percent = frame, list[str]()
    for (task, metric), task_rows in frame.groupby(["task", "metric"], sort=False):
        if UNBOUNDED.search(str(metric)) or task_rows["value"].max() <= 1:
            continue
        if as_they_are and not 0 <= task_rows["value"].min() <= task_rows["value"].max() <= 100:
            notes.append(f"{task} ({metric}) is neither a fraction nor a percentage, and is taken as it is")
            continue
        _refuse_no_rate(task_rows, f"{task} ({metric})")
        columns = [name for name in ("value", "stderr", "low", "high") if name in points.columns]
        points = points.assign(
            **{name: points[name].where(~points.index.isin(task_rows.index), points[name] / 100) for name in columns}
        )
        percent.append(str(task))
    _refuse_errors(points)
    if percent:
        notes.append(f"percentages, divided by 100: {few(percent)}")
    return points


def _refuse_errors(frame: pd.DataFrame) -> None:
    """Raise UsageError if standard errors of rates are in another unit than the rates."""
    if "stderr" not in frame.columns:
        return
    is_rate = ~frame["metric"].map(lambda metric: bool(UNBOUNDED.search(metric))) & frame["value"].between(0, 1)
    for (task, metric), task_rows in frame[is_rate & (frame["stderr"] > 0)].groupby(["task", "metric"], sort=False):
        worth = float((task_rows["value"] * (1 - task_rows["value"]) / task_rows["stderr"] ** 2).median())  # documents
        if task_rows["stderr"].max() > LARGEST_ERROR or worth > MOST_DOCUMENTS:
            errors, values = (
                f"{task_rows[name].min():.3g} to {task_rows[name].max():.3g}" for name in ("stderr", "value")
            )
            why = (
                "larger than those of rates"
                if task_rows["stderr"].max() > LARGEST_ERROR
                else f"those of {worth:.2g} documents"
            )
            raise UsageError(
                f"{task} ({metric}) has standard errors of {errors} beside values of {values} (as fractions), which "
                f"are {why}; give both as fractions, or both as percentages"
            )


def _refuse_no_rate(task_rows: pd.DataFrame, name: str) -> None:
    """Raise UsageError if values are neither fractions nor percentages, or a mixture."""
    values, column = task_rows["value"], str(task_rows["task"].iloc[0])
    if values.max() > 100 or values.min() < 0:
        raise UsageError(
            f"{name} runs from {values.min():.4g} to {values.max():.4g}; expected fractions or percentages. Name the "
            "benchmarks with --tasks, or their metric with --metric (ppl, loss, bpb ... have no bounds)"
        )
    small = ((values > 0) & (values <= 1)).mean()
    if small > MIXED:
        raise UsageError(
            f"{name} has {small:.0%} of its values between 0 and 1, and others up to {values.max():.4g}, a mixture of "
            f"fractions and percentages; convert them, such as with --map '{column} / 100={column}' for percentages"
        )


def scored_tasks(store: PointStore) -> set[str]:
    """Return the tasks of a store with correct answers: choices, checked text, and imported rates."""
    kinds = {str(meta["name"]): meta["kind"] for meta in store.task_meta.values()}
    metrics = store.tasks()
    imported = {name for name, metric in metrics.items() if name not in kinds and not UNBOUNDED.search(metric)}
    return imported | {name for name in metrics if kinds.get(name) in {"choice", "generate"}}


def few(names: Iterable[object]) -> str:
    """Return up to six names, and the number of others."""
    listed = sorted(map(str, names))
    return ", ".join(listed[:6]) + (f" and {len(listed) - 6} more" if len(listed) > 6 else "")
