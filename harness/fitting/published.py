"""Points from published tables: long or wide, with their own columns and units.

    long    one row per value: task, metric, value, and stderr, n, chance where known
    wide    one row per model, one column per benchmark

Columns are renamed (`NAMES`, `--map`), percentages are converted to fractions for each column, units of counts are
checked, and unusable rows are dropped and counted. The notes list these changes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from harness.errors import LawError, UsageError, choose
from harness.fitting.columns import FEWEST, check_units, labelled, query, renamed
from harness.fitting.published_values import (
    SCORE,
    checked,
    chosen,
    falls,
    few,
    fractions,
    is_numeric,
    melted,
    names_values,
    numbers,
)
from harness.fitting.runs import label as label_of
from harness.fitting.runs import two_points
from harness.fitting.wide_points import completed
from harness.types import Scalar

NAMES = {  # our column: what others call it, where the meaning and the unit are beyond doubt
    "family": ("model_family",),
    "size": ("model_size",),
    "params": ("n_params", "num_params", "n_parameters", "num_parameters", "model_num_parameters"),
    "params_non_embedding": ("n_params_non_embedding", "non_embedding_params"),
    "params_active": ("n_params_active", "active_params", "n_active_params", "num_active_params", "activated_params"),
    "tokens": ("n_tokens", "num_tokens", "training_tokens", "tokens_seen"),
    "flops": ("flop", "training_flop", "training_flops", "compute_flop", "flop_6nd"),
    "label": ("model", "model_name"),
    "stderr": ("std_err", "standard_error"),
}
KEYS = ("family", "size", "label", "run", "seed", "step", "params", "tokens", "flops", "task", "metric")
SAME = ("family", "size", "step", "seed", "run", "label", "task", "metric")
FIRST = ("acc", "exact_match", "accuracy", SCORE)  # the metric that tables show, where a task has several
SIZED = re.compile(r"[-_]?(\d+(?:\.\d+)?[bmkt])(?=$|[-_])", re.IGNORECASE)


@dataclass(frozen=True)
class Published:
    """Long points, notes on their conversion, the metric shown for each task, and whether higher is better."""

    points: pd.DataFrame
    notes: tuple[str, ...]
    shown_metrics: dict[str, str]
    rises: dict[str, bool]


@dataclass(frozen=True)
class Reading:
    """Options of reading a table.

    `renames` are pairs theirs=ours, as of `harness.fitting.columns.renamed`; `where` selects rows after renaming.
    `label` is the column with the names of models, `run` the one that identifies runs; `family` is the family of all
    rows without such a column. `tasks` are the benchmark columns of a wide table (wildcards are allowed), or the tasks
    of a long one, and `metric` is what these columns measure. `metrics` are the only scores to read: columns of a wide
    table, taken as they are, or metrics of a long one. `models` sets columns of single models, by their label.
    """

    renames: Sequence[str] = ()
    where: str | None = None
    label: str | None = None
    run: str | None = None
    family: str | None = None
    tasks: Sequence[str] = ()
    metric: str | None = None
    metrics: Sequence[str] = ()
    drop_duplicates: bool = False
    selects: bool = False  # of a store: apply `where` whenever points are read
    models: Mapping[str, Mapping[str, Scalar]] = field(default_factory=dict)


def published(
    table: pd.DataFrame, how: Reading, *, name: str, rises: Mapping[str, bool] | None = None, rescales: bool = True
) -> Published:
    """Return the points of a table; `name` is the family unless a column says it.

    Without `rescales`, values are taken as they are: percentages are not converted to fractions.
    Raises UsageError or LawError for a table without scores, values that are not numbers, implausible units, and two
    rows of one checkpoint, task and metric.
    """
    notes = list[str]()
    frame = _named(table.reset_index(drop=True), how, notes)
    if how.where:
        frame = query(frame, how.where)
        notes.append(f"{len(frame)} of {len(table)} rows have {how.where}")
    if names_values(frame):
        long = chosen(frame, how.tasks, how.metrics)
    else:
        long = melted(frame, (*how.tasks, *how.metrics), how.metric, notes)
    long = numbers(long.reset_index(drop=True), notes)
    long = fractions(long, notes, as_they_are=bool(how.metrics)) if rescales else long
    long = _identified(long, name, how.family, notes)
    long = _scaled(long, notes)
    if long.empty:
        raise UsageError(f"no points remain: {'; '.join(notes) or 'the table has no rows'}")
    _refuse_unknown_scale(long, table)
    points = _once(long, how, notes)
    metrics = {str(m): (rises or {}).get(str(m), not falls(m)) for m in points["metric"].unique()}
    return Published(points, tuple(notes), shown_metrics(points), metrics)


def shown_metrics(points: pd.DataFrame) -> dict[str, str]:
    """Return the metric that tables show of each task: accuracy if there is one, else the first by name."""
    metrics = {}
    for task, task_rows in points.groupby("task"):
        known = sorted(map(str, task_rows["metric"].unique()))
        metrics[str(task)] = next((name for name in FIRST if name in known), known[0])
    return metrics


# --- names -------------------------------------------------------------------------------------------------------


def _named(table: pd.DataFrame, how: Reading, notes: list[str]) -> pd.DataFrame:
    """Return the table with renamed columns, and with the values set for single models."""
    mapped = {pair.rpartition("=")[2].strip() for pair in how.renames}
    frame, read = table, list[str]()
    for ours, theirs in NAMES.items():
        known = next((column for column in theirs if column in table.columns), None)
        if known and ours not in table.columns and ours not in mapped and not (ours == "label" and how.label):
            frame = frame.assign(**{ours: frame[known]})
            frame = frame if ours == "label" else frame.drop(columns=known)
            read.append(f"{known} as {ours}")
    notes += [f"columns read: {', '.join(read)}"] if read else []
    return _of_models(renamed(frame, labelled(how.renames, how.label), run=how.run), how.models)


def _of_models(frame: pd.DataFrame, models: Mapping[str, Mapping[str, Scalar]]) -> pd.DataFrame:
    """Set columns of the rows of single models; raise UsageError for a model that has no rows."""
    if not models:
        return frame
    if "label" not in frame.columns:
        raise UsageError("a mapping file names models, but the table has no column of their names; pass --label COLUMN")
    unknown = set(models) - set(frame["label"].map(str))
    if unknown:
        raise UsageError(f"no rows belong to {choose(unknown)}; models are: {choose(set(frame['label'].map(str)))}")
    points = frame.copy()
    for model, columns in models.items():
        rows = points["label"].map(str) == model
        for column, value in columns.items():
            known = points[column] if column in points.columns else pd.Series(np.nan, points.index)
            points[column] = known.astype(object).where(~rows, value).infer_objects()
    return points


def _identified(frame: pd.DataFrame, name: str, family: str | None, notes: list[str]) -> pd.DataFrame:
    """Return points with family, size, seed and step, from columns or else from the names of models."""
    points = frame
    parts = [_family_and_size(str(model)) for model in points["label"]] if "label" in points.columns else None
    if family is not None:
        points = points.assign(family=family)
    elif "family" not in points.columns:
        points = points.assign(family=[family_name for family_name, _ in parts] if parts else name)
        source = "the names of models" if parts else "the name of the file"
        notes.append(f"families from {source}: {few(points['family'].unique())}; change them with --family or --map")
    if "size" not in points.columns:
        points = points.assign(size=[size for _, size in parts] if parts else _sizes(points))
    if points["family"].isna().any():
        raise UsageError(
            f"family is missing in {int(points['family'].isna().sum())} of {len(points)} rows; fill it in "
            "(a family named nan, NA or None counts as missing), or harness import with --family"
        )
    step = checked(points["step"], "step") if "step" in points.columns else np.nan
    seed = _seeds(points["seed"], notes) if "seed" in points.columns else 0
    return points.assign(family=points["family"].map(str), size=points["size"].map(_text), step=step, seed=seed)


def _seeds(column: pd.Series, notes: list[str]) -> pd.Series[int]:
    """Return seeds as whole numbers; names are numbered in their order."""
    numbers = pd.to_numeric(column, errors="coerce")
    if (numbers.isna() & column.notna()).any():
        names = sorted({str(name) for name in column.dropna()})
        notes.append(f"seeds are numbered: {few(f'{name} is {i}' for i, name in enumerate(names))}")
        numbers = column.map({name: names.index(str(name)) for name in column.dropna().unique()})
    return numbers.fillna(0).astype(int)


def _family_and_size(model: str) -> tuple[str, str]:
    """Split the name of a model at its size.

    >>> _family_and_size("EleutherAI/pythia-1.4b-deduped"), _family_and_size("gpt2")
    (('pythia-deduped', '1.4b'), ('gpt2', 'gpt2'))
    """
    short = model.rstrip("/").rsplit("/", 1)[-1]
    size = SIZED.search(short)
    if not size:
        return short, short
    return (short[: size.start()] + short[size.end() :]).strip("-_") or short, size[1]


def _sizes(frame: pd.DataFrame) -> pd.Series:
    """Return names of sizes by their parameters; "?" if these are unknown.

    In a table without parameters and steps, every amount of compute is a run of its own and names its size.
    """
    name = "params" if "params" in frame.columns else "flops"
    if name not in frame.columns or (name == "flops" and "step" in frame.columns):
        return pd.Series("?", index=frame.index)
    return pd.to_numeric(frame[name], errors="coerce").map(lambda n: "?" if pd.isna(n) else f"{n:.4g}")


def _text(value: Scalar) -> str:
    """Return a name as text; 7.0 is 7."""
    return f"{value:g}" if isinstance(value, float) else str(value)


# --- scale -------------------------------------------------------------------------------------------------------


def _scaled(frame: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Return points with counts as numbers, FLOPs or tokens filled in, units checked, and untrained models dropped."""
    points = frame
    for name in (*FEWEST, "params_non_embedding", "params_active", "loss"):
        if name in points.columns:
            points = points.assign(**{name: checked(points[name], name)})
    untrained = np.zeros(len(points), dtype=bool)
    for name in set(FEWEST) & set(points.columns):
        untrained |= (points[name] <= 0).to_numpy()
    if untrained.any():
        notes.append(f"{int(untrained.sum())} rows without training (tokens, params or flops of 0) were dropped")
    points = points[~untrained].reset_index(drop=True)
    if points.empty:
        return points
    notes += check_units(points, list(FEWEST))
    given = set(FEWEST) & set(points.columns)
    points = completed(points)
    notes += check_units(points, list(FEWEST))[: "flops" not in given]
    filled = sorted((set(FEWEST) & set(points.columns)) - given)
    notes += [f"{name} are {'6 x params x tokens' if name == 'flops' else 'flops / (6 x params)'}" for name in filled]
    lacking = {name: int(points[name].isna().sum()) for name in FEWEST if name in points.columns}
    unknown = [f"{name} of {count}" for name, count in lacking.items() if count]
    notes += [f"{', '.join(unknown)} of {len(points)} points are unknown; laws of them need --where"] if unknown else []
    return points


def _refuse_unknown_scale(points: pd.DataFrame, table: pd.DataFrame) -> None:
    """Raise LawError if no column has the size of models, although some columns have similar names."""
    if {"params", "tokens", "flops"} & set(points.columns):
        return
    alike = [str(c) for c in table.columns if re.search(r"param|token|flop|size|compute", str(c).lower())]
    alike = [name for name in alike if is_numeric(table[name])]
    if alike:
        raise LawError(
            f"no column is named params, tokens or flops; {choose(alike)} have similar names: map them in full units, "
            f"such as --map '{alike[0]} * 1e9=params'"
        )


def _once(points: pd.DataFrame, how: Reading, notes: list[str]) -> pd.DataFrame:
    """Return points without equal rows; raise LawError if a checkpoint, task and metric has two different rows."""
    if how.drop_duplicates:
        equal = points.duplicated()
        if equal.any():
            notes.append(
                f"{int(equal.sum())} of {len(points)} rows are equal to others in every column and were dropped"
            )
        points = points[~equal].reset_index(drop=True)
    keys = [name for name in KEYS if name in points.columns]
    if points.duplicated(keys).any():
        raise LawError(two_points(points, keys))
    return points


def same_points(points: pd.DataFrame, others: pd.DataFrame) -> list[str]:
    """Return the names of up to three points (checkpoint, task, metric) that are in both frames."""
    if others.empty:
        return []
    keys = [name for name in SAME if name in points.columns and name in others.columns]
    both = points.merge(others[keys].drop_duplicates(), on=keys)
    return [f"{label_of(row)}, {row['task']}, {row['metric']}" for _, row in both.head(3).iterrows()]
