"""Tables from a store: the scores of all choices, and points (values of metrics at checkpoints) for laws.

    store = harness.open_store("results")
    store.scores(task="nano_addition", family="aster")      one row per choice
    store.points(task="nano_addition", metrics=["acc"])     one row per checkpoint, task and metric
    store.points(unit="document")                           one row per checkpoint, document and metric

Columns of points: family, size, step, seed, params, params_non_embedding, tokens, flops, flops_convention, loss,
annealed, every feature, task, metric, value, stderr, low, high, n, ties, truncated, chance, engine, dtype, settings,
fingerprint, checkpoint. Points of generated text also have sampling (the settings), drawn and passed (numbers of
samples), and trials with their successes (the number of trials at one rate that has the same standard error).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.columns import renamed
from harness.errors import MetricError, StoreError, UsageError, choose, suggest
from harness.host import default_host
from harness.metrics.aggregation import applicable, evaluate
from harness.metrics.intervals import Z
from harness.metrics.per_document import per_document
from harness.metrics.samples import Samples, Scored
from harness.metrics.scores import Scores
from harness.registries import Registries
from harness.store.cells import Cell, Store
from harness.store.documents import Docs
from harness.store.files import UNREADABLE
from harness.store.identity import CellId
from harness.store.replicates import Replicates
from harness.store.source_metrics import is_of_source, source_metrics
from harness.store.subsets import Subset
from harness.types import Floats, Metric, SourceMetric, Task

UNITS = ("checkpoint", "document", "choice")
KEYS = ["family", "size", "step", "seed"]


class PointStore(Store):
    """A store that returns pandas frames. Open one with `harness.open_store`."""

    def __init__(self, path: str | Path, *, create: bool = False, registries: Registries | None = None) -> None:
        super().__init__(path, create=create)
        self.registries = registries or default_host()

    def select(self, task: str | None = None, family: str | None = None) -> list[Cell]:
        """Return the cells of a task and a family (None: all); raise StoreError if there are none.

        Subsets of tasks are included only by name, because their means are not those of the tasks.
        """
        cells = self.cells()
        wanted = [c for c in cells if (Subset.MARK not in c.task if task is None else c.task == task)]
        chosen = [c for c in wanted if family in (None, c.checkpoint.family)]
        if not chosen:
            raise StoreError(f"{self.path} {_what_is_missing(cells, task, family)}")
        return chosen

    def scores(self, task: str | None = None, family: str | None = None, *, prompts: bool = False) -> pd.DataFrame:
        """Return one row per choice of every document, with checkpoint, task, group and attributes.

        `prompts` adds the text as scored: context, continuation and answer (`harness.printable` makes them
        safe to print). Raises StoreError for tasks with generated text, which `samples` returns.
        """
        cells = [cell for cell in self.select(task, family) if not self.is_sampled(cell.id)]
        if not cells:
            raise StoreError(f"{task or 'every task of the store'} generates text and scores no choices; see samples()")
        frames = [_choice_frame(self, cell, prompts=prompts) for cell in cells]
        return pd.concat(frames, ignore_index=True).sort_values([*KEYS, "task"], kind="stable", ignore_index=True)

    def samples(self, task: str | None = None, family: str | None = None) -> pd.DataFrame:
        """Return one row per generated text: doc_id, sample, sample_seed, text, n_tokens, finish, outcome, detail.

        Raises StoreError if there are none.
        """
        cells = [cell for cell in self.select(task, family) if self.is_sampled(cell.id)]
        if not cells:
            raise StoreError(f"{task or 'every task of the store'} scores choices and generates no text; see scores()")
        return pd.concat([_sample_frame(self, cell) for cell in cells], ignore_index=True)

    def points(
        self,
        task: str | None = None,
        family: str | None = None,
        *,
        metrics: Sequence[str] | None = None,
        unit: str = "checkpoint",
    ) -> pd.DataFrame:
        """Return values of metrics: one row per checkpoint and task, per document, or (without metric) per choice.

        `metrics` defaults to all applicable ones. Raises MetricError if a named metric does not apply to `task`, or to
        any task if `task` is None.
        """
        if unit not in UNITS:
            raise UsageError(f"unit {unit!r}; expected one of {choose(UNITS)}")
        if unit == "choice":
            return self.scores(task, family)
        made = _point if unit == "checkpoint" else _document_frame
        rows: list[Any] = []
        for cell in self.select(task, family):
            scores = self.load_any(cell.id)
            for metric in self._metrics(metrics, scores, named_task=task is not None):
                rows.append(made(self, cell, metric, scores))  # noqa: PERF401  # two loops read better than one expression
            for found in self._of_source(cell, metrics, named_task=task is not None):
                rows += _of_source(self, cell, found, scores, unit)
        if not rows:
            raise MetricError(f"the metrics {choose(metrics or ())} apply to no task in {self.path}")
        frame = _frame(rows) if unit == "checkpoint" else pd.concat(rows, ignore_index=True)
        return frame.sort_values([*KEYS, "task", "metric"], kind="stable", ignore_index=True)

    def replicates(
        self, points: pd.DataFrame, names: Sequence[str], count: int, rng: np.random.Generator
    ) -> dict[str, Floats]:
        """Return metrics of wide points in resamples of their documents: (count, n) each.

        All checkpoints of a task share the resamples, because they share the documents. Names that are not metrics
        (such as a loss from a family file) are omitted.
        """
        metrics: list[Metric] = [self.registries.metrics[name] for name in names if name in self.registries.metrics]
        columns = points[["checkpoint", "fingerprint", "settings"]].itertuples(index=False)
        return self._replicates.of([CellId(*ids) for ids in columns], metrics, count, rng)

    @cached_property
    def _replicates(self) -> Replicates:
        return Replicates(self.load_any, lambda fingerprint: str(self.task_meta[fingerprint]["average"]))

    def answers(self, cell: CellId) -> Scores | tuple[tuple[str | None, ...], ...]:
        """Return the scores of a cell, or the texts of each of its documents: what the source of a task measures."""
        if not self.is_sampled(cell):
            return self.load(cell)
        rows = self.read_samples(cell.name)
        texts: list[list[str | None]] = [[] for _ in self.docs(cell.fingerprint).doc_ids]
        for i in np.lexsort((rows["sample"], rows["doc"])):
            texts[rows["doc"][i]].append(rows["text"][i])
        return tuple(map(tuple, texts))

    def _of_source(self, cell: Cell, names: Sequence[str] | None, *, named_task: bool) -> list[SourceMetric]:
        fingerprint = cell.id.fingerprint
        source = self.task_meta[fingerprint].get("source")

        def read() -> tuple[Task, Any]:
            return self.task(fingerprint), self.answers(cell.id)

        return source_metrics(cell.task, source, self.registries, read, names, named_task=named_task)

    def _metrics(self, names: Sequence[str] | None, scores: Scored, *, named_task: bool) -> list[Metric]:
        applied = applicable(scores, self.registries)
        if names is None:
            return applied
        wanted: list[Metric] = [self.registries.metrics[name] for name in names if not is_of_source(name)]
        return wanted if named_task else [metric for metric in wanted if metric in applied]


def open_store(path: str | Path, *, create: bool = False, registries: Registries | None = None) -> PointStore:
    """Open a store; raise StoreError for a folder that is none, unless `create`."""
    return PointStore(path, create=create, registries=registries)


@dataclass(frozen=True)
class Read:
    """Points read from a store or table: with the task's metric and the store, if any, and notes on the rows."""

    points: pd.DataFrame
    metric: str | None = None
    store: PointStore | None = None
    notes: tuple[str, ...] = ()


def read_points(
    path: Path,
    task: str | None,
    metrics: Sequence[str | None],
    registries: Registries,
    *,
    drop_duplicates: bool = False,
) -> Read:
    """Read the points of a store or of a CSV or Parquet file.

    The first of `metrics` must apply to the task of a store; others are omitted if they do not apply. `drop_duplicates`
    keeps one of equal rows of a file; a store has none.
    """
    if path.is_dir():
        store = open_store(path, registries=registries)
        cells = store.select(task)
        tasks = sorted({cell.task for cell in cells})
        if len(tasks) > 1:
            raise UsageError(f"{path} has {len(tasks)} tasks; choose one with --task: {choose(tasks)}")
        own = next(meta["metric"] for meta in store.task_meta.values() if meta["name"] == tasks[0])
        there = {metric.name for metric in applicable(store.load_any(cells[0].id), registries)}
        known = [name for name in [own, *metrics[:1]] if name and (name in registries.metrics or is_of_source(name))]
        names = {*known, *there.intersection(metrics[1:])}
        return Read(store.points(tasks[0], metrics=sorted(names)), own, store)
    table, notes = read_table(path, drop_duplicates=drop_duplicates)
    if task and "task" in table.columns:
        table = table[table["task"] == task]
    return Read(table, notes=notes)


def checkpoint_columns(cell: Cell) -> dict[str, Any]:
    """Return the attributes of a cell's checkpoint and settings, one column each."""
    known = asdict(cell.checkpoint)
    features, _, _ = known.pop("features"), known.pop("source"), known.pop("bos")
    adapter = known.pop("adapter")
    how = {"sampling": " ".join(f"{name}={value}" for name, value in cell.settings.sampling.items())}
    return {
        **known,
        **renamed(features, "feature_"),  # refused since 0.2, but a store of 0.1 may have one
        **(how if cell.settings.sampling else {}),
        **({"adapter": adapter} if adapter else {}),
        "task": cell.task,
        "engine": cell.settings.engine,
        "dtype": cell.settings.dtype,
        "settings": cell.id.settings,
        "fingerprint": cell.id.fingerprint,
        "checkpoint": cell.id.checkpoint,
    }


def _choice_frame(store: PointStore, cell: Cell, *, prompts: bool) -> pd.DataFrame:
    scores, docs = store.load(cell.id), store.docs(cell.id.fingerprint)
    optional = {"logprob_unconditional": scores.logprob_unconditional, "is_greedy": scores.is_greedy}
    frame = pd.DataFrame(
        {
            "doc_id": scores.doc_ids[scores.doc],
            "group": scores.group[scores.doc],
            "choice": np.arange(len(scores.doc)) - scores.first[scores.doc],
            "is_gold": scores.is_gold,
            "logprob": scores.logprob,
            "n_tokens": scores.n_tokens,
            "n_chars": scores.n_chars,
            "n_bytes": scores.n_bytes,
            "truncated": scores.truncated,
            **{name: column for name, column in optional.items() if column is not None},
            **(docs.prompts if prompts else {}),
        }
    )
    attributes = _attributes(docs, scores.doc).rename(columns=lambda name: f"doc_{name}" if name in frame else name)
    return _labelled(pd.concat([frame, attributes], axis=1), cell)


def _sample_frame(store: PointStore, cell: Cell) -> pd.DataFrame:
    docs = store.docs(cell.id.fingerprint)
    frame = pd.DataFrame(store.read_samples(cell.id.name))
    frame.insert(0, "doc_id", docs.doc_ids[frame["doc"]])
    frame = frame.sort_values(["doc", "sample"], kind="stable", ignore_index=True)
    frame = frame.rename(columns={"seed": "sample_seed"})
    return _labelled(pd.concat([frame.drop(columns="doc"), _attributes(docs, frame["doc"])], axis=1), cell)


def _document_frame(store: PointStore, cell: Cell, metric: Metric, scores: Scored) -> pd.DataFrame:
    """Return one row per document; the value of a ratio is that of the single document."""
    columns = per_document(metric, scores).columns
    value = columns[0] / columns[1] if metric.aggregate in {"ratio", "exp_ratio"} else columns[0]
    frame = pd.DataFrame({"metric": metric.name, "doc_id": scores.doc_ids, "group": scores.group, "value": value})
    docs = store.docs(cell.id.fingerprint)
    return _labelled(pd.concat([frame, _attributes(docs, np.arange(len(scores)))], axis=1), cell)


def _point(store: PointStore, cell: Cell, metric: Metric, scores: Scored) -> dict[str, Any]:
    """Return a row of points as a dict, because one frame per row is slow."""
    average = store.task_meta[cell.id.fingerprint]["average"]
    point = {
        "metric": metric.name,
        **asdict(evaluate(metric, scores, average)),
        "truncated": scores.n_truncated,
        "chance": scores.chance if scores.offers & {"choices", "samples"} else np.nan,
    }
    if isinstance(scores, Samples):
        point |= _counts(scores, point["value"], point["stderr"])
        if metric.name == "pass_rate" and not point["passed"]:
            point["high"] = scores.most
    known = checkpoint_columns(cell)
    return known | {f"doc_{name}" if name in known else name: value for name, value in point.items()}


def _of_source(
    store: PointStore, cell: Cell, found: SourceMetric, scores: Scored, unit: str
) -> list[dict[str, Any] | pd.DataFrame]:
    """Return a row of points for a metric of the task's source, or a row a document where it has a value for each."""
    if unit == "checkpoint":
        known = {"metric": found.name, "value": found.value, "stderr": found.stderr, "n": found.n}
        wide = Z * found.stderr
        bounds = {"low": found.value - wide, "high": found.value + wide, "truncated": scores.n_truncated}
        chance = scores.chance if scores.offers & {"choices", "samples"} else np.nan
        return [checkpoint_columns(cell) | known | bounds | {"chance": chance}]
    if found.values is None:
        return []
    columns = {"metric": found.name, "doc_id": scores.doc_ids, "group": scores.group, "value": found.values}
    docs = store.docs(cell.id.fingerprint)
    return [_labelled(pd.concat([pd.DataFrame(columns), _attributes(docs, np.arange(len(scores)))], axis=1), cell)]


def _frame(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return rows as a frame; missing entries are NaN, and None is kept."""
    names = dict.fromkeys(name for row in rows for name in row)
    return pd.DataFrame({name: _column([row.get(name, np.nan) for row in rows]) for name in names})


def _column(values: list[Any]) -> pd.Series[Any]:
    return pd.Series(values, dtype="object") if any(value is None for value in values) else pd.Series(values)


def _counts(samples: Samples, rate: float, stderr: float) -> dict[str, int]:
    """Return the numbers of drawn and passed samples, and the effective number of trials with their successes.

    Pass rates differ between documents, and sampling until some pass draws most samples of documents with low rates.
    The effective number of trials is that of trials at one rate with the same standard error. It is the number of
    samples if none or all passed.
    """
    drawn, passed = int(samples.drawn.sum()), int(samples.passed.sum())
    trials = max(round(rate * (1 - rate) / stderr**2), 1) if 0 < rate < 1 and stderr > 0 else drawn
    return {"drawn": drawn, "passed": passed, "successes": round(rate * trials), "trials": trials}


def _attributes(docs: Docs, which: Any) -> pd.DataFrame:
    """Return the attributes of some documents, one row each; reserved names become doc_NAME."""
    rows = [renamed(attributes, "doc_") for attributes in docs.attributes]
    found: pd.DataFrame = pd.DataFrame(rows).iloc[which].reset_index(drop=True)
    return found


def _labelled(frame: pd.DataFrame, cell: Cell) -> pd.DataFrame:
    """Add the columns of the checkpoint before those of the frame."""
    known = checkpoint_columns(cell)
    left = pd.DataFrame({name: [value] * len(frame) for name, value in known.items()})
    clashes = set(left) & set(frame)
    return pd.concat([left, frame.rename(columns={name: f"doc_{name}" for name in clashes})], axis=1)


def read_table(path: Path, *, drop_duplicates: bool = False) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return a CSV or Parquet table with notes; `drop_duplicates` keeps one of rows equal in every column.

    Raises UsageError for any other file.
    """
    try:
        table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (*UNREADABLE, AttributeError, IndexError, MemoryError, OverflowError, RecursionError, SyntaxError) as error:
        raise UsageError(f"{path}: {error}; expected a store, or a CSV or Parquet table") from error
    twice = table.duplicated() if drop_duplicates else pd.Series(False, index=table.index)
    if not twice.any():
        return table, ()
    dropped = f"{int(twice.sum())} of {len(table)} rows are equal to others in every column and were dropped"
    return table[~twice].reset_index(drop=True), (dropped,)


def _what_is_missing(cells: Sequence[Cell], task: str | None, family: str | None) -> str:
    """Say why no cell is of a task and a family, and what to name instead."""
    tasks, families = {c.task for c in cells}, {c.checkpoint.family for c in cells}
    if task is not None and task not in tasks:
        return f"holds no records of task {task!r}; {suggest(task, tasks)}"
    if family is not None and family not in families:
        return f"holds no records of family {family!r}; {suggest(family, families)}"
    where = f" of task {task or '(any)'} and family {family or '(any)'}" if task or family else ""
    return f"holds no records{where}; it holds tasks {choose(tasks)} of families {choose(families)}"
