"""Subsets of tasks: which documents were picked, in which order, with which probability; kept as one JSON file.

A subset scored on a checkpoint is a task of its own in the store, under a name of its own: the mean over documents that
were not picked evenly is not the task's, and no curve may mix the two. `harness estimate` says what it tells.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar

from harness.errors import UsageError, choose
from harness.files import digest_of, write_whole
from harness.tasks.loading import fingerprint
from harness.types import Task


@dataclass(frozen=True)
class Subset:
    """M of the N documents of a task, in the order in which they were picked.

    `fingerprint` is that of the whole task; `q` (M,) is the probability with which each document was picked among
    those that remained then (in its stratum, where `strata` (M,) names some); `weights` (M,) are N times the weight of
    each document in the task's mean: 1, unless groups of different sizes are averaged. `by` and `seed` say how
    documents were picked, `metric` which value they were picked for.
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

    MARK: ClassVar[str] = "#"  # in the name of a task that is a subset, between the task and what was picked of it

    def __post_init__(self) -> None:
        n = len(self.doc_ids)
        found = (n, len(set(self.doc_ids)), len(self.q), len(self.weights), len(self.strata) or n)
        if len(set(found)) != 1 or not 1 <= len(self.q) <= self.n_items or not all(0 < q <= 1 for q in self.q):
            raise UsageError(
                f"the subset of {self.task} has {n} documents ({found[1]} different ones) of {self.n_items}, "
                f"{found[2]} probabilities, {found[3]} weights and {found[4]} strata; expected as many of each, and "
                "probabilities in (0, 1]: choose again"
            )

    @property
    def name(self) -> str:
        """Return the name of the task that the picked documents are."""
        return f"{self.task}{self.MARK}{self.by}-{len(self.doc_ids)}-{digest_of(sorted(self.doc_ids))[:6]}"


def take(task: Task, subset: Subset) -> Task:
    """Return the documents of a subset as a task; raise UsageError where it was chosen from other documents."""
    if task.fingerprint != subset.fingerprint:
        raise UsageError(
            f"the subset of {task.name} was chosen from {subset.n_items} other documents (fingerprint "
            f"{subset.fingerprint}; here are {len(task.docs)}, {task.fingerprint}): use the --limit and --data of the "
            "store it was chosen from, or choose again"
        )
    chosen = set(subset.doc_ids)
    docs = tuple(doc for doc in task.docs if doc.doc_id in chosen)
    own = fingerprint(task.kind, task.unconditional, docs, task.generation)
    return replace(task, name=subset.name, docs=docs, fingerprint=own)


def take_all(tasks: Sequence[Task], subsets: Sequence[Subset]) -> list[Task]:
    """Return the subset of each task; raise UsageError for a task without one."""
    known = {subset.task: subset for subset in subsets}
    without = [task.name for task in tasks if task.name not in known]
    if without:
        raise UsageError(f"the subsets are of {choose(known)}, not of {choose(without)}; name the same tasks")
    return [take(task, known[task.name]) for task in tasks]


def save_subsets(subsets: Sequence[Subset], path: Path) -> None:
    """Keep subsets, one a task, as JSON."""
    write_whole(path, (json.dumps([asdict(subset) for subset in subsets], indent=1) + "\n").encode())


def load_subsets(path: str | Path) -> list[Subset]:
    """Return the subsets of a file; raise UsageError, naming the file, where it holds something else."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        subsets = [_subset(one) for one in found]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"{path}: {error}; expected a file that harness choose -o made") from error
    if len({subset.task for subset in subsets}) != len(subsets) or not subsets:
        raise UsageError(f"{path} has {len(subsets)} subsets; expected some, each of another task")
    return subsets


def _subset(found: dict[str, Any]) -> Subset:
    named = {field.name for field in fields(Subset)}
    if set(found) != named:
        raise ValueError(f"found {choose(found)} where {choose(named)} should be")
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in found.items()}
    return Subset(**values)
