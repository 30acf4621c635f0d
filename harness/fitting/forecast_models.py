"""The models that a forecast is composed of: a saturating curve, two steps through a task loss, and no change.

All three are Bayesian: parameters are standard normal a priori, mapped to what they mean by the constants below. A
model returns draws of the accuracy of each target: the curve and a run's own deviation, without document noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import special

from harness.fitting.likelihoods import (
    FREEDOM,
    UNKNOWN_DOCS,
    Data,
    deviate,
    gaussian,
    log_normal,
    measured_variance,
    sigmoid,
    single,
    size_of,
    span,
)
from harness.fitting.posteriors import Likelihood, Posterior, pooled, sample
from harness.fitting.rungs import Batch
from harness.types import Floats

PARTICLES = 384


@dataclass(frozen=True)
class Drawn:
    """Draws (P, R, T) of accuracies, and how many of the R are independent at least (P,)."""

    values: Floats
    effective: Floats


class Forecaster(Protocol):
    """What `register_forecasters` takes: a name, and draws of the accuracy of the targets of many ladders."""

    @property
    def name(self) -> str:
        """The name by which it is registered."""
        ...

    def draw(self, batch: Batch, rng: np.random.Generator) -> Floats | Drawn:
        """Return draws of the accuracy of targets (P, R, T); NaN where the forecaster abstains."""
        ...


class Pooling:
    """What both curves share: particles, and whether the ladders of a batch share their priors."""

    SHARED = True

    def __init__(self, particles: int = PARTICLES) -> None:
        self.particles = particles

    def _infer(
        self, likelihood: Likelihood, batch: Batch, d: int, shared: Sequence[int], rng: np.random.Generator
    ) -> Posterior:
        shape = (len(batch.ladders), self.particles, d)
        if not self.SHARED:
            return sample(likelihood, shape, rng)
        return pooled(likelihood, shape, batch.groups, np.isin(np.arange(d), shared), rng)


class Saturating(Pooling):
    """acc = floor + (1 - cap - floor) sigmoid(a + b (1 - exp(-kappa s)) / kappa), s = w ln N + (1 - w) ln D.

    A sigmoid whose slope falls off with scale; floor near chance, cap with a spike at 0.
    """

    name = "saturating"

    def draw(self, batch: Batch, rng: np.random.Generator) -> Drawn:
        """Return draws (P, K, T)."""
        data = Data.of(batch)

        def likelihood(z: Floats) -> Floats:
            p, sigma = self._curve(z, data, data.scales)
            return gaussian(data.y, p, measured_variance(p, data.docs, sigma), data.real)

        posterior = self._infer(likelihood, batch, 7, [3, 4, 5, 6], rng)
        p, sigma = self._curve(posterior.z, data, data.wanted)
        return Drawn(deviate(p, sigma, rng), posterior.distinct)

    def _curve(self, z: Floats, data: Data, scales: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
        """Return accuracies (P, K, n) and the deviation of runs (P, K, 1) of particles (P, K, 7)."""
        floor, reach = span(data.chance, z[..., 0], z[..., 1])
        a, b = 2.5 * z[..., 2], log_normal(z[..., 3], 0.7, 0.8)
        kappa, share = log_normal(z[..., 4], 0.15, 0.8), sigmoid(0.7 * z[..., 5])
        s = size_of(scales, data, share)
        bent = -np.expm1(-np.clip(kappa[..., None] * s, -8.0, 8.0)) / kappa[..., None]
        p = floor[..., None] + reach[..., None] * sigmoid(a[..., None] + b[..., None] * bent)
        return p, log_normal(z[..., 6], 0.1, 0.7)[..., None]


class Stepwise(Pooling):
    """Task loss X from scale, then accuracy from X: two steps with one combined distribution.

    ln X = c + ln(e + (1 - e) (q N^-alpha + (1 - q) D^-beta)); acc = floor + (1 - cap - floor) sigmoid(k (x0 - X)), in
    linear X. Only ladders with a task loss have it.
    """

    name = "stepwise"

    def draw(self, batch: Batch, rng: np.random.Generator) -> Drawn:
        """Return draws (P, K, T); NaN for ladders without a task loss."""
        able = [p for p, ladder in enumerate(batch.ladders) if ladder.via is not None and ladder.rungs >= 2]
        width = batch.targets("params").shape[1]
        draws = np.full((len(batch.ladders), self.particles, width), np.nan)
        effective = np.full(len(batch.ladders), np.nan)
        if able:
            with_loss = batch.take(able)
            data = Data.of(with_loss)
            first = self._first(with_loss, data, rng)
            second = self._second(with_loss, data, first.values, rng)
            draws[able, :, : second.values.shape[2]] = second.values
            effective[able] = np.minimum(first.effective, second.effective)
        return Drawn(draws, effective)

    def _first(self, batch: Batch, data: Data, rng: np.random.Generator) -> Drawn:
        """Return ln X of the targets over the ladder's own middle (P, K, T)."""
        log_x = single(_log_via(batch))[:, None]

        def likelihood(z: Floats) -> Floats:
            mean, sigma = _loss(z, data.scales)
            return gaussian(log_x, mean, np.broadcast_to(sigma**2, mean.shape), data.real)

        posterior = self._infer(likelihood, batch, 6, [2, 3, 4, 5], rng)
        mean, sigma = _loss(posterior.z, data.wanted)
        scale = np.sqrt((FREEDOM - 2) / FREEDOM)
        return Drawn(mean + sigma * scale * rng.standard_t(FREEDOM, size=mean.shape), posterior.distinct)

    def _second(self, batch: Batch, data: Data, ahead: Floats, rng: np.random.Generator) -> Drawn:
        """Return accuracies (P, K, T) at task losses."""
        x = single(np.exp(_log_via(batch)))[:, None]

        def likelihood(z: Floats) -> Floats:
            p, sigma = _step(z, data, x)
            return gaussian(data.y, p, measured_variance(p, data.docs, sigma), data.real)

        posterior = self._infer(likelihood, batch, 5, [3, 4], rng)
        p, sigma = _step(posterior.z, data, np.exp(ahead))
        return Drawn(deviate(p, sigma, rng), posterior.distinct)


def _log_via(batch: Batch) -> Floats:
    """Return ln X minus its mean on the ladder (P, n)."""
    log = np.log(batch.rows("via", 1.0))
    log = np.where(batch.real, log, 0.0)
    return np.where(batch.real, log - log.sum(axis=1, keepdims=True) / batch.real.sum(axis=1, keepdims=True), 0.0)


def _loss(z: Floats, scales: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    """Return ln X (P, K, n) and its deviation (P, K, 1) of particles (P, K, 6)."""
    c, rest = 0.5 * z[..., 0:1], sigmoid(-1 + 1.3 * z[..., 1:2])
    alpha, beta = log_normal(z[..., 2:3], 0.25, 0.6), log_normal(z[..., 3:4], 0.25, 0.6)
    q = sigmoid(0.7 * z[..., 4:5])
    by_size, by_length = (np.exp(np.clip(-x, -60, 60)) for x in (alpha * scales[0], beta * scales[1]))
    falling = q * by_size + (1 - q) * by_length
    return c + np.log(rest + (1 - rest) * falling), log_normal(z[..., 5:6], 0.02, 0.7)


def _step(z: Floats, data: Data, x: Floats) -> tuple[Floats, Floats]:
    """Return accuracies (P, K, n) at task losses over the ladder's middle, and the deviation of runs (P, K, 1)."""
    floor, reach = span(data.chance, z[..., 0], z[..., 1])
    a, k = 2.5 * z[..., 2:3], log_normal(z[..., 3:4], 4.0, 0.7)
    p = floor[..., None] + reach[..., None] * sigmoid(a + k * (1 - x))
    return p, log_normal(z[..., 4:5], 0.1, 0.7)


class Walk:
    """The last value, and changes as large as those between the rungs before: what a task at chance does.

    Changes are a random walk in logits over ln FLOPs. Their variance is inferred from the rungs, with a prior.
    """

    name = "walk"
    PRIOR = (0.15, 2.0)  # standard deviation of a change over a factor e of FLOPs, in logits, and what it is worth

    def __init__(self, particles: int = PARTICLES) -> None:
        self.particles = particles

    def draw(self, batch: Batch, rng: np.random.Generator) -> Floats:
        """Return draws (P, K, T)."""
        width = batch.targets("params").shape[1]
        draws = np.full((len(batch.ladders), self.particles, width), np.nan)
        for p, ladder in enumerate(batch.ladders):
            if ladder.targets is None:
                continue
            docs = np.where(np.isfinite(ladder.docs), ladder.docs, UNKNOWN_DOCS)
            y = (ladder.value * docs + 0.5) / (docs + 1)
            logit, noise = special.logit(y), 1 / np.maximum(docs * y * (1 - y), 0.25)
            tops = ladder.tops
            steps = np.maximum(np.diff(ladder.order[tops]), 0.1)
            spread, worth = self.PRIOR
            excess = np.maximum(np.diff(logit[tops]) ** 2 - noise[tops][1:] - noise[tops][:-1], 0.0) / steps
            scale = worth * spread**2 + excess.sum()
            variance = scale / rng.chisquare(worth + len(excess), size=(self.particles, 1))
            ahead = np.maximum(ladder.beyond(ladder.targets), 0.1)
            start = logit[tops[-1]] + np.sqrt(noise[tops[-1]]) * rng.standard_normal((self.particles, 1))
            moves = np.sqrt(variance * ahead) * rng.standard_normal((self.particles, len(ahead)))
            draws[p, :, : len(ahead)] = special.expit(start + moves)
        return draws
