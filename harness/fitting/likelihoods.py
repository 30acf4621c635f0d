"""Likelihoods of ladders: rows and targets as arrays, noise of documents and runs, and the parts of curves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import special

from harness.fitting.rungs import Batch
from harness.types import Bools, Floats

FREEDOM = 5.0  # of Student's t for the deviation of a new run
FLOOR = 0.04  # standard deviation of the floor about chance
CEILINGS = (0.004, 0.10)  # means of the two exponentials that the share out of reach is drawn from
MOST_OUT_OF_REACH = 0.5
SAME_DOCS = 0.5  # share of the variance of documents that differs between models measured on the same documents
UNKNOWN_DOCS = 1e4  # where nothing is known of documents, a run's deviation has to account for their noise


def sigmoid(x: Floats) -> Floats:
    """Return 1 / (1 + e^-x) in the precision of x; twice as fast as scipy's."""
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -60, 60))))


def _ceiling_quantiles() -> tuple[Floats, Floats]:
    """Return a table from normal quantiles to the share out of reach."""
    c = np.concatenate([[0.0], np.geomspace(1e-6, MOST_OUT_OF_REACH, 2000)])
    cdf = np.mean([1 - np.exp(-c / mean) for mean in CEILINGS], axis=0)
    cdf /= cdf[-1]
    return special.ndtri(np.clip(cdf, 1e-9, 1 - 1e-9)), c


CEILING = _ceiling_quantiles()


def log_normal(z: Floats, middle: float, spread: float) -> Floats:
    """Map a standard normal to a positive parameter of that median and spread of its logarithm."""
    return np.asarray(np.exp(math.log(middle) + spread * z))


def single(values: Floats | Bools) -> Floats:
    """Return values in single precision, in which likelihoods take half the time."""
    return values.astype(np.float32)


def span(chance: Floats, z_floor: Floats, z_ceiling: Floats) -> tuple[Floats, Floats]:
    """Return floor and range (P, K) of accuracy: the floor is near chance, the ceiling at or below 1."""
    floor = np.clip(chance + FLOOR * z_floor * (chance > 0) + 0.005 * np.abs(z_floor) * (chance <= 0), 0.0, 0.95)
    out_of_reach = np.interp(z_ceiling, *CEILING).astype(z_ceiling.dtype)
    return floor, np.maximum(1 - out_of_reach - floor, 0.02)


def guessed(chance: Floats, value: Floats, real: Bools) -> Floats:
    """Return chance (P, 1), or half the lowest value where it is unknown."""
    lowest = np.where(real, value, np.inf).min(axis=1)
    return np.where(np.isfinite(chance), chance, 0.5 * lowest)[:, None]


def gaussian(y: Floats, mean: Floats, variance: Floats, real: Floats) -> Floats:
    """Return the log-likelihood (P, K) of rows (P, 1, n) about curves (P, K, n)."""
    terms = (y - mean) ** 2 / variance + np.log(variance)
    log_likelihood: Floats = -0.5 * np.einsum("pkn,pn->pk", terms, real)
    return log_likelihood


def measured_variance(p: Floats, docs: Floats, sigma: Floats) -> Floats:
    """Return the variance of a measured accuracy about its ladder: that of documents, and of runs (sigma in logits).

    All models of a ladder answer the same documents: what these have in common moves the whole curve, and only the
    other part of their variance is noise about it. It is at least that of half a document, so that one wrong answer
    does not refute p = 1.
    """
    spread = p * (1 - p)
    return SAME_DOCS * (spread + 0.5 / docs) / docs + (sigma * spread) ** 2


def deviate(p: Floats, sigma: Floats, rng: np.random.Generator) -> Floats:
    """Return accuracies (P, K, T) with the deviation of a run, drawn from Student's t."""
    scale = np.sqrt((FREEDOM - 2) / FREEDOM)
    noise = scale * rng.standard_t(FREEDOM, size=p.shape)
    clipped = np.clip(p.astype(np.float64), 1e-6, 1 - 1e-6)
    return np.asarray(special.expit(special.logit(clipped) + sigma * noise))


@dataclass(frozen=True)
class Data:
    """What models read of a batch: rows (P, 1, n), targets (P, 1, T), each scale centred on the ladder's middle."""

    y: Floats
    docs: Floats
    real: Floats
    chance: Floats
    scales: tuple[Floats, Floats]
    wanted: tuple[Floats, Floats]

    @classmethod
    def of(cls, batch: Batch) -> Data:
        """Read a batch."""
        value = batch.rows("value", 0.5)
        docs = batch.rows("docs", np.nan)
        chance = np.array([ladder.chance for ladder in batch.ladders])
        scales, wanted = _scales(batch)
        return cls(
            y=single(value)[:, None],
            docs=single(np.where(np.isfinite(docs), docs, UNKNOWN_DOCS))[:, None],
            real=single(batch.real),
            chance=single(guessed(chance, value, batch.real)),
            scales=(single(scales[0]), single(scales[1])),
            wanted=(single(wanted[0]), single(wanted[1])),
        )


def _scales(batch: Batch) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    """Return ln params and ln tokens of rows and targets, centred; half of ln FLOPs twice where one is unknown."""
    rows = {name: batch.rows(name, np.nan) for name in ("params", "tokens", "flops")}
    aims = {name: batch.targets(name) for name in rows}
    both = np.array([_known(batch, p, rows, aims) for p in range(len(batch.ladders))])
    half = np.array([ladder.order.mean() for ladder in batch.ladders]) / 2
    first, second = (_centred(rows[name], aims[name], batch, both) for name in ("params", "tokens"))
    compute = np.array([_padded(ladder.order / 2, batch.real.shape[1]) for ladder in batch.ladders]) - half[:, None]
    ahead = np.full(aims["params"].shape, np.nan)
    for p, ladder in enumerate(batch.ladders):
        if ladder.targets is not None:
            ahead[p, : len(ladder.targets)] = (ladder.beyond(ladder.targets) + ladder.order.max()) / 2 - half[p]
    pick = both[:, None]
    scales = tuple(np.where(pick, pair[0], compute)[:, None] for pair in (first, second))
    wanted = tuple(np.where(pick, pair[1], ahead)[:, None] for pair in (first, second))
    return (scales[0], scales[1]), (wanted[0], wanted[1])


def _known(batch: Batch, p: int, rows: Mapping[str, Floats], aims: Mapping[str, Floats]) -> bool:
    """Say whether params and tokens are known of every row and target of a ladder."""
    count = len(batch.ladders[p].targets or ())
    return all(
        np.isfinite(rows[name][p][batch.real[p]]).all() and np.isfinite(aims[name][p][:count]).all()
        for name in ("params", "tokens")
    )


def _padded(values: Floats, n: int) -> Floats:
    return np.concatenate([values, np.full(n - len(values), values[-1])])


def _centred(rows: Floats, aims: Floats, batch: Batch, both: Floats) -> tuple[Floats, Floats]:
    """Return the logarithms of rows and targets minus the mean of the rows; 0 where they are not used."""
    use = batch.real & both[:, None].astype(bool)
    log = np.log(np.where(use, rows, 1.0))
    middle = log.sum(axis=1, keepdims=True) / np.maximum(use.sum(axis=1, keepdims=True), 1)
    with np.errstate(invalid="ignore"):
        return np.where(use, log - middle, 0.0), np.log(aims) - middle


def size_of(scales: tuple[Floats, Floats], data: Data, share: Floats) -> Floats:
    """Return s = w ln N + (1 - w) ln D (P, K, n).

    Where the ladder varies one of them alone, s is that one, and targets may differ in the other by its share.
    """
    n, d = scales
    grows, lengthens = ((np.ptp(scale[:, 0], axis=1) > 1e-9)[:, None, None] for scale in data.scales)
    w = share[..., None]
    of_n = np.where(grows == lengthens, w, np.where(grows, 1.0, w / (1 - w)))
    of_d = np.where(grows == lengthens, 1 - w, np.where(grows, (1 - w) / w, 1.0))
    size: Floats = of_n * n + of_d * d
    return size
