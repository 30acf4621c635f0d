"""Values and predicted losses of every document of a task on the small checkpoints of a store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness import Floats, Ints, Samples, Scores, UsageError
from harness.errors import choose
from harness_plugins.analyses.document_scores import refuse_doubles
from harness_plugins.analyses.selection import PredictedLosses, quintiles

if TYPE_CHECKING:
    import pandas as pd

    from harness import PointStore


@dataclass(frozen=True)
class Pool:
    """The N documents of a task and the M checkpoints that scored all of them, one row of `points` per checkpoint.

    `values` (M, N) are the values of the metric. `expected` (M, N) are their expectations: p_choices for a metric
    that is 0 or 1, else the values.
    """

    task: str
    fingerprint: str
    metric: str
    doc_ids: tuple[str, ...]
    weights: Floats
    points: pd.DataFrame
    values: Floats
    expected: Floats
    rises: bool

    def predicted_losses(self, rows: Ints) -> PredictedLosses:
        """Return the losses that some checkpoints predict."""
        return PredictedLosses(self.loss(self.expected[rows]), self.weights)

    def loss(self, values: Floats) -> Floats:
        """Return values as losses: 1 minus a score in [0, 1], else the negative of the score if higher is better."""
        if not self.rises:
            return values
        return self.best - values

    @property
    def best(self) -> float:
        """Return the value that corresponds to a loss of 0."""
        return best(self.values, self.rises)

    def largest(self, where: str | None, rungs: int) -> Ints:
        """Return the rows of the last checkpoints of the `rungs` largest sizes of each family that match `where`.

        Raises UsageError if none matches.
        """
        from harness.points import ends, largest, query

        points = query(self.points, where)
        rows = points.index[ends(points) & largest(points, rungs)].to_numpy()
        if not len(rows):
            raise UsageError(f"{self.task}: no checkpoint that scored the task matches {where!r}; change --where")
        return np.asarray(rows, dtype=np.int64)


def best(values: Floats, rises: bool) -> float:
    """Return the value that corresponds to a loss of 0: 1 for a score in [0, 1], else 0."""
    return 1.0 if rises and values.min() >= 0 and values.max() <= 1 else 0.0


def read_pools(store: PointStore, task: str | None, metric: str | None) -> Iterator[Pool]:
    """Yield the pool of every task whose metric (default: the task's) is a mean over documents.

    Raises UsageError if no task has such a metric, and StoreError if a checkpoint has scored a task twice.
    """
    cells: dict[str, list[Any]] = {}
    for cell in store.select(task):
        cells.setdefault(cell.id.fingerprint, []).append(cell)
    skipped, any_pool = [], False
    for fingerprint, same_task in sorted(cells.items(), key=lambda item: (item[1][0].task, item[0])):
        name = metric or store.task_meta[fingerprint]["metric"]
        if not is_mean(store, name, store.load_any(same_task[0].id)):
            skipped.append(f"{same_task[0].task} ({name})")
            continue
        any_pool = True
        yield _pool(store, same_task, name)
    if not any_pool:
        raise UsageError(f"subsets need a metric that is a mean over documents; found {choose(skipped)}; pass --metric")


def is_mean(store: PointStore, name: str, scores: Scores | Samples) -> bool:
    """Return whether a metric applies to scores and is a mean of values per document."""
    metric = store.registries.metrics[name]
    return metric.aggregate == "mean" and set(metric.needs) <= scores.offers


def values_of(store: PointStore, name: str, scores: Scores | Samples) -> Floats:
    """Return the value of a metric for every document (N,)."""
    from harness.points import per_document

    return per_document(store.registries.metrics[name], scores).columns[0]


def _pool(store: PointStore, cells: list[Any], name: str) -> Pool:
    import pandas as pd

    from harness.points import checkpoint_columns

    points = pd.DataFrame([checkpoint_columns(cell) for cell in cells]).assign(cell=range(len(cells)))
    points = points.sort_values(["family", "params", "size", "seed", "tokens", "step"], kind="stable")
    refuse_doubles(points, cells[0].task)
    points = points.reset_index(drop=True)
    scores = [store.load_any(cells[i].id) for i in points["cell"]]
    values = np.stack([values_of(store, name, cell) for cell in scores])
    use_p_choices = bool(np.isin(values, (0.0, 1.0)).all()) and is_mean(store, "p_choices", scores[0])
    fingerprint = cells[0].id.fingerprint
    return Pool(
        cells[0].task,
        fingerprint,
        name,
        tuple(map(str, scores[0].doc_ids)),
        _weights(scores[0].group, store.task_meta[fingerprint]["average"]),
        points,
        values,
        np.stack([values_of(store, "p_choices", cell) for cell in scores]) if use_p_choices else values,
        store.registries.metrics[name].higher_is_better,
    )


def _weights(group: Any, average: str) -> Floats:
    """Return N times the weight of each document in the task's mean (N,)."""
    _, numbers, counts = np.unique(group.astype(str), return_inverse=True, return_counts=True)
    return np.asarray(len(numbers) / (len(counts) * counts[numbers])) if average == "macro" else np.ones(len(numbers))


def strata_of(store: PointStore, pool: Pool, predicted: PredictedLosses, column: str | None) -> tuple[Ints, list[str]]:
    """Return the stratum (N,) of each document and the names of the strata.

    :param column: group, or an attribute of documents; None for quintiles of the predicted loss.

    Raises UsageError for a column that the documents lack.
    """
    if column is None:
        numbers = quintiles(predicted.mean)
        return numbers, [f"{number + 1}" for number in range(numbers.max() + 1)]
    docs = store.docs(pool.fingerprint)
    labels = [
        {"group": group, **attributes}.get(column)
        for group, attributes in zip(docs.group, docs.attributes, strict=True)
    ]
    if all(label is None for label in labels):
        known = ["group", *sorted({name for attributes in docs.attributes for name in attributes})]
        raise UsageError(
            f"{pool.task}: documents have no {column!r}; expected one of {choose(known)}, or omit --strata"
        )
    names, numbers = np.unique([str(label) for label in labels], return_inverse=True)
    return np.asarray(numbers, dtype=np.int64), [str(name) for name in names]
