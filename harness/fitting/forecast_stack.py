"""From the distributions of several models to one: weights by past scores, a factor by past misses, and limits.

A case is one target above a cut of one ladder. Cases with a measured target are forecasts of earlier rungs, over all
tasks and families. Their misses calibrate the forecast, which assumes that later rungs are exchangeable with earlier
ones, once the distance in ln FLOPs is taken into account.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from harness.fitting.forecast_scores import LEVELS, crps, normal_scores
from harness.types import Bools, Floats, Ints

SHRINK = 10.0  # cases that equal weights are worth
POWER = 4.0  # of relative CRPS in weights
DOUBT = 6.0  # cases that a factor of 1 is worth
FACTORS = (0.7, 2.0)
SHARPER = 0.9  # times the factor: of least interval score on simulations of other laws and noise than are scored
NEAR = 0.7  # standard deviation of ln distance at which a past case still tells something
FEWER = 0.4  # what a case from one rung fewer is worth
EDGE = 1e-5  # of accuracies in logits


@dataclass(frozen=True)
class Cases:
    """C cases and their forecasts by M models: quantiles (M, C, Q) at LEVELS, NaN where a model abstains.

    `ladder` numbers ladders, `rungs` counts those fitted, `target` is the rung forecast, `ahead` ln of how far it lies
    above the ladder in FLOPs, `y` what was measured (NaN: not yet), `docs` the documents behind it, `cut` numbers what
    was fitted.
    """

    names: tuple[str, ...]
    ladder: Ints
    rungs: Ints
    target: Ints
    ahead: Floats
    y: Floats
    docs: Floats
    quantiles: Floats
    cut: Ints

    def take(self, rows: Bools | Ints) -> Cases:
        """Return some of the cases."""
        columns = {
            name: getattr(self, name)[rows] for name in ("ladder", "rungs", "target", "ahead", "y", "docs", "cut")
        }
        return replace(self, **columns, quantiles=self.quantiles[:, rows])

    @property
    def scores(self) -> Floats:
        """Return the CRPS of every model in every case (M, C), over the mean of the models that speak."""
        scores = np.array([crps(self.y, quantiles) for quantiles in self.quantiles])
        with np.errstate(invalid="ignore"):
            floor = 0.25 / np.where(np.isfinite(self.docs), self.docs, 1e4)
            return scores / np.maximum(_mean(scores), floor)


def _mean(values: Floats) -> Floats:
    """Return the mean over models (C,) of those that speak; NaN where none does."""
    known = np.isfinite(values)
    count = np.where(known.any(axis=0), known.sum(axis=0), np.nan)
    return np.asarray(np.where(known, values, 0.0).sum(axis=0) / count)


def relevance(past: Cases, rungs: int) -> Floats:
    """Return what past cases (C,) are worth for forecasts from so many rungs: those from fewer rungs count less."""
    return np.asarray(FEWER ** np.maximum(rungs - past.rungs - 1, 0), dtype=np.float64)


def weights(past: Cases, prior: Floats, worth: Floats) -> Floats:
    """Return the weight of each model (M,): past relative CRPS to the power -POWER, shrunk to `prior` (M,) by SHRINK.

    `prior` is the relative CRPS that a model is trusted to have before anything is known; `worth` (C,) weighs cases.
    """
    if not len(past.y):
        return _normal(prior**-POWER)
    scores = past.scores
    counted = np.isfinite(scores) * worth
    mean = ((np.nan_to_num(scores) * counted).sum(axis=1) + SHRINK * prior) / (counted.sum(axis=1) + SHRINK)
    return _normal(mean**-POWER)


def _normal(values: Floats) -> Floats:
    shares: Floats = values / values.sum()
    return shares


def logit(p: Floats) -> Floats:
    """Return ln p / (1 - p), with p at least EDGE away from 0 and 1."""
    return np.asarray(special.logit(np.clip(p, EDGE, 1 - EDGE)))


def averaged(quantiles: Floats, weight: Floats) -> Floats:
    """Return the average (C, Q) of the quantiles of models (M, C, Q) in logits, over the models that speak."""
    known = np.isfinite(quantiles[..., :1])
    w = np.where(known, weight[:, None, None], 0.0)
    total = w.sum(axis=0)
    logits = np.where(known, logit(np.where(known, quantiles, 0.5)), 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((w * logits).sum(axis=0) / np.where(total > 0, total, np.nan))


def factors(past: Cases, logits: Floats, worth: Floats, ahead: Floats) -> Floats:
    """Return the factor by which distributions are widened (N,) at distances `ahead` (N,).

    :param logits: the averaged quantiles (C, Q) of the past cases.

    The factor is the root mean square of the normal scores of measured values, shrunk to 1 by DOUBT cases, times
    SHARPER. Cases at other distances count less, and so do those of little `worth` (C,). Without any case it is 1.
    """
    if not len(past.y):
        return np.ones(len(ahead))
    z = normal_scores(logit(past.y), logits)
    apart = np.log(np.maximum(ahead, 0.1))[:, None] - np.log(np.maximum(past.ahead, 0.1))[None, :]
    near = np.exp(-0.5 * (apart / NEAR) ** 2) * worth
    square = (near @ z**2 + DOUBT) / (near.sum(axis=1) + DOUBT)
    return np.asarray(SHARPER * np.clip(np.sqrt(square), *FACTORS))


def widened(logits: Floats, factor: Floats) -> Floats:
    """Return distributions (C, Q) stretched about their medians by factors (C,)."""
    middle = np.array([np.interp(0.5, LEVELS, row) for row in logits])[:, None]
    return np.asarray(middle + factor[:, None] * (logits - middle))


def rounded(quantiles: Floats, docs: Floats) -> Floats:
    """Return quantiles (C, Q) of accuracies with both sides rounded outward to whole documents (C,).

    An accuracy on n documents is a multiple of 1 / n, and no interval is narrower than one document.
    """
    n = np.where(np.isfinite(docs), docs, 1e6)[:, None]
    lower = LEVELS < 0.5
    out = np.where(lower, np.floor(quantiles * n - 1e-9), np.ceil(quantiles * n + 1e-9)) / n
    middle = np.argmin(np.abs(LEVELS - 0.5))
    out[:, middle] = quantiles[:, middle]
    return np.clip(out, 0.0, 1.0)


@dataclass(frozen=True)
class Combined:
    """Forecasts of N cases: quantiles (N, Q), weights (N, M) and factors (N,)."""

    quantiles: Floats
    weights: Floats
    factors: Floats


def combine(past: Cases, new: Cases, prior: Floats) -> Combined:
    """Return forecasts of new cases, from those past alone; `prior` (M,) is as of `weights`."""
    quantiles = np.full((len(new.y), len(LEVELS)), np.nan)
    shares, factor = np.zeros((len(new.y), len(new.names))), np.ones(len(new.y))
    for rungs in np.unique(new.rungs):
        rows = np.flatnonzero(new.rungs == rungs)
        cases, worth = new.take(rows), relevance(past, int(rungs))
        weight = weights(past, prior, worth)
        factor[rows] = factors(past, averaged(past.quantiles, weight), worth, cases.ahead)
        spread = special.expit(widened(averaged(cases.quantiles, weight), factor[rows]))
        quantiles[rows] = rounded(spread, cases.docs)
        spoke = np.where(np.isfinite(cases.quantiles[..., 0]), weight[:, None], 0.0)
        shares[rows] = (spoke / spoke.sum(axis=0)).T
    return Combined(quantiles, shares, factor)
