"""How near subsets would have come: checkpoints that scored everything, estimated again and again from few documents.

The largest size of each family is the target; what says which documents matter are the largest sizes below.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness import Floats, Ints, Measured, Table, UsageError
from harness_plugins.analyses import picks
from harness_plugins.analyses.outlooks import Pool, read_pools, strata_of
from harness_plugins.analyses.picks import WAYS, Outlook

if TYPE_CHECKING:
    from harness import PointStore

SIZES = (25, 50, 100, 200, 400)


@dataclass(frozen=True)
class Target:
    """A checkpoint that scored all N documents of a task: losses (N,), strata (N,), what was expected of them."""

    pool: Pool
    row: int
    losses: Floats
    outlook: Outlook
    strata: Ints

    @property
    def variance(self) -> float:
        """Return the variance of the losses of single documents."""
        return float(self.losses.var(ddof=1))


@dataclass(frozen=True)
class Trial:
    """How one way to choose `size` documents did on a target: squared errors (R,), and whether intervals held (R,)."""

    target: Target
    way: str
    size: int
    squared: Floats
    held: Floats

    @property
    def worth(self) -> float:
        """Return how many documents, picked evenly, have the same mean squared error.

        The error of n' even picks is (1 / n' - 1 / N) S^2 (Cochran 1977, eq. 2.14).
        """
        return float(1 / (1 / len(self.target.losses) + self.squared.mean() / self.target.variance))


def rehearse(
    store: PointStore,
    sizes: Sequence[int] = SIZES,
    *,
    task: str | None = None,
    metric: str | None = None,
    where: str | None = None,
    target: str | None = None,
    rungs: int = 1,
    strata: str | None = None,
    uniform: float = 0.2,
    draws: int = 400,
    level: float = 0.95,
    seed: int = 0,
) -> list[Table]:
    """Return tables of how near subsets of `sizes` documents come to the mean over all, by every way to choose them.

    :param target: an expression that chooses the checkpoints to estimate; by default the last one of the largest size
        of each family. What is smaller than all of them says which documents matter.

    The other parameters are those of `choose`. The tables: `active` (errors, and whether intervals hold the truth, for
    each number of documents) and `active_tasks` (how many documents it takes until the error is as small as the
    standard error of the whole task). Raises UsageError where no target or no smaller checkpoint is left, or no size is
    below the number of documents.
    """
    rng = np.random.default_rng(seed)
    pools = list(read_pools(store, task, metric))
    known = [_targets(store, pool, where=where, target=target, rungs=rungs, strata=strata) for pool in pools]
    found = [one for own in known for one in own]
    told = [one for one in found if one.variance > 0]
    if not told:
        raise UsageError("on every target all documents have the same loss, so that one document would do")
    trials = [
        trial
        for one in told
        for way in WAYS
        for trial in _trials(one, way, sizes=sizes, uniform=uniform, draws=draws, level=level, rng=rng)
    ]
    if not trials:
        most = max(len(one.losses) for one in told)
        sizes_found = ", ".join(map(str, sizes))
        raise UsageError(f"a subset is smaller than its task, {most} documents at the most; found --n {sizes_found}")
    same = [f"{one.pool.task} {_label(one)}" for one in found if not one.variance]
    notes = (f"Left out, as all documents have the same loss: {', '.join(same)}.",) if same else ()
    return [_by_size(trials, draws, level, notes), _by_task(trials, notes)]


def _targets(
    store: PointStore, pool: Pool, *, where: str | None, target: str | None, rungs: int, strata: str | None
) -> Iterator[Target]:
    rows = pool.largest(target, 1)
    params = pool.points["params"]
    below = f"params < {params[rows].min():.0f}"
    outlook = pool.outlook(pool.largest(f"({where}) and {below}" if where else below, rungs))
    numbers, _ = strata_of(store, pool, outlook, strata)
    for row in rows:
        yield Target(pool, int(row), pool.weights * pool.loss(pool.values[row]), outlook, numbers)


def _trials(
    target: Target,
    way: str,
    *,
    sizes: Sequence[int],
    uniform: float,
    draws: int,
    level: float,
    rng: np.random.Generator,
) -> Iterator[Trial]:
    n, truth = len(target.losses), target.losses.mean()
    strata = target.strata if way == "strata" else None
    for size in sizes:
        if size >= n:
            continue
        drawn = picks.pick(target.outlook, way, size, strata=strata, uniform=uniform, count=draws, rng=rng)
        value, low, high = picks.estimate(target.losses[drawn.documents], drawn, n, by=way, level=level)
        yield Trial(target, way, size, (value - truth) ** 2, (low <= truth + 1e-9) & (truth - 1e-9 <= high))


def _by_size(trials: Sequence[Trial], draws: int, level: float, notes: tuple[str, ...]) -> Table:
    rows = []
    for size in sorted({trial.size for trial in trials}):
        for way in WAYS:
            own = [trial for trial in trials if (trial.size, trial.way) == (size, way)]
            worth = np.array([trial.worth for trial in own])
            error = np.sqrt(np.mean([trial.squared.mean() for trial in own]))
            held = np.concatenate([trial.held for trial in own])
            rows.append(
                (
                    *(size, way, len(own), float(error)),
                    Measured(float(held.mean()), float(held.std() / np.sqrt(held.size))),
                    min(float(trial.held.mean()) for trial in own),
                    *(float(np.exp(np.log(worth).mean())), float(worth.min()), float(worth.max())),
                )
            )
    columns = ("documents", "by", "targets", "error", "held", "held least", "worth", "worth least", "worth most")
    about = (
        f"error: root mean squared, of {draws} subsets of every target, against the mean over all documents. held: the "
        f"share of {level:.0%} intervals that hold it; least: on the target where fewest do. worth: as many documents "
        "picked evenly have the same error (geometric mean over targets; least and most)."
    )
    return Table("active", "How near subsets come to all documents", columns, tuple(rows), (about, *notes))


def _by_task(trials: Sequence[Trial], notes: tuple[str, ...]) -> Table:
    rows = []
    for target in dict.fromkeys(id(trial.target) for trial in trials):
        own = [trial for trial in trials if id(trial.target) == target]
        one, n = own[0].target, len(own[0].target.losses)
        value = float(one.pool.values[one.row] @ one.pool.weights / n)
        error = float(np.sqrt(one.variance / n))
        needed = [_needed([trial for trial in own if trial.way == way], n) for way in WAYS]
        rows.append((one.pool.task, _label(one), one.pool.metric, n, Measured(value, error), *needed))
    columns = ("task", "target", "metric", "all", "value", *WAYS)
    about = (
        "all: documents of the whole task, whose value has the standard error beside it. Under each way to choose: how "
        "many documents bring the error of a subset down to that standard error; half of all, where they are picked "
        "evenly. Between the numbers of documents tried, and beyond, what a document is worth is interpolated."
    )
    return Table("active_tasks", "Documents that tell as much as all", columns, tuple(rows), (about, *notes))


def _needed(trials: Sequence[Trial], n: int) -> int:
    """Return the least number of documents that are worth N / 2 even picks, which have the error S / sqrt(N)."""
    each = [trial.worth / trial.size for trial in trials]
    counts = np.arange(1, n + 1)
    worth = counts * np.interp(np.log(counts), np.log([trial.size for trial in trials]), each)
    enough = np.flatnonzero(worth >= n / 2)
    return int(counts[enough[0]]) if len(enough) else n


def _label(target: Target) -> str:
    row = target.pool.points.iloc[target.row]
    return f"{row['family']} {row['size']}"
