"""Draws from the posteriors of many small problems at once: sequential Monte Carlo from the prior.

Every problem has d parameters that are standard normal a priori; models map them to what they mean. Particles move
from the prior to the posterior by tempering the likelihood, with resampling and random-walk Metropolis moves whose
shape is that of the particles (Del Moral, Doucet and Jasra 2006). Particles begin in the prior, so that none is stuck
far away from the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from harness.types import Bools, Floats

Likelihood = Callable[[Floats], Floats]  # z (P, K, d) -> log-likelihood (P, K)

KEEP = 0.5  # of the particles are worth something after a step in temperature
MOVES = 3  # after each step
LAST = 6  # moves at the posterior itself
STEPS = 60  # in temperature, at most; draws of a likelihood that needs more are wider than its posterior


@dataclass(frozen=True)
class Posterior:
    """Draws z (P, K, d) of equal weight; `moved` is the share of the last moves that were accepted, (P,).

    `distinct` counts the particles (P,) that do not share an ancestor at the last resampling, a lower bound of the
    effective sample size before the last moves.
    """

    z: Floats
    moved: Floats
    distinct: Floats


def sample(likelihood: Likelihood, shape: tuple[int, int, int], rng: np.random.Generator) -> Posterior:
    """Return draws from P posteriors: `shape` is (P, K, d)."""
    p, k, d = shape
    z: Floats = rng.standard_normal(shape, dtype=np.float32)  # type: ignore[assignment]  # half the time of doubles
    fit, heat = likelihood(z), np.zeros(p)
    distinct = np.full(p, float(k))
    size = np.full(p, 2.38 / np.sqrt(d))
    moved = np.zeros(p)
    for _ in range(STEPS):
        if (heat >= 1).all():
            break
        step = _step(fit, heat)
        weights = _weights(fit, step)
        heat = heat + step
        active = step > 0
        parents = _resample(weights, rng)
        parents[~active] = np.arange(k)
        distinct = np.where(active, 1 + (np.diff(parents, axis=1) > 0).sum(axis=1), distinct)
        z, fit = np.take_along_axis(z, parents[..., None], axis=1), np.take_along_axis(fit, parents, axis=1)
        z, fit, moved, size = _move(z, fit, heat, size, likelihood, MOVES, rng)
    z, _, moved, _ = _move(z, fit, heat, size, likelihood, LAST, rng)
    return Posterior(z, moved, distinct)


def _step(fit: Floats, heat: Floats) -> Floats:
    """Return the largest steps in temperature (P,) after which KEEP of the particles are effective."""
    low, high = np.zeros(len(heat)), 1 - heat
    whole = _effective(_weights(fit, high)) >= KEEP
    for _ in range(25):
        middle = (low + high) / 2
        fine = _effective(_weights(fit, middle)) >= KEEP
        low, high = np.where(fine, middle, low), np.where(fine, high, middle)
    return np.where(whole, 1 - heat, np.maximum(low, np.where(heat < 1, 1e-6, 0.0)))


def _weights(fit: Floats, step: Floats) -> Floats:
    log = step[:, None] * fit
    weights = np.exp(log - log.max(axis=1, keepdims=True))
    normalised: Floats = weights / weights.sum(axis=1, keepdims=True)
    return normalised


def _effective(weights: Floats) -> Floats:
    """Return the effective share of the particles (P,)."""
    return np.asarray(1 / (weights**2).sum(axis=1) / weights.shape[1])


def _resample(weights: Floats, rng: np.random.Generator) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Return the parents (P, K) of systematic resampling."""
    p, k = weights.shape
    at = (np.arange(k) + rng.random((p, 1))) / k
    ends = np.cumsum(weights, axis=1)
    ends[:, -1] = 1.0
    flat = np.searchsorted((ends + np.arange(p)[:, None]).ravel(), (at + np.arange(p)[:, None]).ravel())
    return np.asarray(np.minimum(flat.reshape(p, k) - k * np.arange(p)[:, None], k - 1), dtype=np.int64)


def _move(
    z: Floats, fit: Floats, heat: Floats, size: Floats, likelihood: Likelihood, count: int, rng: np.random.Generator
) -> tuple[Floats, Floats, Floats, Floats]:
    """Move particles `count` times; return them, their likelihood, the share accepted and the size of the moves."""
    root = _roots(z)
    moved = np.zeros(len(z))
    for _ in range(count):
        noise = rng.standard_normal(z.shape, dtype=np.float32)
        steps = (size[:, None, None] * root).astype(np.float32)
        new = z + noise @ steps.swapaxes(1, 2)
        new_fit = likelihood(new)
        gain = heat[:, None] * (new_fit - fit) + 0.5 * ((z - new) * (z + new)).sum(axis=2)
        taken: Bools = np.log(rng.random(gain.shape)) < gain
        z, fit = np.where(taken[..., None], new, z), np.where(taken, new_fit, fit)
        share = taken.mean(axis=1)
        moved += share / count
        size = np.clip(size * np.exp(share - 0.25), 0.05, 3.0)
    return z, fit, moved, size


def _roots(z: Floats) -> Floats:
    """Return the Cholesky factor of the covariance of each problem's particles, (P, d, d)."""
    apart = (z - z.mean(axis=1, keepdims=True)).astype(np.float64)
    covariance = np.einsum("pki,pkj->pij", apart, apart) / z.shape[1]
    return np.linalg.cholesky(covariance + 1e-6 * np.eye(z.shape[2]))


PSEUDO = 4.0  # problems that the prior is worth when others move it
ROUNDS = 8  # of expectation and maximisation


def pooled(
    likelihood: Likelihood,
    shape: tuple[int, int, int],
    groups: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    shared: Bools,
    rng: np.random.Generator,
) -> Posterior:
    """Return draws as of `sample`, with priors that the problems of a group (P,) have moved (empirical Bayes).

    `shared` (d,) says which parameters have a common prior. Its mean and spread follow from the draws of a first run,
    reweighted until they agree (EM); the prior itself is worth PSEUDO problems.
    """
    first = sample(likelihood, shape, rng)
    mean, spread = np.zeros((shape[0], 1, shape[2])), np.ones((shape[0], 1, shape[2]))
    for group in np.unique(groups):
        of_group = groups == group
        mean[of_group, 0], spread[of_group, 0] = _common(first.z[of_group], shared)
    mean, spread = mean.astype(np.float32), spread.astype(np.float32)
    new = (first.z - mean) / spread
    gain = 0.5 * (first.z**2 - new**2).sum(axis=2)
    weights = _weights(gain, np.ones(shape[0]))
    parents = _resample(weights, rng)
    distinct = np.minimum(first.distinct, _effective(weights) * shape[1])
    z = np.take_along_axis(new, parents[..., None], axis=1)

    def moved_likelihood(standard: Floats) -> Floats:
        return likelihood(mean + spread * standard)

    size = np.full(shape[0], 2.38 / np.sqrt(shape[2]))
    z, _, moved, _ = _move(z, moved_likelihood(z), np.ones(shape[0]), size, moved_likelihood, 2 * LAST, rng)
    return Posterior(mean + spread * z, moved, distinct)


def _common(z: Floats, shared: Bools) -> tuple[Floats, Floats]:
    """Return mean and spread (d,) of the common prior of problems whose draws (G, K, d) came from a standard one."""
    mean, variance = np.zeros(z.shape[2]), np.ones(z.shape[2])
    draws = z[..., shared].astype(np.float64)
    for _ in range(ROUNDS):
        m, v = mean[shared], variance[shared]
        log = 0.5 * (draws**2 - (draws - m) ** 2 / v).sum(axis=2)
        weights = np.exp(log - log.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        centre = np.einsum("gk,gkd->d", weights, draws) / (len(z) + PSEUDO)
        square = np.einsum("gk,gkd->d", weights, (draws - centre) ** 2) + PSEUDO * (1 + centre**2)
        mean[shared], variance[shared] = centre, square / (len(z) + PSEUDO)
    return mean, np.sqrt(variance)
