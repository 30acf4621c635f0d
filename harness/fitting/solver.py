"""Solve many small least-squares problems as one batch: all starts of a fit, or all its resamples.

Levenberg-Marquardt (Marquardt 1963) with box bounds: parameters that would cross a bound are frozen. With Huber's loss
two steps are computed and the better one is taken: iteratively reweighted least squares, which converges slowly if the
corner is far below the scatter, and Newton's method, whose normal matrix uses only residuals inside the corner (Madsen
and Nielsen 1990) and is singular without any. SciPy solves one problem at a time: a thousand resamples of a law with
four parameters take minutes, and less than a second here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from harness.types import Bools, Floats, Ints

Residuals = Callable[[Floats, Ints], Floats]
"""(params (b, p), numbers of the problems (b,)) -> residuals (b, n), in units of Huber's delta where there is one"""
Slopes = Callable[[Floats, Ints], "tuple[Floats, Floats] | None"]
"""the same -> residuals (b, n) and their derivatives (b, p, n), or None where there are none"""

GIVE_UP = 1e12  # damping above which a search ends
STEP = 1e-11  # relative length of a step that ends a search
BLOCK = 60_000  # residuals per batch, so that they fit into the processor's cache
DIFFERENCE = 6e-6  # about the cube root of the machine's precision, for central differences


@dataclass(frozen=True)
class Solution:
    """The minimum of each problem: params (b, p), cost (b,), and whether the search ended by itself (b,)."""

    params: Floats
    cost: Floats
    converged: Bools


@dataclass(frozen=True)
class Problem:
    """Residuals from a target (B, n), the box of their parameters (p,), and weights (B, n) of the loss of each.

    Without `slopes`, derivatives are central differences.
    """

    residuals: Residuals
    lower: Floats
    upper: Floats
    target: Floats
    weights: Floats | None = None
    huber: bool = False
    slopes: Slopes | None = None

    def cost(self, params: Floats, which: Ints) -> Floats:
        """Return the objective of problems (b,); infinite if a residual is not finite."""
        missed = self.residuals(params, which)
        with np.errstate(over="ignore", invalid="ignore"):
            if self.huber:
                size = np.abs(missed)
                inside = np.minimum(size, 1.0)
                loss = inside * (size - 0.5 * inside)  # size^2 / 2, and size - 1 / 2 beyond the corner
            else:
                loss = 0.5 * np.square(missed)
            total = (loss if self.weights is None else loss * rows_at(self.weights, which)).sum(1)
        return np.where(np.isfinite(total), total, np.inf)

    def equations(self, params: Floats, which: Ints) -> tuple[Floats, Floats]:
        """Return the gradient (b, p) and the normal matrices (s, b, p, p), one per kind of step.

        Squares have one kind, Huber's loss has two: iterated reweighting and Newton's method.
        """
        value, jacobian = self.linearised(params, which)  # (b, n), (b, p, n)
        pull, curvatures = self._pulls(value, None if self.weights is None else rows_at(self.weights, which))
        turned = jacobian.swapaxes(1, 2)
        with np.errstate(over="ignore", invalid="ignore"):  # a step from equations that overflow fails
            normals = [
                (jacobian if curvature is None else jacobian * curvature[:, None]) @ turned for curvature in curvatures
            ]
            return (jacobian @ pull[:, :, None])[:, :, 0], np.stack(normals)

    def steps(self, params: Floats, equations: tuple[Floats, Floats], damping: Floats) -> Iterator[Floats]:
        """Yield damped steps (b, p) for damping (s, b), one per kind; parameters at an active bound stay.

        `equations` are those at params (b, p), and are overwritten.
        """
        gradient, normals = equations
        stuck = ((params <= self.lower) & (gradient > 0)) | ((params >= self.upper) & (gradient < 0))
        gradient[stuck] = 0.0
        diagonal = np.einsum("bpp->bp", normals[0]).copy()
        floor = 1e-14 * diagonal.max(1, keepdims=True) + 1e-300
        for normal, kind_damping in zip(normals, damping, strict=True):
            with np.errstate(over="ignore", invalid="ignore"):
                np.einsum("bpp->bp", normal)[:] += kind_damping[:, None] * np.maximum(diagonal, floor) + floor
            normal[stuck[:, :, None] | stuck[:, None, :]] = 0.0
            np.einsum("bpp->bp", normal)[stuck] = 1.0
            yield np.asarray(-np.linalg.solve(normal, gradient[:, :, None])[:, :, 0], dtype=np.float64)

    def _pulls(self, value: Floats, weights: Floats | None) -> tuple[Floats, list[Floats | None]]:
        """Return the derivative of the loss by residuals (b, n), and its curvature per kind of step (None: 1)."""
        if not self.huber:
            return value if weights is None else weights * value, [weights]
        size = np.abs(value)
        weight = np.ones_like(value) if weights is None else weights
        return weight * np.clip(value, -1, 1), [weight / np.maximum(size, 1.0), weight * (size <= 1)]

    def linearised(self, params: Floats, which: Ints) -> tuple[Floats, Floats]:
        """Return residuals (b, n) and their derivatives (b, p, n); non-finite ones are set to 0."""
        analytic = self.slopes(params, which) if self.slopes else None
        value, slopes = analytic or (self.residuals(params, which), self.differences(params, which))
        with np.errstate(over="ignore", invalid="ignore"):
            total = slopes.sum()  # finite only if all are
        if not np.isfinite(total):
            slopes = np.nan_to_num(slopes, nan=0.0, posinf=0.0, neginf=0.0)
        return value, slopes

    def differences(self, params: Floats, which: Ints) -> Floats:
        """Return central differences (b, p, n), one-sided at bounds."""
        b, p = params.shape
        h = DIFFERENCE * np.maximum(np.abs(params), 1e-3)  # (b, p)
        up = np.minimum(params + h, self.upper) - params
        down = params - np.maximum(params - h, self.lower)
        moves = np.concatenate([np.eye(p)[:, None] * up, -np.eye(p)[:, None] * down])  # (2p, b, p)
        moved = self.residuals((params + moves).reshape(-1, p), np.tile(which, 2 * p)).reshape(2, p, b, -1)
        run = np.maximum((up + down).T, 1e-300)[:, :, None]  # (p, b, 1)
        with np.errstate(invalid="ignore"):
            return np.moveaxis((moved[0] - moved[1]) / run, 0, 1)

    def leverage(self, params: Floats, units: Ints) -> Floats:
        """Return the leverage of each unit (G,), 0 to 1: response of the fit at params (p,) to a shift of its points.

        `units` (m,) are those of the first m residuals. With one point per unit it is the diagonal of the hat matrix;
        parameters at a bound are fixed. Valid for squares, not for Huber's loss.
        """
        slopes = self.linearised(params[None], np.zeros(1, dtype=np.int64))[1][0]
        free = (params > self.lower) & (params < self.upper)
        basis = np.linalg.qr(slopes[free].T)[0][: len(units)]  # (m, p)
        sums = np.zeros((int(units.max()) + 1, basis.shape[1]))
        np.add.at(sums, units, basis)
        leverages: Floats = np.square(sums).sum(1) / np.bincount(units)
        return leverages

    def rank(self, params: Floats) -> int:
        """Return the rank of the Jacobian at params (p,), with columns of equal norm."""
        jacobian = self.linearised(params[None], np.zeros(1, dtype=np.int64))[1][0].T  # (n, p)
        scale = np.linalg.norm(jacobian, axis=0)
        return int(np.linalg.matrix_rank(jacobian / np.where(scale > 0, scale, 1.0), tol=1e-7))


@dataclass(frozen=True)
class Effort:
    """Stopping rule: relative improvement of the cost (plus `floor`) below `tolerance`, or the last of `iterations`."""

    iterations: int = 300
    tolerance: float = 1e-14
    floor: float = 0.0


def rows_at(array: Floats, which: Ints) -> Floats:
    """Return rows (b, n) of an array by their ascending numbers (b,): a view where they follow one another."""
    if len(which) and which[-1] - which[0] + 1 == len(which):
        return array[which[0] : which[-1] + 1]
    return array[which]


def minimise(problem: Problem, starts: Floats, effort: Effort = Effort()) -> Solution:  # frozen
    """Minimise half the sum of squares (or of Huber's loss with delta 1) of each problem from its start (b, p).

    A step with non-finite residuals fails; a problem that starts there keeps an infinite cost.
    """
    params = np.clip(np.asarray(starts, dtype=np.float64), problem.lower, problem.upper)
    size = max(BLOCK // problem.target.shape[1], 1)
    blocks = [np.arange(i, min(i + size, len(params))) for i in range(0, len(params), size)]
    solved = [_minimise(problem, params[block], block, effort) for block in blocks]
    return Solution(*(np.concatenate(parts) for parts in zip(*(vars(s).values() for s in solved), strict=True)))


def _minimise(problem: Problem, params: Floats, numbers: Ints, effort: Effort) -> Solution:
    """Minimise the problems of these numbers (b,) from params (b, p), which are overwritten.

    Each kind of step has its own damping; the best step is taken.
    """
    (b, p), kinds = params.shape, 2 if problem.huber else 1
    cost = problem.cost(params, numbers)
    damping = np.full((kinds, b), 1e-3)
    gradient, normals = np.empty((b, p)), np.empty((kinds, b, p, p))
    active, moved = np.isfinite(cost), np.ones(b, dtype=bool)  # moved: since the last equations
    for _ in range(effort.iterations):
        at = np.flatnonzero(active)
        if not len(at):
            break
        stale = at[moved[at]]
        if len(stale):
            gradient[stale], normals[:, stale] = problem.equations(params[stale], numbers[stale])
            moved[stale] = False
        old, before, which = params[at], cost[at], numbers[at]
        length, idle = np.zeros(len(at)), np.ones(len(at), dtype=bool)
        for kind, move in enumerate(problem.steps(old, (gradient[at], normals[:, at]), damping[:, at])):
            new = np.clip(old + move, problem.lower, problem.upper)
            new_cost = problem.cost(new, which)
            better, is_best = new_cost < before, new_cost < cost[at]
            best = at[is_best]
            params[best], cost[best], moved[best] = new[is_best], new_cost[is_best], True
            damping[kind, at] = np.where(better, np.maximum(damping[kind, at] / 5, 1e-15), damping[kind, at] * 4)
            length = np.maximum(length, np.abs(new - old).max(1) / (np.abs(old).max(1) + 1e-30))
            idle &= better
        idle &= before - cost[at] < effort.tolerance * (cost[at] + effort.floor)
        active[at] = ~((length < STEP) | (damping[:, at] > GIVE_UP).all(0) | idle)
    return Solution(params, cost, np.isfinite(cost) & ~active)
