"""Subsets of tasks: the selected documents, their order and selection probabilities, stored as one JSON file.

A scored subset is a separate task in the store, with its own name: its mean is not that of the task if documents are
not selected uniformly, and curves must not mix the two. `harness estimate` estimates the task from the subset.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import ClassVar

from harness.errors import UsageError, choose
from harness.files import digest_of, write_whole
from harness.tasks.loading import fingerprint
from harness.types import Json, Task


@dataclass(frozen=True)
class Subset:
    """M of the N documents of a task, in the order of their selection.

    `fingerprint` is that of the whole task. `q` (M,) is the probability of each selection among the remaining documents
    (of its stratum, if `strata` (M,) are given). `weights` (M,) are N times the weight of each document in the task's
    mean: 1, unless groups of different sizes are averaged. Documents were selected for `metric` by the method `by` with
    `seed`.
    """

    task: str
    fingerprint: str
    n_items: int
    by: str
    metric: str
    seed: int
    doc_ids: tuple[str, ...]
    q: tuple[float, ...]
    weights: tuple[float, ...]
    strata: tuple[str, ...] = ()

    MARK: ClassVar[str] = "#"  # in the name of a subset, after the name of the task

    def __post_init__(self) -> None:
        n = len(self.doc_ids)
        counts = (n, len(set(self.doc_ids)), len(self.q), len(self.weights), len(self.strata) or n)
        if len(set(counts)) != 1 or not 1 <= len(self.q) <= self.n_items or not all(0 < q <= 1 for q in self.q):
            raise UsageError(
                f"the subset of {self.task} has {n} documents ({counts[1]} different ones) of {self.n_items}, "
                f"{counts[2]} probabilities, {counts[3]} weights and {counts[4]} strata; expected equal numbers and "
                "probabilities in (0, 1]; run harness choose again"
            )

    @property
    def name(self) -> str:
        """Return the name of the subset as a task."""
        return f"{self.task}{self.MARK}{self.by}-{len(self.doc_ids)}-{digest_of(sorted(self.doc_ids))[:6]}"


def take(task: Task, subset: Subset) -> Task:
    """Return the documents of a subset as a task; raise UsageError if it was chosen from other documents."""
    if task.fingerprint != subset.fingerprint:
        raise UsageError(
            f"the subset of {task.name} was chosen from {subset.n_items} other documents (fingerprint "
            f"{subset.fingerprint}; here {len(task.docs)}, {task.fingerprint}); use the --limit and --data of the "
            "store it was chosen from, or run harness choose again"
        )
    chosen = set(subset.doc_ids)
    docs = tuple(doc for doc in task.docs if doc.doc_id in chosen)
    digest = fingerprint(task.kind, task.unconditional, docs, task.generation)
    return replace(task, name=subset.name, docs=docs, fingerprint=digest)


def take_all(tasks: Sequence[Task], subsets: Sequence[Subset]) -> list[Task]:
    """Return the subset of each task; raise UsageError for a task without one."""
    known = {subset.task: subset for subset in subsets}
    without = [task.name for task in tasks if task.name not in known]
    if without:
        raise UsageError(f"there are subsets for {choose(known)}, but not for {choose(without)}; pass the same tasks")
    return [take(task, known[task.name]) for task in tasks]


def save_subsets(subsets: Sequence[Subset], path: Path) -> None:
    """Write subsets, one per task, as JSON."""
    write_whole(path, (json.dumps([asdict(subset) for subset in subsets], indent=1) + "\n").encode())


def load_subsets(path: str | Path) -> list[Subset]:
    """Return the subsets of a file; raise UsageError, naming the file, for any other content."""
    try:
        subsets = [_subset(values) for values in json.loads(Path(path).read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"{path}: {error}; expected a file written by harness choose -o") from error
    if len({subset.task for subset in subsets}) != len(subsets) or not subsets:
        raise UsageError(f"{path} has {len(subsets)} subsets; expected one or more, each of a different task")
    return subsets


def _subset(table: dict[str, Json]) -> Subset:
    named = {field.name for field in fields(Subset)}
    if set(table) != named:
        raise ValueError(f"found the keys {choose(table)}; expected {choose(named)}")
    make: Callable[..., Subset] = Subset
    return make(**{name: tuple(v) if isinstance(v, list) else v for name, v in table.items()})
