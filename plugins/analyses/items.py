"""The documents of a task as each checkpoint of a family scores them, read from a store or from a table of items."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import harness
from harness import Floats, Ints, MetricError, Range, Scores, StoreError, UsageError
from harness.errors import choose

if TYPE_CHECKING:
    import pandas as pd

    from harness import PointStore

CHAIN = ("logp_gold", "p_vocab", "p_choices", "brier", "acc")  # from log-probability to accuracy, step by step
FEWEST = 3  # checkpoints that a correlation is computed from
CHECKPOINT = ("family", "run", "size", "seed", "step", "model")  # columns that name a checkpoint


@dataclass(frozen=True)
class Items:
    """n documents of one task on M checkpoints of one family, ordered by scale.

    `points` has a row (M) for each checkpoint, `x` (M,) is the logarithm (base 10) of its scale; `chain` holds the
    values (n, M) of each step from log-probability to accuracy, higher being better; `groups` (n,) numbers documents
    that are not independent. `scores` has the choices at each checkpoint, or is empty where only the steps are known.
    `left_out` counts documents without a value at some checkpoint, which are not among the n.
    """

    task: str
    family: str
    points: pd.DataFrame
    x: Floats
    chain: dict[str, Floats]
    groups: Ints
    scores: tuple[Scores, ...] = field(default=(), repr=False)
    left_out: int = 0

    @property
    def runs(self) -> Ints:
        """The number of the training run of each checkpoint (M,)."""
        from harness.points import runs_of

        return runs_of(self.points).number


def read_items(
    source: PointStore | pd.DataFrame,
    *,
    task: str | None = None,
    family: str | None = None,
    where: str | None = None,
    scale: str = "flops",
) -> Iterator[Items]:
    """Yield the items of every task and family.

    :param source: a store, or a table with a row a checkpoint and document: doc_id, the scale, any of logp_gold,
        p_vocab, p_choices, brier, acc, and where there are any task, family, size, seed, step, group.
    :param where: an expression over the columns of checkpoints; others are left out.
    :param scale: the column that says how large a checkpoint is: flops, params, tokens ...

    Tasks without choices are passed over. Raises UsageError where nothing is left or a column is missing, StoreError
    where a checkpoint is there twice.
    """
    if isinstance(source, harness.PointStore):
        found = _of_store(source, task=task, family=family, where=where, scale=scale)
    else:
        found = _of_table(source, task=task, family=family, where=where, scale=scale)
    first = next(found, None)
    if first is None:
        raise UsageError(f"no document with choices is left of task {task or '(any)'} and family {family or '(any)'}")
    yield first
    yield from found


def _of_store(
    store: PointStore, *, task: str | None, family: str | None, where: str | None, scale: str
) -> Iterator[Items]:
    import pandas as pd

    from harness.points import checkpoint_columns

    cells = [cell for cell in store.select(task, family) if not store.is_sampled(cell.id)]
    if not cells:
        return
    known = pd.DataFrame([checkpoint_columns(cell) for cell in cells])
    known["cell"] = range(len(cells))
    for (name, own), points in _query(known, where).groupby(["task", "family"], sort=True):
        ordered = _by_scale(points, scale)
        refuse_doubles(ordered, str(name))
        scores = tuple(store.load(cells[i].id) for i in ordered["cell"])
        if "choices" in scores[0].offers:
            chain = {step: _values(store, step, scores) for step in CHAIN if _applies(store, step, scores[0])}
            groups = np.unique(scores[0].group.astype(str), return_inverse=True)[1] * scores[0].clustered
            yield Items(str(name), str(own), ordered, _logarithm(ordered, scale), chain, _units(groups), scores)


def refuse_doubles(points: pd.DataFrame, task: str) -> None:
    """Raise StoreError where a checkpoint has a task more than once, as with several engines, dtypes or prompts."""
    from harness.points import label

    key = [name for name in CHECKPOINT if name in points.columns]
    twice = points[points.duplicated(key, keep=False)]
    if len(twice):
        raise StoreError(
            f"{label(twice.iloc[0])} has {task} more than once; choose with --where, by fingerprint, settings, "
            "engine or dtype"
        )


def _applies(store: PointStore, step: str, scores: Scores) -> bool:
    return set(store.registries.metrics[step].needs) <= scores.offers


def _values(store: PointStore, step: str, scores: Sequence[Scores]) -> Floats:
    """Return a metric (n, M) of every document and checkpoint, higher being better."""
    from harness.points import per_document

    metric = store.registries.metrics[step]
    values = np.stack([per_document(metric, one).columns[0] for one in scores], axis=1)
    return values if metric.higher_is_better else -values


def _of_table(
    table: pd.DataFrame, *, task: str | None, family: str | None, where: str | None, scale: str
) -> Iterator[Items]:
    frame = _query(table, where)
    there = [step for step in CHAIN if step in frame.columns]
    missing = {"doc_id", scale} - set(frame.columns)
    if missing or not there:
        raise UsageError(
            f"the table has no column {choose(missing) if missing else 'of the steps ' + ', '.join(CHAIN)}; it has: "
            f"{choose(frame.columns)}"
        )
    frame = frame.assign(**{name: frame.get(name, "") for name in ("task", "family")})
    refuse_unnamed(frame, ("task", "family", "doc_id"))
    for (name, own), rows in frame.groupby(["task", "family"], sort=True):
        if task in (None, name) and family in (None, own):
            yield _items((str(name), str(own)), rows, there, scale)


def _items(names: tuple[str, str], rows: pd.DataFrame, there: list[str], scale: str) -> Items:
    """Turn rows a checkpoint and document into columns; documents that some checkpoint lacks are left out."""
    key = [name for name in CHECKPOINT if name in rows.columns and name != "family"] or [scale]
    rows = rows.assign(checkpoint=rows.groupby(key, dropna=False, sort=False).ngroup())
    if rows.duplicated(["checkpoint", "doc_id"]).any():
        twice = rows[rows.duplicated(["checkpoint", "doc_id"])].iloc[0]
        raise UsageError(f"{names[0]}: document {twice['doc_id']} is there twice at {scale} {twice[scale]:g}; keep one")
    points = _by_scale(rows.drop_duplicates("checkpoint"), scale)
    wide = {
        step: rows.pivot_table(index="doc_id", columns="checkpoint", values=step)[points["checkpoint"]]
        for step in there
    }
    complete = np.logical_and.reduce([frame.notna().all(axis=1).to_numpy() for frame in wide.values()])
    if not complete.any():
        raise UsageError(f"{names[0]}: no document has values at all {len(points)} checkpoints")
    sign = {step: -1.0 if step == "brier" else 1.0 for step in there}
    chain = {step: sign[step] * frame.to_numpy(dtype=np.float64)[complete] for step, frame in wide.items()}
    groups = np.zeros(len(complete), dtype=np.int64)
    if "group" in rows.columns:
        of_document = rows.drop_duplicates("doc_id").set_index("doc_id")["group"]
        groups = np.unique(of_document.loc[wide[there[0]].index].astype(str), return_inverse=True)[1]
    lost = int((~complete).sum())
    return Items(*names, points, _logarithm(points, scale), chain, _units(groups[complete]), left_out=lost)


def refuse_unnamed(frame: pd.DataFrame, names: Sequence[str]) -> None:
    """Raise UsageError where rows lack a name that they are grouped by."""
    for name in names:
        missing = int(frame[name].isna().sum())
        if missing:
            raise UsageError(
                f"{name} is missing in {missing} of {len(frame)} rows; name it, or leave these rows out with --where "
                f"'{name} == {name}'"
            )


def _units(groups: Ints) -> Ints:
    """Return the number of what is independent: the group, or the document where there is one group only."""
    return groups if groups.max() > 0 else np.arange(len(groups))


def _query(frame: pd.DataFrame, where: str | None) -> pd.DataFrame:
    from harness.points import query

    return query(frame, where) if where else frame


def _by_scale(points: pd.DataFrame, scale: str) -> pd.DataFrame:
    if scale not in points.columns:
        raise UsageError(
            f"checkpoints have no {scale!r}; choose the scale among: {', '.join(map(str, points.columns))}"
        )
    order = [scale, *(name for name in ("params", "tokens", "step") if name in points.columns and name != scale)]
    return points.sort_values(order, kind="stable").reset_index(drop=True)


def _logarithm(points: pd.DataFrame, scale: str) -> Floats:
    from harness.points import column

    values = column(points, scale)
    if not (values > 0).all():
        raise UsageError(f"{scale} must be above 0, found {values.min():g}")
    return np.log10(values)


def over_documents(values: Floats, units: Ints, level: float) -> Range:
    """Return the mean of values (n,) and Student's interval over what is independent; NaN ends for one unit."""
    from scipy.stats import t

    residuals, count = values - values.mean(), int(units.max()) + 1
    if count < 2:
        return Range(float(values.mean()), float("nan"), float("nan"))
    sums = np.bincount(units, residuals)
    error = np.sqrt((sums**2).sum() * count / (count - 1)) / len(values)
    half = float(error * t.ppf((1 + level) / 2, count - 1))
    return Range(float(values.mean()), float(values.mean()) - half, float(values.mean()) + half)


def open_source(
    path: Path, registries: Any, *, run: str | None = None, drop_duplicates: bool = False
) -> tuple[PointStore | pd.DataFrame, tuple[str, ...]]:
    """Open a store, or read a CSV or Parquet table, with notes on its rows; raise UsageError where it is neither.

    `run` is the column of a table that tells runs apart; `drop_duplicates` keeps one of equal rows.
    """
    from harness.points import read_table, renamed

    if path.is_dir():
        return harness.open_store(path, registries=registries), ()
    table, notes = read_table(path, drop_duplicates=drop_duplicates)
    return renamed(table, run=run), notes


def check_scores(items: Items) -> tuple[Scores, ...]:
    """Return the scores of all choices; raise MetricError where only steps are known."""
    if not items.scores:
        raise MetricError(f"{items.task}: laws of choices need a store, which has every choice; this is a table")
    return items.scores
