"""Methods to select documents: uniformly, by strata, or in proportion to an acquisition function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from harness import Floats, Ints, UsageError
from harness_plugins.analyses.estimators import Ends, lures
from harness_plugins.analyses.finite_populations import proportion, stratified_mean, widened_interval

QUINTILES = 5  # number of strata of the predicted loss
FEWEST = 2  # documents per stratum: one document has no variance


@dataclass(frozen=True)
class PredictedLosses:
    """Losses that K small checkpoints predict for the N documents of a task.

    `losses` (K, N) are >= 0; 0 is perfect. `weights` (N,) are N times the weight of each document in the mean.
    """

    losses: Floats
    weights: Floats

    @property
    def mean(self) -> Floats:
        """Return the mean over checkpoints (N,)."""
        return np.asarray(self.losses.mean(axis=0))


@dataclass(frozen=True)
class Selection:
    """R selected subsets: documents (R, M) in the order of selection, and the probability (R, M) of each at its turn.

    `strata` (M,) and their `sizes` (H,) are given for stratified selection.
    """

    documents: Ints
    q: Floats
    strata: Ints | None = None
    sizes: Ints | None = None


def predicted_loss(predicted: PredictedLosses) -> Floats:
    """Return the predicted contribution (N,) of each document to the mean loss (Kossen et al. 2021, eq. 9)."""
    return predicted.weights * predicted.mean


def disagreement(predicted: PredictedLosses) -> Floats:
    """Return the standard deviation (N,) of the losses over checkpoints."""
    if len(predicted.losses) < 2:
        raise UsageError(
            "disagreement needs 2 or more small checkpoints, found 1; raise --rungs, change --where, or use --by loss"
        )
    return np.asarray(predicted.weights * predicted.losses.std(axis=0))


def constant(predicted: PredictedLosses) -> Floats:
    """Return 1 for every document (N,)."""
    return np.ones_like(predicted.weights)


ACQUISITIONS: dict[str, Callable[[PredictedLosses], Floats]] = {
    "random": constant,
    "loss": predicted_loss,
    "disagreement": disagreement,
}
METHODS = (*ACQUISITIONS, "strata")


def probabilities(acquired: Floats, uniform: float) -> Floats:
    """Return the probability (N,) of being selected first: a mixture of the acquisition function and a uniform share.

    The uniform share is a defensive mixture (Hesterberg 1995). It bounds by 1 / uniform the weight of a document that
    small checkpoints answer correctly and the large one does not.
    """
    n, total = len(acquired), acquired.sum()
    return uniform / n + (1 - uniform) * (acquired / total if total > 0 else np.full(n, 1 / n))


def draw(first: Floats, size: int, *, count: int, rng: np.random.Generator) -> Selection:
    """Draw `count` subsets of `size` documents one by one without replacement, in proportion to `first` (N,).

    Documents are ordered by exponential variates with these rates (Efraimidis and Spirakis 2006).
    """
    order = np.argsort(rng.exponential(size=(count, len(first))) / first, axis=1)
    left = np.cumsum(first[order][:, ::-1], axis=1)[
        :, ::-1
    ]  # summed from the last document on: never less than its own probability
    documents = order[:, :size]
    return Selection(documents, first[documents] / left[:, :size])


def allocate(sizes: Ints, size: int) -> Ints:
    """Allocate `size` documents to strata of `sizes` (H,) in proportion, at least two per stratum.

    Raises UsageError if `size` is less than two per stratum.
    """
    fewest = np.minimum(sizes, FEWEST)
    if size < fewest.sum():
        raise UsageError(f"{len(sizes)} strata need {fewest.sum()} documents, two per stratum; found --n {size}")
    allocated = fewest.copy()
    for _ in range(size - int(fewest.sum())):
        allocated[np.argmax(np.where(allocated < sizes, sizes * size / sizes.sum() - allocated, -np.inf))] += 1
    return allocated


def draw_strata(strata: Ints, size: int, *, count: int, rng: np.random.Generator) -> Selection:
    """Draw `count` subsets of `size` documents: uniform within each stratum (N,), in proportion to its size."""
    sizes = np.bincount(strata)
    allocated = allocate(sizes, size)
    keys = rng.random((count, len(strata)))
    parts = []
    for stratum, n in enumerate(allocated):
        inside = np.flatnonzero(strata == stratum)
        parts.append(inside[np.argsort(keys[:, inside], axis=1)[:, :n]])
    q = np.concatenate([1 / (total - np.arange(n)) for total, n in zip(sizes, allocated, strict=True)])
    documents = np.concatenate(parts, axis=1)
    return Selection(documents, np.broadcast_to(q, documents.shape), np.repeat(np.arange(len(sizes)), allocated), sizes)


def select(
    predicted: PredictedLosses,
    by: str,
    size: int,
    *,
    strata: Ints | None,
    uniform: float,
    count: int,
    rng: np.random.Generator,
) -> Selection:
    """Draw `count` subsets of `size` documents, from strata (N,) if given, else by an acquisition function."""
    if strata is not None:
        return draw_strata(strata, size, count=count, rng=rng)
    return draw(probabilities(ACQUISITIONS[by](predicted), uniform), size, count=count, rng=rng)


def quintiles(predicted: Floats) -> Ints:
    """Return the stratum (N,) of each document: quintiles of the predicted loss, or fewer strata for few documents."""
    order = np.argsort(np.argsort(predicted, kind="stable"), kind="stable")
    return order * min(QUINTILES, max(len(predicted) // FEWEST, 1)) // len(predicted)


def estimate(losses: Floats, selection: Selection, n_items: int, *, by: str, level: float) -> Ends:
    """Return the mean over all N documents from losses (R, M), with the estimator of the selection method.

    The estimator is that of stratified sampling for strata, else LURE. For losses of 0 and 1 the interval is that of a
    proportion: exact for uniform selection, else widened. Other losses without variance give no interval (NaN).
    """
    is_binary, size = bool(np.isin(losses, (0.0, 1.0)).all()), losses.shape[1]
    if by == "random" and is_binary:
        return proportion(losses, n_items, level=level)
    if selection.strata is not None and selection.sizes is not None:
        interval = stratified_mean(losses, selection.strata, selection.sizes, level=level)
    else:
        interval = lures(losses, selection.q, n_items, level=level)
    if size == n_items:
        return interval
    if is_binary and size > 1:
        return widened_interval(interval, size, n_items, level=level)
    value, low, high = interval
    return value, np.where(low < high, low, np.nan), np.where(low < high, high, np.nan)
