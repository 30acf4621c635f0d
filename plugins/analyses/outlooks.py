"""What the small checkpoints of a store expect of every document of a task, and the values that metrics have there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness import Floats, Ints, Samples, Scores, UsageError
from harness.errors import choose
from harness_plugins.analyses.items import refuse_doubles
from harness_plugins.analyses.picks import Outlook, bins

if TYPE_CHECKING:
    import pandas as pd

    from harness import PointStore


@dataclass(frozen=True)
class Pool:
    """The N documents of a task, and M checkpoints that scored all of them: `points` has a row for each.

    `values` (M, N) are those of the metric, `expected` (M, N) what a checkpoint expects them to be: the probability of
    the right choice among the choices, where the metric says 0 or 1.
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

    def outlook(self, rows: Ints) -> Outlook:
        """Return what some checkpoints expect."""
        return Outlook(self.loss(self.expected[rows]), self.weights)

    def loss(self, values: Floats) -> Floats:
        """Return values as losses: 1 minus a score of 0 to 1, minus another score that is better when higher."""
        if not self.rises:
            return values
        return self.best - values

    @property
    def best(self) -> float:
        """Return the value of a loss of 0."""
        return best(self.values, self.rises)

    def largest(self, where: str | None, rungs: int) -> Ints:
        """Return the rows of the last checkpoints of the `rungs` largest sizes of each family for which `where` holds.

        Raises UsageError where there are none.
        """
        from harness.points import ends, largest, query

        points = query(self.points, where) if where else self.points
        found = points.index[ends(points) & largest(points, rungs)].to_numpy()
        if not len(found):
            raise UsageError(f"{self.task}: no checkpoint is left of those that scored it; change --where {where!r}")
        return np.asarray(found, dtype=np.int64)


def best(values: Floats, rises: bool) -> float:
    """Return the value of a loss of 0: 1 for a score of 0 to 1, else 0."""
    return 1.0 if rises and values.min() >= 0 and values.max() <= 1 else 0.0


def read_pools(store: PointStore, task: str | None, metric: str | None) -> Iterator[Pool]:
    """Yield every task of a store for which a metric (the task's own by default) is a mean over documents.

    Raises UsageError where none is, and StoreError where a checkpoint has scored a task twice.
    """
    cells: dict[str, list[Any]] = {}
    for cell in store.select(task):
        cells.setdefault(cell.id.fingerprint, []).append(cell)
    left, there = [], False
    for fingerprint, own in sorted(cells.items(), key=lambda item: (item[1][0].task, item[0])):
        name = metric or store.task_meta[fingerprint]["metric"]
        if not is_mean(store, name, store.load_any(own[0].id)):
            left.append(f"{own[0].task} ({name})")
            continue
        there = True
        yield _pool(store, own, name)
    if not there:
        raise UsageError(f"a subset tells a metric that is a mean over documents; found {choose(left)}; see --metric")


def is_mean(store: PointStore, name: str, scores: Scores | Samples) -> bool:
    """Say whether a metric applies to scores and is the mean of values of single documents."""
    metric = store.registries.metrics[name]
    return metric.aggregate == "mean" and set(metric.needs) <= scores.offers


def values_of(store: PointStore, name: str, scores: Scores | Samples) -> Floats:
    """Return the value of a metric on every document (N,)."""
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
    values = np.stack([values_of(store, name, one) for one in scores])
    soft = bool(np.isin(values, (0.0, 1.0)).all()) and is_mean(store, "p_choices", scores[0])
    fingerprint = cells[0].id.fingerprint
    return Pool(
        cells[0].task,
        fingerprint,
        name,
        tuple(map(str, scores[0].doc_ids)),
        _weights(scores[0].group, store.task_meta[fingerprint]["average"]),
        points,
        values,
        np.stack([values_of(store, "p_choices", one) for one in scores]) if soft else values,
        store.registries.metrics[name].higher_is_better,
    )


def _weights(group: Any, average: str) -> Floats:
    """Return N times the weight of each document in the task's mean (N,)."""
    _, numbers, counts = np.unique(group.astype(str), return_inverse=True, return_counts=True)
    return np.asarray(len(numbers) / (len(counts) * counts[numbers])) if average == "macro" else np.ones(len(numbers))


def strata_of(store: PointStore, pool: Pool, outlook: Outlook, column: str | None) -> tuple[Ints, list[str]]:
    """Return the stratum (N,) of each document and the names of strata: a column's values, or fifths of the loss.

    :param column: group, or an attribute of documents; None for fifths of the predicted loss.

    Raises UsageError for a column that documents do not have.
    """
    if column is None:
        numbers = bins(outlook.predicted)
        return numbers, [f"{number + 1}" for number in range(numbers.max() + 1)]
    docs = store.docs(pool.fingerprint)
    labels = [{"group": group, **own}.get(column) for group, own in zip(docs.group, docs.attributes, strict=True)]
    if all(label is None for label in labels):
        known = ["group", *sorted({name for own in docs.attributes for name in own})]
        raise UsageError(f"{pool.task}: documents have no {column!r}; stratify by one of {choose(known)}, or by none")
    names, numbers = np.unique([str(label) for label in labels], return_inverse=True)
    return np.asarray(numbers, dtype=np.int64), [str(name) for name in names]
