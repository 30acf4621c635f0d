"""Ways to pick documents: evenly, in strata, or more often where small checkpoints say that they matter more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from harness import Floats, Ints, UsageError
from harness_plugins.analyses.estimators import Ends, lures
from harness_plugins.analyses.shares import shares, stratified, widened

BINS = 5  # strata of the predicted loss
FEWEST = 2  # documents of a stratum, below which it has no variance


@dataclass(frozen=True)
class Outlook:
    """What K small checkpoints expect of the N documents of a task.

    `losses` (K, N) are >= 0, 0 being perfect; `weights` (N,) are N times the weight of each document in the mean.
    """

    losses: Floats
    weights: Floats

    @property
    def predicted(self) -> Floats:
        """Return the predicted loss (N,): the mean over checkpoints."""
        return np.asarray(self.losses.mean(axis=0))


@dataclass(frozen=True)
class Picks:
    """Documents (R, M) of R subsets in the order of their picks, the probability of each then (R, M), and strata (M,)
    of `sizes` (H,) where there are any.
    """

    documents: Ints
    q: Floats
    strata: Ints | None = None
    sizes: Ints | None = None


def predicted_loss(outlook: Outlook) -> Floats:
    """Return how much a document adds to the mean loss, as predicted (Kossen et al. 2021, eq. 9)."""
    return outlook.weights * outlook.predicted


def disagreement(outlook: Outlook) -> Floats:
    """Return by how much checkpoints differ on a document (N,): the standard deviation of their losses."""
    if len(outlook.losses) < 2:
        raise UsageError("1 checkpoint disagrees with none; let more count with --rungs or --where, or pick by loss")
    return np.asarray(outlook.weights * outlook.losses.std(axis=0))


def evenly(outlook: Outlook) -> Floats:
    """Return the same for every document (N,)."""
    return np.ones_like(outlook.weights)


ACQUISITIONS: dict[str, Callable[[Outlook], Floats]] = {
    "random": evenly,
    "loss": predicted_loss,
    "disagreement": disagreement,
}
WAYS = (*ACQUISITIONS, "strata")


def probabilities(acquired: Floats, uniform: float) -> Floats:
    """Return the probability (N,) of a first pick: in proportion to what is acquired, with a share of even picks.

    The share bounds the weight of a document that small checkpoints get right and the large one gets wrong by
    1 / uniform (a defensive mixture, Hesterberg 1995).
    """
    n, total = len(acquired), acquired.sum()
    return uniform / n + (1 - uniform) * (acquired / total if total > 0 else np.full(n, 1 / n))


def draw(first: Floats, size: int, *, count: int, rng: np.random.Generator) -> Picks:
    """Draw `count` subsets of `size` documents one by one without replacement, in proportion to `first` (N,).

    The least of exponential times with these rates is the next pick (Efraimidis and Spirakis 2006).
    """
    order = np.argsort(rng.exponential(size=(count, len(first))) / first, axis=1)
    left = np.cumsum(first[order][:, ::-1], axis=1)[:, ::-1]  # summed from the last pick on: never less than the pick
    documents = order[:, :size]
    return Picks(documents, first[documents] / left[:, :size])


def allocate(sizes: Ints, size: int) -> Ints:
    """Share out `size` documents among strata of `sizes` (H,) in proportion, at least two each.

    Raises UsageError where there are too few documents for two of each.
    """
    fewest = np.minimum(sizes, FEWEST)
    if size < fewest.sum():
        raise UsageError(f"{len(sizes)} strata need {fewest.sum()} documents, two each; found --n {size}")
    shared = fewest.copy()
    for _ in range(size - int(fewest.sum())):
        shared[np.argmax(np.where(shared < sizes, sizes * size / sizes.sum() - shared, -np.inf))] += 1
    return shared


def draw_strata(strata: Ints, size: int, *, count: int, rng: np.random.Generator) -> Picks:
    """Draw `count` subsets of `size` documents, evenly within each stratum (N,), in proportion to what it holds."""
    sizes = np.bincount(strata)
    shared = allocate(sizes, size)
    keys = rng.random((count, len(strata)))
    found = []
    for stratum, n in enumerate(shared):
        inside = np.flatnonzero(strata == stratum)
        found.append(inside[np.argsort(keys[:, inside], axis=1)[:, :n]])
    q = np.concatenate([1 / (total - np.arange(n)) for total, n in zip(sizes, shared, strict=True)])
    documents = np.concatenate(found, axis=1)
    return Picks(documents, np.broadcast_to(q, documents.shape), np.repeat(np.arange(len(sizes)), shared), sizes)


def pick(
    outlook: Outlook, by: str, size: int, *, strata: Ints | None, uniform: float, count: int, rng: np.random.Generator
) -> Picks:
    """Draw `count` subsets of `size` documents: from strata (N,) where there are any, else by an acquisition."""
    if strata is not None:
        return draw_strata(strata, size, count=count, rng=rng)
    return draw(probabilities(ACQUISITIONS[by](outlook), uniform), size, count=count, rng=rng)


def bins(predicted: Floats) -> Ints:
    """Return the number (N,) of each document's stratum: fifths of the predicted loss, or fewer for few documents."""
    order = np.argsort(np.argsort(predicted, kind="stable"), kind="stable")
    return order * min(BINS, max(len(predicted) // FEWEST, 1)) // len(predicted)


def estimate(losses: Floats, picks: Picks, n_items: int, *, by: str, level: float) -> Ends:
    """Return the mean over all N documents from losses (R, M), by the estimator that the way of picking asks for.

    Strata have their own, all else is LURE. Where losses are 0 and 1, intervals are those of shares: exact ones for
    even picks, else widened where hardly any loss was seen. Other losses that do not vary tell no error (NaN).
    """
    are_shares, size = bool(np.isin(losses, (0.0, 1.0)).all()), losses.shape[1]
    if by == "random" and are_shares:
        return shares(losses, n_items, level=level)
    if picks.strata is not None and picks.sizes is not None:
        found = stratified(losses, picks.strata, picks.sizes, level=level)
    else:
        found = lures(losses, picks.q, n_items, level=level)
    if size == n_items:
        return found
    if are_shares and size > 1:
        return widened(found, size, n_items, level=level)
    value, low, high = found
    return value, np.where(low < high, low, np.nan), np.where(low < high, high, np.nan)
