"""Forecasts for tables of many families with few sizes each: Gaussian processes over all families.

`Families` predicts a task from FLOPs: a line and a smooth curve that all families share, and an offset and a slope per
family. `Capabilities` uses a capability, the first principal component of all tasks. It predicts the capability of the
target model from FLOPs in the same way, and the task from the capability, with an offset per family. Both work in
logits, with hyperparameters per task by marginal likelihood under weak priors. Scores of larger models of the same
family are never used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg, optimize, special

from harness.fitting.rungs import Batch, ForecastLadder
from harness.types import Floats, Ints

FEWEST = 5  # families of a task
DRAWS = 400
CONSTANT, LINEAR, LENGTH = (
    3.0,
    2.0,
    1.0,
)  # prior spread of level and line, and length of the curve, in logits and sd of x
PRIOR = (np.log([0.3, 0.15, 0.3, 0.15]), 0.8)  # of the spread of offsets, slopes, the curve and of runs
EDGE = 0.01  # of a score in logits


@dataclass(frozen=True)
class Rows:
    """Models of one task: x (n,) is the standardised predictor, y (n,) the logit of the score, family (n,) a number."""

    x: Floats
    y: Floats
    family: Ints

    def covariance(self, other: Rows, theta: Floats) -> Floats:
        """Return the prior covariance (n, m) of two sets of models, without noise."""
        offset, slope, curve = np.exp(2 * theta[:3])
        product = np.outer(self.x, other.x)
        same_family = self.family[:, None] == other.family[None, :]
        apart = (self.x[:, None] - other.x[None, :]) / LENGTH
        smooth = curve * np.exp(-0.5 * apart**2)
        return np.asarray(CONSTANT**2 + LINEAR**2 * product + smooth + same_family * (offset + slope * product))

    def surprise(self, theta: Floats) -> float:
        """Return minus the log of the marginal likelihood and of the prior of hyperparameters (4,)."""
        prior = 0.5 * float((((theta - PRIOR[0]) / PRIOR[1]) ** 2).sum())
        root = self._root(theta)
        white = linalg.solve_triangular(root, self.y - self.y.mean(), lower=True)
        return prior + 0.5 * float(white @ white) + float(np.log(np.diag(root)).sum())

    def _root(self, theta: Floats) -> Floats:
        noise = np.exp(2 * theta[3]) + 1e-6
        return np.asarray(linalg.cholesky(self.covariance(self, theta) + noise * np.eye(len(self.x)), lower=True))

    def learn(self) -> Floats:
        """Return the hyperparameters (4,)."""
        optimum = optimize.minimize(self.surprise, PRIOR[0], method="L-BFGS-B", options={"maxiter": 30})
        return np.asarray(optimum.x)

    def predict(self, at: Rows, theta: Floats) -> tuple[Floats, Floats]:
        """Return mean and standard deviation (m,) of new models, the deviation of a run included."""
        root = self._root(theta)
        across = linalg.solve_triangular(root, self.covariance(at, theta), lower=True)
        white = linalg.solve_triangular(root, self.y - self.y.mean(), lower=True)
        prior = np.array([at.covariance(at, theta)[i, i] for i in range(len(at.x))])
        variance = np.maximum(prior - (across**2).sum(axis=0), 1e-6) + np.exp(2 * theta[3])
        return self.y.mean() + across.T @ white, np.sqrt(variance)


def score_logit(value: Floats, chance: float) -> Floats:
    """Return the logit of (score - chance) / (1 - chance) (n,), at least EDGE away from 0 and 1."""
    floor = chance if np.isfinite(chance) else 0.0
    return np.asarray(special.logit(np.clip((value - floor) / (1 - floor), EDGE, 1 - EDGE)))


def from_logit(logit: Floats, chance: float) -> Floats:
    """Return scores from their logits."""
    floor = chance if np.isfinite(chance) else 0.0
    return np.asarray(floor + (1 - floor) * special.expit(logit))


class Families:
    """A task from FLOPs, over all families; it abstains with fewer than FEWEST."""

    name = "families"

    def draw(self, batch: Batch, rng: np.random.Generator) -> Floats:
        """Return draws (P, R, T)."""
        draws = np.full((len(batch.ladders), DRAWS, batch.targets("params").shape[1]), np.nan)
        learnt: dict[str, Floats] = {}
        for p, ladder in enumerate(batch.ladders):
            table = seen(ladder, batch.context)
            if len({entry.family for entry in table}) < FEWEST or ladder.targets is None:
                continue
            rows, at = _by_flops(table, ladder)
            if ladder.task not in learnt:
                learnt[ladder.task] = rows.learn()
            theta = learnt[ladder.task]
            mean, spread = rows.predict(at, theta)
            drawn = mean + spread * rng.standard_normal((DRAWS, len(mean)))
            draws[p, :, : len(mean)] = from_logit(drawn, ladder.chance)
        return draws


def seen(ladder: ForecastLadder, context: Sequence[ForecastLadder]) -> list[ForecastLadder]:
    """Return what is known of a task when a ladder is forecast: other families, and the ladder itself."""
    return [ladder, *(other for other in context if other.task == ladder.task and other.family != ladder.family)]


def _by_flops(table: Sequence[ForecastLadder], ladder: ForecastLadder) -> tuple[Rows, Rows]:
    """Return the rows of a table and the targets of a ladder, by standardised ln FLOPs."""
    x = np.concatenate([entry.order for entry in table])
    y = np.concatenate([score_logit(entry.value, entry.chance) for entry in table])
    family = np.repeat(np.arange(len(table)), [len(entry.value) for entry in table])
    middle, spread = x.mean(), max(float(x.std()), 1e-9)
    targets = ladder.targets
    ahead = ladder.order.max() + ladder.beyond(targets) if targets is not None else np.empty(0)
    at = Rows((ahead - middle) / spread, np.zeros(len(ahead)), np.zeros(len(ahead), dtype=np.int64))
    return Rows((x - middle) / spread, y, family), at


class Capabilities:
    """A task from a capability, which is predicted from FLOPs; it abstains with fewer than 3 tasks."""

    name = "capability"

    def draw(self, batch: Batch, rng: np.random.Generator) -> Floats:
        """Return draws (P, R, T)."""
        draws = np.full((len(batch.ladders), DRAWS, batch.targets("params").shape[1]), np.nan)
        learnt: dict[str, Floats] = {}
        if len({other.task for other in batch.context}) < 3:
            return draws
        for p, ladder in enumerate(batch.ladders):
            table = seen(ladder, batch.context)
            if len({entry.family for entry in table}) < FEWEST or ladder.targets is None:
                continue
            levels = capability(ladder, batch.context)
            drawn = self._path(ladder, table, levels, learnt, rng)
            draws[p, :, : drawn.shape[1]] = from_logit(drawn, ladder.chance)
        return draws

    def _path(
        self,
        ladder: ForecastLadder,
        table: Sequence[ForecastLadder],
        levels: Mapping[tuple[str, float], float],
        learnt: dict[str, Floats],
        rng: np.random.Generator,
    ) -> Floats:
        """Return logits (R, T): the capability from FLOPs, and the task from it."""
        flops, ahead = _by_flops(table, ladder)
        names = [(entry.family, float(order)) for entry in table for order in entry.order]
        reached = np.array([levels[name] for name in names])
        first = Rows(flops.x, reached, flops.family)
        second = Rows(reached, flops.y, flops.family)
        for name, rows in ((" capability", first), (ladder.task, second)):
            if name not in learnt:
                learnt[name] = rows.learn()
        mean, spread = first.predict(ahead, learnt[" capability"])
        c = mean + spread * rng.standard_normal((DRAWS, len(mean)))
        grid = np.linspace(c.min(), c.max(), 25)
        at = Rows(grid, np.zeros(len(grid)), np.zeros(len(grid), dtype=np.int64))
        curve, error = second.predict(at, learnt[ladder.task])
        return np.interp(c, grid, curve) + np.interp(c, grid, error) * rng.standard_normal(c.shape)


def capability(ladder: ForecastLadder, context: Sequence[ForecastLadder]) -> dict[tuple[str, float], float]:
    """Return the capability of every model by (family, ln FLOPs), without those above the cut of the ladder's family.

    It is the first principal component of the standardised logits of all tasks, of standard deviation 1; missing
    scores are imputed from it. The sign is that of the mean score.
    """
    highest = ladder.order.max() + 1e-9
    known = [other for other in context if other.family != ladder.family]
    known += [other for other in context if other.family == ladder.family and other.task != ladder.task]
    cells = {
        (entry.family, float(x), entry.task): y
        for entry in [*known, ladder]
        for x, y in zip(entry.order, score_logit(entry.value, entry.chance), strict=True)
        if entry.family != ladder.family or x <= highest
    }
    models = sorted({key[:2] for key in cells})
    tasks = sorted({key[2] for key in cells})
    table = np.array([[cells.get((*model, task), np.nan) for task in tasks] for model in models])
    return dict(zip(models, map(float, principal(table)), strict=True))


def principal(table: Floats, rounds: int = 20) -> Floats:
    """Return the first principal component (n,) of a table (n, tasks) with missing cells, scaled to deviate by 1."""
    missing = np.isnan(table)
    apart = (table - np.nanmean(table, axis=0)) / np.maximum(np.nanstd(table, axis=0), 1e-9)
    filled = np.where(missing, 0.0, apart)
    for _ in range(rounds if missing.any() else 1):
        left, size, right = np.linalg.svd(filled - filled.mean(axis=0), full_matrices=False)
        filled = np.where(missing, size[0] * np.outer(left[:, 0], right[0]), apart)
    component = left[:, 0] * np.sign(right[0].sum())
    return np.asarray(component / max(float(component.std()), 1e-9))
