"""Scores of every document of a task at every checkpoint of a family, read from a store or from a table."""

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

STEPS = ("logp_gold", "p_vocab", "p_choices", "brier", "acc")  # from log-probability to accuracy, step by step
FEWEST = 3  # checkpoints needed for a correlation
CHECKPOINT = ("family", "run", "size", "seed", "step", "model")  # columns that identify a checkpoint


@dataclass(frozen=True)
class DocumentScores:
    """n documents of one task at M checkpoints of one family, ordered by scale.

    `points` has one row per checkpoint (M). `x` (M,) is log10 of the scale. `steps` are the values (n, M) of each step
    from log-probability to accuracy; higher is better. `groups` (n,) numbers the clusters of dependent documents.
    `scores` are the scores of all choices per checkpoint, and empty for a table. `left_out` counts documents without a
    value at some checkpoint, which are excluded.
    """

    task: str
    family: str
    points: pd.DataFrame
    x: Floats
    steps: dict[str, Floats]
    groups: Ints
    scores: tuple[Scores, ...] = field(default=(), repr=False)
    left_out: int = 0

    @property
    def runs(self) -> Ints:
        """The number of the training run of each checkpoint (M,)."""
        from harness.points import runs_of

        return runs_of(self.points).number


def read_document_scores(
    source: PointStore | pd.DataFrame,
    *,
    task: str | None = None,
    family: str | None = None,
    where: str | None = None,
    scale: str = "flops",
) -> Iterator[DocumentScores]:
    """Yield the document scores of every task and family.

    :param source: a store, or a table with one row per checkpoint and document: doc_id, the scale, any of logp_gold,
        p_vocab, p_choices, brier, acc, and optionally task, family, size, seed, step, group.
    :param where: an expression over the columns of checkpoints that selects checkpoints.
    :param scale: the column with the scale of a checkpoint: flops, params, tokens ...

    Tasks without choices are skipped. Raises UsageError if no document is left or a column is missing, and StoreError
    for duplicate checkpoints.
    """
    if isinstance(source, harness.PointStore):
        scores = _of_store(source, task=task, family=family, where=where, scale=scale)
    else:
        scores = _of_table(source, task=task, family=family, where=where, scale=scale)
    first = next(scores, None)
    if first is None:
        raise UsageError(f"no document with choices for task {task or '(any)'} and family {family or '(any)'}")
    yield first
    yield from scores


def _of_store(
    store: PointStore, *, task: str | None, family: str | None, where: str | None, scale: str
) -> Iterator[DocumentScores]:
    import pandas as pd

    from harness.points import checkpoint_columns, query

    cells = [cell for cell in store.select(task, family) if not store.is_sampled(cell.id)]
    if not cells:
        return
    known = pd.DataFrame([checkpoint_columns(cell) for cell in cells])
    known["cell"] = range(len(cells))
    for (name, family_name), points in query(known, where).groupby(["task", "family"], sort=True):
        ordered = _by_scale(points, scale)
        refuse_doubles(ordered, str(name))
        scores = tuple(store.load(cells[i].id) for i in ordered["cell"])
        if "choices" in scores[0].offers:
            steps = {step: _values(store, step, scores) for step in STEPS if _applies(store, step, scores[0])}
            groups = np.unique(scores[0].group.astype(str), return_inverse=True)[1] * scores[0].clustered
            yield DocumentScores(
                str(name), str(family_name), ordered, _logarithm(ordered, scale), steps, _units(groups), scores
            )


def refuse_doubles(points: pd.DataFrame, task: str) -> None:
    """Raise StoreError if a checkpoint has a task more than once, for example with several engines or dtypes."""
    from harness.points import doubled, label

    twice = doubled(points, [name for name in CHECKPOINT if name in points.columns])
    if len(twice):
        raise StoreError(
            f"{label(twice.iloc[0])} has {task} more than once; select one with --where, by checkpoint, "
            "fingerprint, settings, engine or dtype"
        )


def _applies(store: PointStore, step: str, scores: Scores) -> bool:
    return set(store.registries.metrics[step].needs) <= scores.offers


def _values(store: PointStore, step: str, scores: Sequence[Scores]) -> Floats:
    """Return a metric (n, M) of every document and checkpoint; higher is better."""
    from harness.points import per_document

    metric = store.registries.metrics[step]
    values = np.stack([per_document(metric, cell).columns[0] for cell in scores], axis=1)
    return values if metric.higher_is_better else -values


def _of_table(
    table: pd.DataFrame, *, task: str | None, family: str | None, where: str | None, scale: str
) -> Iterator[DocumentScores]:
    from harness.points import query

    frame = query(table, where)
    present = [step for step in STEPS if step in frame.columns]
    missing = {"doc_id", scale} - set(frame.columns)
    if missing or not present:
        raise UsageError(
            f"the table has no column {choose(missing) if missing else 'of the steps ' + ', '.join(STEPS)}; its "
            f"columns: {choose(frame.columns)}"
        )
    frame = frame.assign(**{name: frame.get(name, "") for name in ("task", "family")})
    refuse_unnamed(frame, ("task", "family", "doc_id"))
    for (name, family_name), rows in frame.groupby(["task", "family"], sort=True):
        if task in (None, name) and family in (None, family_name):
            yield _document_scores((str(name), str(family_name)), rows, present, scale)


def _document_scores(names: tuple[str, str], rows: pd.DataFrame, present: list[str], scale: str) -> DocumentScores:
    """Pivot rows (one per checkpoint and document); exclude documents that some checkpoint lacks."""
    key = [name for name in CHECKPOINT if name in rows.columns and name != "family"] or [scale]
    rows = rows.assign(checkpoint=rows.groupby(key, dropna=False, sort=False).ngroup())
    if rows.duplicated(["checkpoint", "doc_id"]).any():
        twice = rows[rows.duplicated(["checkpoint", "doc_id"])].iloc[0]
        raise UsageError(f"{names[0]}: duplicate document {twice['doc_id']} at {scale} {twice[scale]:g}; keep one")
    points = _by_scale(rows.drop_duplicates("checkpoint"), scale)
    wide = {
        step: rows.pivot_table(index="doc_id", columns="checkpoint", values=step)[points["checkpoint"]]
        for step in present
    }
    complete = np.logical_and.reduce([frame.notna().all(axis=1).to_numpy() for frame in wide.values()])
    if not complete.any():
        raise UsageError(f"{names[0]}: no document has values at all {len(points)} checkpoints")
    sign = {step: -1.0 if step == "brier" else 1.0 for step in present}
    steps = {step: sign[step] * frame.to_numpy(dtype=np.float64)[complete] for step, frame in wide.items()}
    groups = np.zeros(len(complete), dtype=np.int64)
    if "group" in rows.columns:
        of_document = rows.drop_duplicates("doc_id").set_index("doc_id")["group"]
        groups = np.unique(of_document.loc[wide[present[0]].index].astype(str), return_inverse=True)[1]
    lost = int((~complete).sum())
    return DocumentScores(*names, points, _logarithm(points, scale), steps, _units(groups[complete]), left_out=lost)


def refuse_unnamed(frame: pd.DataFrame, names: Sequence[str]) -> None:
    """Raise UsageError for rows without a value in a grouping column."""
    for name in names:
        missing = int(frame[name].isna().sum())
        if missing:
            raise UsageError(
                f"{name} is missing in {missing} of {len(frame)} rows; fill it, or exclude these rows with --where "
                f"'{name} == {name}'"
            )


def _units(groups: Ints) -> Ints:
    """Return the number of the independent unit of each document: its group, or itself if all are in one group."""
    return groups if groups.max() > 0 else np.arange(len(groups))


def _by_scale(points: pd.DataFrame, scale: str) -> pd.DataFrame:
    if scale not in points.columns:
        raise UsageError(
            f"checkpoints have no column {scale!r}; expected --scale to be one of: "
            f"{', '.join(map(str, points.columns))}"
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
    """Return the mean of values (n,) and Student's interval over independent units; NaN ends for one unit."""
    from scipy.stats import t

    residuals, count = values - values.mean(), int(units.max()) + 1
    if count < 2:
        return Range(float(values.mean()), float("nan"), float("nan"))
    sums = np.bincount(units, residuals)
    error = np.sqrt((sums**2).sum() * count / (count - 1)) / len(values)
    half = float(error * t.ppf((1 + level) / 2, count - 1))
    return Range(float(values.mean()), float(values.mean()) - half, float(values.mean()) + half)


def open_source(
    path: Path,
    registries: Any,
    *,
    run: str | None = None,
    drop_duplicates: bool = False,
    renames: Sequence[str] = (),
    label: str | None = None,
) -> tuple[PointStore | pd.DataFrame, tuple[str, ...]]:
    """Open a store, or read a CSV or Parquet table, with notes on its rows; raise UsageError for another file.

    `renames` are pairs theirs=ours; `run` is the column that identifies runs, `label` the one with names of models;
    `drop_duplicates` keeps one of equal rows of a table.
    """
    from harness.points import Reading, labelled, open_points, read_table, renamed

    if path.is_dir():
        return open_points(path, Reading(renames=renames, label=label, run=run), registries=registries).store, ()
    table, notes = read_table(path, drop_duplicates=drop_duplicates)
    return renamed(table, labelled(renames, label), run=run), notes


def check_scores(documents: DocumentScores) -> tuple[Scores, ...]:
    """Return the scores of all choices; raise MetricError for a table, which has only the steps."""
    if not documents.scores:
        raise MetricError(
            f"{documents.task}: laws of choices need the scores of every choice; pass a store instead of a table"
        )
    return documents.scores
