"""Simulated ladders whose true law is known, and an oracle that knows it too.

Truth: ln X = c + ln(e + (1 - e)(q N^-alpha + (1 - q) D^-beta)), and accuracy = floor + (1 - cap - floor)
sigmoid(k (x0 - X)).
Its parameters are uniform over ranges about those published for the OLMo ladder, not drawn from priors of the harness.
The loss of a run deviates by 1 %, and half as much again from checkpoint to checkpoint. Accuracies are counted on 500
documents that all models share: a document is easy or hard for all of them (latent correlation .7).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special, stats

from harness.fitting.forecast_scores import LEVELS
from harness.fitting.forecast_stack import rounded
from harness.fitting.likelihoods import Data, sigmoid, single
from harness.fitting.posteriors import sample
from harness.fitting.rungs import Batch, read_ladders
from harness.types import Floats

DOCS, RUN, SAME = 500, 0.01, 0.7
TASKS = 8  # in a store
RANGES = {
    "e": (0.3, 0.8), "q": (0.3, 0.7), "alpha": (0.15, 0.4), "beta": (0.15, 0.4), "k": (3.0, 12.0), "a": (-2.5, 1.5),
}  # fmt: skip
SETTINGS = {"4 sizes": (4, 1), "5 sizes, 3 checkpoints": (5, 3), "6 sizes": (6, 1), "7 sizes, 5 checkpoints": (7, 5)}
AHEAD = (4, 16)  # times the FLOPs of the largest run: one and two sizes


@dataclass(frozen=True)
class Truth:
    """Parameters of one task; scales are ln over the ladder's middle, losses over the loss there."""

    e: float
    q: float
    alpha: float
    beta: float
    k: float
    a: float
    chance: float
    cap: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Truth:
        """Draw a task: chance is 1/4 or 1/2, and one in two tasks has answers out of reach (to 15 %)."""
        values = {name: float(rng.uniform(*ends)) for name, ends in RANGES.items()}
        return cls(**values, chance=float(rng.choice([0.25, 0.5])), cap=float(rng.uniform(0, 0.15) * rng.integers(2)))

    def log_loss(self, s: Floats) -> Floats:
        """Return ln X at ln N = ln D = s over the middle."""
        falling = self.q * np.exp(-self.alpha * s) + (1 - self.q) * np.exp(-self.beta * s)
        return np.log(self.e + (1 - self.e) * falling)

    def accuracy(self, log_x: Floats) -> Floats:
        """Return the accuracy at a loss."""
        return self.chance + (1 - self.cap - self.chance) * special.expit(self.a + self.k * (1 - np.exp(log_x)))


def counted(p: Floats, rng: np.random.Generator) -> Floats:
    """Return accuracies (n,) as counted on documents that all models share."""
    easy = rng.standard_normal(DOCS)
    difficulty = rng.standard_normal((len(p), DOCS))
    latent = np.sqrt(SAME) * easy + np.sqrt(1 - SAME) * difficulty
    return np.asarray((latent < special.ndtri(np.clip(p, 1e-9, 1 - 1e-9))[:, None]).mean(axis=1))


def ladder(truth: Truth, sizes: int, checkpoints: int, rng: np.random.Generator, shape: str = "") -> pd.DataFrame:
    """Return the points of one task: a ladder with D = 20 N and twice the size a rung, and two rungs more.

    `shape` "falls" turns the accuracy down after the middle of the ladder; "chance" leaves it at chance.
    """
    rungs = np.arange(sizes + len(AHEAD))
    size = np.repeat(rungs, checkpoints)
    done = np.tile(np.arange(1, checkpoints + 1) / checkpoints, len(rungs))
    params = 7e7 * 2.0**size
    tokens = 20 * params * done
    s = np.log(2) * (size - (sizes - 1) / 2)
    log_x = truth.log_loss(s + np.log(done) / 2)
    log_x = log_x + RUN * rng.standard_normal(len(rungs))[size] + RUN / 2 * rng.standard_normal(len(size)) * (done < 1)
    p = truth.accuracy(log_x)
    if shape == "falls":
        top = truth.accuracy(truth.log_loss(np.array([0.0])))[0]
        p = np.where(s > 0, np.clip(top - 0.12 * s / np.log(2) * rng.uniform(0.8, 1.6), 0.02, 1.0), p)
    if shape == "chance":
        p = np.full(len(p), truth.chance)
    return pd.DataFrame(
        {
            "family": "sim", "size": size, "step": np.round(1000 * done), "params": params, "tokens": tokens,
            "flops": 6 * params * tokens, "acc": counted(p, rng), "acc_n": float(DOCS), "bpb": np.exp(log_x),
            "chance": truth.chance, "true": p, "rung": size,
        }
    )  # fmt: skip


def store(sizes: int, checkpoints: int, seed: int, shape: str = "") -> tuple[pd.DataFrame, list[Truth]]:
    """Return the points of TASKS tasks, targets (rungs from `sizes` on) included, and their truths."""
    rng = np.random.default_rng([seed, sizes, checkpoints])
    truths = [Truth.draw(rng) for _ in range(TASKS)]
    tables = [ladder(truth, sizes, checkpoints, rng, shape).assign(task=f"task_{i}") for i, truth in enumerate(truths)]
    return pd.concat(tables, ignore_index=True), truths


def _own_share() -> tuple[Floats, Floats]:
    """Return a table of the share of the variance of documents that is a model's own, by accuracy."""
    p = np.array([0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.98])
    cut = special.ndtri(p)
    both = stats.multivariate_normal([0, 0], [[1, SAME], [SAME, 1]]).cdf(np.column_stack([cut, cut]))
    return p, 1 - (both - p**2) / (p * (1 - p))


OWN = _own_share()


class Oracle:
    """The posterior of the true law under the distribution its parameters were drawn from, with the true noise.

    It knows chance, the form of both steps, the deviation of runs, and how much of the noise of documents is shared.
    """

    name = "oracle"
    PARTICLES = 512

    def quantiles(
        self, points: pd.DataFrame, sizes: int, ahead: Sequence[int], rng: np.random.Generator
    ) -> list[Floats]:
        """Return quantiles (tasks, Q) of the accuracies measured `ahead` rungs above the ladder."""
        batch = Batch.of(read_ladders(points[points["rung"] < sizes], "acc", "bpb"))
        data, tasks = Data.of(batch), len(batch.ladders)
        log_x = single(np.log(batch.rows("via", 1.0)))[:, None]
        chance = np.array([of_ladder.chance for of_ladder in batch.ladders])[:, None]
        first = sample(lambda z: self._fit_loss(z, data, log_x), (tasks, self.PARTICLES, 4), rng)
        second = sample(lambda z: self._fit_steps(z, data, log_x, chance), (tasks, self.PARTICLES, 4), rng)
        columns = []
        for rung in ahead:
            s = np.log(2) * (sizes - 1 + rung - (sizes - 1) / 2)
            x = self._loss(first.z, np.full((tasks, 1, 1), s))[..., 0]
            x = x + RUN * rng.standard_normal(x.shape)
            p = self._accuracy(second.z, x[..., None], chance)[..., 0]
            y = p + np.sqrt(np.interp(p, *OWN) * p * (1 - p) / DOCS) * rng.standard_normal(p.shape)
            quantiles = np.quantile(np.clip(y, 0, 1), LEVELS, axis=1).T
            columns.append(rounded(quantiles, np.full(tasks, float(DOCS))))
        return columns

    def _loss(self, z: Floats, s: Floats) -> Floats:
        e, q, alpha, beta = (
            uniform(z[..., j : j + 1], *RANGES[name]) for j, name in enumerate(("e", "q", "alpha", "beta"))
        )
        return np.log(e + (1 - e) * (q * np.exp(-alpha * s) + (1 - q) * np.exp(-beta * s)))

    def _fit_loss(self, z: Floats, data: Data, log_x: Floats) -> Floats:
        mean = self._loss(z, data.scales[0])
        return -0.5 * np.einsum("pkn,pn->pk", ((log_x - mean) / RUN) ** 2, data.real)

    def _accuracy(self, z: Floats, log_x: Floats, chance: Floats) -> Floats:
        k, a = uniform(z[..., 0:1], *RANGES["k"]), uniform(z[..., 1:2], *RANGES["a"])
        cap = 0.15 * np.clip(2 * special.ndtr(z[..., 2:3]) - 1, 0, None)
        floor = chance[..., None]
        p = floor + (1 - cap - floor) * sigmoid(a + k * (1 - np.exp(log_x)))
        shift = (
            np.sqrt((1 - np.interp(p, *OWN)) / np.maximum(DOCS * p * (1 - p), 5)) * z[..., 3:4]
        )  # of these documents, for all models
        return sigmoid(np.log(np.maximum(p, 1e-6) / np.maximum(1 - p, 1e-6)) + shift)

    def _fit_steps(self, z: Floats, data: Data, log_x: Floats, chance: Floats) -> Floats:
        p = self._accuracy(z, log_x, chance)
        variance = np.interp(p, *OWN) * (p * (1 - p) + 0.5 / DOCS) / DOCS
        return -0.5 * np.einsum("pkn,pn->pk", (data.y - p) ** 2 / variance + np.log(variance), data.real)


def uniform(z: Floats, low: float, high: float) -> Floats:
    """Map a standard normal to a uniform number."""
    return np.asarray(low + (high - low) * special.ndtr(z))
