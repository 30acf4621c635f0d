"""Which rows of points are one training run, the last checkpoint of each run, the largest sizes, and rows given twice.

These are the only definitions of a run, of `largest`, and of the name of a row; fits, tables and analyses call them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from harness.errors import LawError
from harness.types import Bools, Floats, Ints, checkpoint_label

NAMED = ("family", "run", "size", "seed")  # columns that name a run
CHECKPOINT = ("run", "size", "seed", "step", "checkpoint")  # a table with one of these names its checkpoints
SCALE = ("params", "params_non_embedding", "tokens", "flops")
HOW = ("model", "task", "metric", "fingerprint", "settings", "engine", "dtype", "sampling")
DESCRIBES = ("family", *CHECKPOINT, *SCALE, *HOW)  # two rows equal in all of these are of one checkpoint
ORDER = ("tokens", "step", "flops")  # along a run
RATIO = "tokens per parameter"
TALLIES = ("k", "trials", "successes", "drawn", "passed", "n")  # whole numbers that name no set of samples
SAME = 0.01  # in ln: lengths of training nearer than this are equal


@dataclass(frozen=True)
class Runs:
    """The run of each row (n,), numbered from 0, the number of sizes (None: unknown), and what tells runs apart.

    No columns: every row counts as a run.
    """

    number: Ints
    sizes: int | None
    columns: tuple[str, ...]

    @property
    def count(self) -> int:
        """Return how many runs there are."""
        return len(set(self.number))


def runs_of(frame: pd.DataFrame) -> Runs:
    """Return the runs of points: rows of one run, size and seed in a family.

    A column `run` may number the runs of each size anew. Without `run` and `size`, rows with steps are of one run where
    family, seed and params are equal, and other rows are a run each: params and tokens per parameter tell them apart.
    One size trained for several lengths is one run unless the table has no steps, and the lengths of different sizes
    are equal in tokens per parameter rather than in tokens: such a table lists the ends of trainings.
    """
    named = [name for name in NAMED if name in frame.columns]
    by_size = "size" in named
    if not by_size and "params" in frame.columns:
        named.append("params")
    if not ({"run", "size"} & set(named) or ("step" in frame.columns and named)):
        return _rows(frame)
    ratio = by_size and not {"run", "step", "tokens_convention"} & set(frame.columns) and _by_ratio(frame)
    told = (*named, RATIO) if ratio else tuple(named)
    return Runs(_numbers(frame, [*named, *(["tokens"] if ratio else [])]), sizes_of(frame), told)


def _rows(frame: pd.DataFrame) -> Runs:
    """Return a run per row; but points at several k (pass@k) of one set of samples are one run."""
    if "k" in frame.columns:
        named = [name for name in frame.columns if name not in TALLIES and frame[name].dtype.kind not in "fcb"]
        number = _numbers(frame, named) if named else np.zeros(len(frame), dtype=np.int64)
        return Runs(number, sizes_of(frame), tuple(map(str, named)))
    told = [name for name in ("family", "seed", "params", "tokens") if name in frame.columns]
    unique = {"params", "tokens"} <= set(told) and not frame.duplicated(told).any()
    columns = (*told[:-1], RATIO) if unique else ()
    return Runs(np.arange(len(frame)), sizes_of(frame), columns)


def _numbers(frame: pd.DataFrame, keys: Sequence[str]) -> Ints:
    return np.asarray(frame.groupby(list(keys), dropna=False).ngroup(), dtype=np.int64)


def sizes_of(frame: pd.DataFrame) -> int | None:
    """Return how many sizes points have, None where that is unknown; sizes of two families differ."""
    size = next((name for name in ("size", "params") if name in frame.columns), None)
    if size is None:
        return None
    return len(frame[[name for name in ("family", size) if name in frame.columns]].drop_duplicates())


def _by_ratio(frame: pd.DataFrame) -> bool:
    """Say whether sizes share their lengths of training in tokens per parameter rather than in tokens."""
    if not {"params", "tokens"} <= set(frame.columns):
        return False
    params, tokens = (numeric(frame, name) for name in ("params", "tokens"))
    known = (params > 0) & (tokens > 0)
    if not known.all():
        return False
    lengths, ratios = (len(set(np.round(np.log(x) / SAME))) for x in (tokens, tokens / params))
    return ratios < lengths


def numeric(frame: pd.DataFrame, name: str) -> Floats:
    """Return a column (n,) as numbers, NaN where it has none."""
    return np.asarray(pd.to_numeric(frame[name], errors="coerce"), dtype=np.float64)


def along(frame: pd.DataFrame, names: Sequence[str] = ORDER) -> Ints:
    """Return the positions (n,) of rows in the order of columns, those of numbers only; equal rows keep theirs."""
    columns = [numeric(frame, name) for name in names if name in frame.columns]
    columns = [values for values in columns if np.isfinite(values).any()]
    return np.lexsort(columns[::-1]) if columns else np.arange(len(frame))


def ends(frame: pd.DataFrame, *also: str) -> pd.Series[bool]:
    """Mark the last checkpoint of every run, by tokens, step and flops; of each value of other columns, where named."""
    order, marks = along(frame), np.zeros(len(frame), dtype=bool)
    keys = pd.DataFrame({"run": runs_of(frame).number, **{name: frame[name].to_numpy() for name in also}}).iloc[order]
    marks[order] = ~keys.duplicated(keep="last").to_numpy()
    return pd.Series(marks, index=frame.index, dtype=bool)


def largest(frame: pd.DataFrame, sizes: int = 1) -> pd.Series[bool]:
    """Mark the rows of the largest sizes of each family, by params; raise LawError where there are no params."""
    if "params" not in frame.columns:
        raise LawError("the largest size is that of the most params; the points need a column params")
    params = pd.Series(numeric(frame, "params"), index=frame.index)
    if params.isna().any():
        raise LawError(f"params is missing for {some(frame, params.isna().to_numpy())}; which size is largest?")
    families = frame["family"] if "family" in frame.columns else pd.Series("", index=frame.index)
    rank = params.groupby(families, dropna=False).rank(method="dense", ascending=False)
    return pd.Series(np.asarray(rank) <= sizes, index=frame.index, dtype=bool)


def largest_known(frame: pd.DataFrame) -> pd.Series[bool]:
    """Mark the rows of the largest size of each family; a size of unknown params counts as the smallest."""
    return largest(frame.assign(params=frame["params"].astype(float).fillna(0.0)))


def label(row: pd.Series[Any]) -> str:
    """Name a row for a message: by its column label, or as far as it has a name family:size@step#seed, and its run."""
    own, model = (_known(row.get(name)) for name in ("label", "model"))
    family, size, step, seed, run = (_known(row.get(name)) for name in ("family", "size", "step", "seed", "run"))
    told = "" if run is None else f", run {run}"
    if own is not None or (size is None and model is not None):
        named = str(model if own is None else own)
        for more in ("" if step is None else f"@{step}", told):
            named += "" if more in named else more  # the column may hold what this function returned
        return named
    if family is None and size is None:
        return f"row {row.name}{told}"
    named = checkpoint_label("" if family is None else family, "" if size is None else size, step, seed)
    return named.removeprefix(":") + told


def _known(value: Any) -> Any:
    """Return None for a missing value, and a whole number without its decimals."""
    if value is None or pd.isna(value):
        return None
    return int(value) if isinstance(value, (float, np.floating)) and float(value).is_integer() else value


def some(frame: pd.DataFrame, bad: Bools) -> str:
    """Name the first five of some rows, and say how many there are."""
    names = ", ".join(label(row) for _, row in frame[bad].head(5).iterrows())
    return names if bad.sum() <= 5 else f"{names} and {bad.sum() - 5} more of {len(frame)} rows"


def refuse_twice(frame: pd.DataFrame, features: Sequence[str] = ()) -> None:
    """Raise LawError where a checkpoint has two rows, equal or not; each would count as a measurement of its own.

    Rows of a table that does not name its checkpoints are refused where they are equal in every column.
    """
    keys = [name for name in dict.fromkeys((*DESCRIBES, *features)) if name in frame.columns]
    keys = keys if set(CHECKPOINT) & set(keys) else list(frame.columns)
    twice = frame.duplicated(keys, keep=False)
    if not twice.any():
        return
    raise LawError(two_points(frame, keys))


def two_points(frame: pd.DataFrame, keys: Sequence[str]) -> str:
    """Name the first two rows that are equal in `keys`, say how they differ, how many repeat others, and what to do."""
    numbers = _numbers(frame, keys)
    same = frame[numbers == numbers[frame.duplicated(keys, keep=False).to_numpy()][0]]
    rows = " and ".join(map(str, same.index[:2]))
    differ = [str(name) for name in same.columns if len(same[name].drop_duplicates()) > 1]
    repeated = int(frame.duplicated(keys).sum())
    what = f"of {same['metric'].iloc[0]} " if "metric" in keys else ""
    start = f"two points {what}for {label(same.iloc[0])} (rows {rows}; {repeated} of {len(frame)} rows repeat others)"
    if not differ:
        return f"{start}, equal in every column: --drop-duplicates keeps one of equal rows"
    listed = ", ".join(differ[:5]) + (" ..." if len(differ) > 5 else "")
    return (
        f"{start}, which differ in {listed}: name the column that tells runs apart with --run, or keep one of them "
        "with --where"
    )
