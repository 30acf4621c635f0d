"""Runs, their last checkpoints, the largest sizes, and duplicate rows.

This module has the only definitions of a run, of `largest`, and of the name of a row; fits, tables and analyses call
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.errors import LawError, choose
from harness.types import Bools, Floats, Ints, Scalar, checkpoint_label

NAMED = ("family", "run", "size", "seed")  # columns that identify a run
CHECKPOINT = ("run", "size", "seed", "step", "checkpoint")  # a table with one of these identifies its checkpoints
SCALE = ("params", "params_non_embedding", "tokens", "flops")
HOW = ("model", "task", "metric", "fingerprint", "settings", "engine", "dtype", "sampling")
OF_CELL = ("fingerprint", "settings", "engine", "dtype", "sampling")  # several cells of one checkpoint and task
DESCRIBES = ("family", *CHECKPOINT, *SCALE, *HOW)  # two rows equal in all of these belong to one checkpoint
ORDER = ("tokens", "step", "flops")  # along a run
OLD = "leave the old one out, which harness eval names, with --where \"checkpoint != 'NAME'\""
RATIO = "tokens per parameter"
TALLIES = ("k", "trials", "successes", "drawn", "passed", "n")  # whole numbers that do not identify a set of samples
SAME = 0.01  # in ln: lengths of training that differ by less count as equal


@dataclass(frozen=True)
class Runs:
    """The run of each row (n,), numbered from 0, the number of sizes (None: unknown), and the identifying columns.

    Without identifying columns, every row counts as a run. `order` (n,) are the positions of the rows along training.
    """

    number: Ints
    sizes: int | None
    columns: tuple[str, ...]
    order: Ints

    @property
    def count(self) -> int:
        """Return the number of runs."""
        return len(set(self.number))

    def ends(self) -> Bools:
        """Mark the last checkpoint (n,) of every run."""
        marks = np.zeros(len(self.number), dtype=np.bool_)
        backwards = self.order[::-1]
        marks[backwards[np.unique(self.number[backwards], return_index=True)[1]]] = True
        return marks

    def at(self, rows: Bools, sizes: int | None) -> Runs:
        """Return the runs of some of the rows, which have so many sizes; runs are numbered from 0 again."""
        number = np.asarray(np.unique(self.number[rows], return_inverse=True)[1], dtype=np.int64)
        order = (np.cumsum(rows) - 1)[self.order[rows[self.order]]]
        return Runs(number, sizes, self.columns, order)


def runs_of(frame: pd.DataFrame) -> Runs:
    """Return the runs of points: rows of one run, size and seed in a family.

    A column `run` may restart its numbers for each size. Without `run` and `size`, rows with steps belong to one run if
    family, seed and params are equal; rows without steps are one run each, identified by params and tokens per
    parameter. Rows of one size with several lengths of training are one run, with one exception: in a table without
    steps whose sizes share their lengths in tokens per parameter rather than in tokens, each row is the end of a run.
    """
    named = [name for name in NAMED if name in frame.columns]
    by_size = "size" in named
    if not by_size and "params" in frame.columns:
        named.append("params")
    if not ({"run", "size"} & set(named) or ("step" in frame.columns and named)):
        return _rows(frame)
    ratio = by_size and not {"run", "step", "tokens_convention"} & set(frame.columns) and _by_ratio(frame)
    told = (*named, RATIO) if ratio else tuple(named)
    number = _numbers(frame, [*named, *(["tokens"] if ratio else [])])
    return Runs(number, sizes_of(frame), told, along(frame))


def _rows(frame: pd.DataFrame) -> Runs:
    """Return one run per row; points at several k (pass@k) of one set of samples are one run."""
    if "k" in frame.columns:
        named = [name for name in frame.columns if name not in TALLIES and frame[name].dtype.kind not in "fcb"]
        number = _numbers(frame, named) if named else np.zeros(len(frame), dtype=np.int64)
        return Runs(number, sizes_of(frame), tuple(map(str, named)), along(frame))
    told = [name for name in ("family", "seed", "params", "tokens") if name in frame.columns]
    unique = {"params", "tokens"} <= set(told) and not frame.duplicated(told).any()
    columns = (*told[:-1], RATIO) if unique else ()
    return Runs(np.arange(len(frame)), sizes_of(frame), columns, along(frame))


def _numbers(frame: pd.DataFrame, keys: Sequence[str]) -> Ints:
    return np.asarray(frame.groupby(list(keys), dropna=False).ngroup(), dtype=np.int64)


def sizes_of(frame: pd.DataFrame) -> int | None:
    """Return the number of sizes, None if unknown; sizes of different families count separately."""
    size = next((name for name in ("size", "params") if name in frame.columns), None)
    if size is None:
        return None
    return len(frame[[name for name in ("family", size) if name in frame.columns]].drop_duplicates())


def _by_ratio(frame: pd.DataFrame) -> bool:
    """Return whether sizes share their lengths of training in tokens per parameter rather than in tokens."""
    if not {"params", "tokens"} <= set(frame.columns):
        return False
    params, tokens = (numeric(frame, name) for name in ("params", "tokens"))
    known = (params > 0) & (tokens > 0)
    if not known.all():
        return False
    lengths, ratios = (len(set(np.round(np.log(x) / SAME))) for x in (tokens, tokens / params))
    return ratios < lengths


def numeric(frame: pd.DataFrame, name: str) -> Floats:
    """Return a column (n,) as numbers, NaN where it is not numeric."""
    return np.asarray(pd.to_numeric(frame[name], errors="coerce"), dtype=np.float64)


def along(frame: pd.DataFrame, names: Sequence[str] = ORDER) -> Ints:
    """Return the positions (n,) of rows sorted by the numeric ones of some columns; the sort is stable."""
    columns = [numeric(frame, name) for name in names if name in frame.columns]
    columns = [values for values in columns if np.isfinite(values).any()]
    return np.lexsort(columns[::-1]) if columns else np.arange(len(frame))


def ends(frame: pd.DataFrame, *also: str) -> pd.Series[bool]:
    """Mark the last checkpoint of every run, by tokens, step and flops; per value of the columns `also`, if named."""
    runs, marks = runs_of(frame), np.zeros(len(frame), dtype=bool)
    keys = pd.DataFrame({"run": runs.number, **{name: frame[name].to_numpy() for name in also}}).iloc[runs.order]
    marks[runs.order] = ~keys.duplicated(keep="last").to_numpy()
    return pd.Series(marks, index=frame.index, dtype=bool)


def largest(frame: pd.DataFrame, sizes: int = 1) -> pd.Series[bool]:
    """Mark the rows of the largest sizes of each family, by params; raise LawError without params."""
    if "params" not in frame.columns:
        raise LawError(
            "the largest size is selected by params, but the points have no column params; add it, or select the size "
            "by an expression"
        )
    params = pd.Series(numeric(frame, "params"), index=frame.index)
    if params.isna().any():
        raise LawError(
            f"the largest size is selected by params, which is missing for {some(frame, params.isna().to_numpy())}"
        )
    families = frame["family"] if "family" in frame.columns else pd.Series("", index=frame.index)
    rank = params.groupby(families, dropna=False).rank(method="dense", ascending=False)
    return pd.Series(np.asarray(rank) <= sizes, index=frame.index, dtype=bool)


def largest_known(frame: pd.DataFrame) -> pd.Series[bool]:
    """Mark the rows of the largest size of each family; a size with unknown params counts as the smallest.

    If no params of a family are known, its sizes are ordered by their largest FLOPs, or else tokens; without these, all
    rows are marked.
    """
    families = frame["family"] if "family" in frame.columns else pd.Series("", index=frame.index)
    sizes = [families, *([frame["size"]] if "size" in frame.columns else [])]
    scale = pd.Series(np.nan, index=frame.index)
    for name in [name for name in ("params", "flops", "tokens") if name in frame.columns]:
        values = pd.Series(numeric(frame, name), index=frame.index)
        values = values if name == "params" else values.groupby(sizes, dropna=False).transform("max")
        unknown = scale.isna().groupby(families, dropna=False).transform("all")
        scale = scale.where(~unknown, values)
    return largest(frame.assign(params=scale.fillna(0.0)))


def doubled(points: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Return rows of points that are equal in `keys`; imported ones also differ by their scale, label or run."""
    if "checkpoint" not in points.columns:
        return points[points.duplicated(list(keys), keep=False)]
    imported, more = points["checkpoint"].isna(), [n for n in (*SCALE, "label", "run") if n in points.columns]
    told = points.assign(**{name: points[name].where(imported) for name in more if name not in keys})
    return points[told.duplicated(list(dict.fromkeys((*keys, *more))), keep=False)]


def label(row: pd.Series) -> str:
    """Return the name of a row for messages: its label, or family:size@step#seed as far as known, and its run."""
    row_label, model = (_known(row.get(name)) for name in ("label", "model"))
    family, size, step, seed, run = (_known(row.get(name)) for name in ("family", "size", "step", "seed", "run"))
    told = "" if run is None else f", run {run}"
    if row_label is not None or (size is None and model is not None):
        named = str(model if row_label is None else row_label)
        for more in ("" if step is None else f"@{step}", told):
            named += "" if more in named else more  # the column may hold what this function returned
        return named
    if family is None and size is None:
        return f"row {row.name}{told}"
    named = checkpoint_label("" if family is None else family, "" if size is None else size, step, seed)
    return named.removeprefix(":") + told


def _known(value: Scalar) -> Scalar:
    """Return None for a missing value, and a whole number without its decimals."""
    if value is None or pd.isna(value):
        return None
    return int(value) if isinstance(value, (float, np.floating)) and float(value).is_integer() else value


def some(frame: pd.DataFrame, bad: Bools) -> str:
    """Return the names of the first five of some rows, and the number of others."""
    names = ", ".join(label(row) for _, row in frame[bad].head(5).iterrows())
    return names if bad.sum() <= 5 else f"{names} and {bad.sum() - 5} more of {len(frame)} rows"


def refuse_twice(frame: pd.DataFrame, features: Sequence[str] = ()) -> None:
    """Raise LawError if a checkpoint has two rows, equal or not, since each would count as a separate measurement.

    In a table that does not identify its checkpoints, rows are refused if they are equal in every column. Cells of a
    store are refused if they are of one checkpoint and task, whatever the documents, settings, engine, and the weights:
    a training that was repeated has overwritten its files.
    """
    keys = [name for name in dict.fromkeys((*DESCRIBES, *features)) if name in frame.columns]
    keys = keys if set(CHECKPOINT) & set(keys) else list(frame.columns)
    if frame.duplicated(keys).any():
        raise LawError(two_points(frame, keys))
    if "checkpoint" in frame.columns:
        cells = frame[frame["checkpoint"].notna()]
        of_cell = {*OF_CELL, *(["checkpoint"] if set(OF_CELL[:2]) <= set(frame.columns) else [])}
        keys = [name for name in keys if name not in of_cell]
        if cells.duplicated(keys).any():
            raise LawError(two_points(cells, keys))


def two_points(frame: pd.DataFrame, keys: Sequence[str]) -> str:
    """Return a message on the first two rows with equal `keys`: how they differ, how many rows repeat, and advice."""
    numbers = _numbers(frame, keys)
    equal_rows = frame[numbers == numbers[frame.duplicated(keys, keep=False).to_numpy()][0]]
    rows = " and ".join(map(str, equal_rows.index[:2]))
    differ = [str(name) for name in equal_rows.columns if len(equal_rows[name].drop_duplicates()) > 1]
    repeated = int(frame.duplicated(keys).sum())
    of_metric = f"of {equal_rows['metric'].iloc[0]} " if "metric" in keys else ""
    counted = f"rows {rows}; {repeated} of {len(frame)} rows repeat others"
    start = f"two points {of_metric}for {label(equal_rows.iloc[0])} ({counted})"
    if not differ:
        return f"{start}, equal in every column: pass --drop-duplicates to keep one of them"
    listed = ", ".join(differ[:5]) + (" ..." if len(differ) > 5 else "")
    of_cell = next((name for name in OF_CELL if name in differ), None)
    if of_cell and "checkpoint" in frame.columns:
        expression = f"{of_cell} == '{equal_rows[of_cell].iloc[0]}'"
        return f'{start}, which differ in {listed}: select one with --where "{expression}"'
    if {"checkpoint", "fingerprint"} <= set(frame.columns) and "checkpoint" in differ:
        digests = choose(equal_rows["checkpoint"].unique())
        return f"{start}, whose files were replaced ({digests}): {OLD}"
    return (
        f"{start}, which differ in {listed}: name the column that identifies runs with --run, or select one of them "
        "with --where"
    )
