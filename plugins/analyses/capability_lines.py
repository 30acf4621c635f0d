"""Capabilities of models (principal components of benchmarks), and what families achieve per compute.

The method is that of Ruan et al. 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness import Floats, Ints, LawError, Range, UsageError
from harness_plugins.laws.capabilities import Space

if TYPE_CHECKING:
    import pandas as pd

FEWEST = 3  # models of known compute needed to fit a family
DRAWS = 10_000
RIDGE = 1e-6  # keeps the design invertible for the first few models


def coordinates(points: pd.DataFrame, benchmarks: Sequence[str]) -> tuple[pd.DataFrame, Space]:
    """Return points with columns pc1, pc2 .. (principal components of benchmark scores), and their space.

    Ruan et al. 2024, sec. 3; missing scores are imputed. Raises LawError for scores outside [0, 1].
    """
    from harness.points import readable

    scores = np.column_stack([readable(points, name) for name in benchmarks]).astype(np.float64)
    if np.nanmin(scores) < 0 or np.nanmax(scores) > 1:
        raise LawError(f"benchmarks run from {np.nanmin(scores):.4g} to {np.nanmax(scores):.4g}; expected 0 to 1")
    space = Space.of(scores)
    projected = space.coordinates(scores)
    return points.assign(**{f"pc{k}": x for k, x in enumerate(projected.T, 1)}), space


@dataclass(frozen=True)
class Lines:
    """Lines PC1 = theta log10 C + nu of families (F,), with one pooled residual standard deviation.

    `inverse` (F, 2, 2) is (X' X)^-1 of each line, for (theta, nu). `flops` (F, 2) is the range of compute fitted.
    `scatter` is the pooled residual standard deviation with `dof` degrees of freedom.
    """

    names: tuple[str, ...]
    theta: Floats
    nu: Floats
    r2: Floats
    n: Ints
    inverse: Floats
    flops: Floats
    scatter: float
    dof: int

    def errors(self) -> Floats:
        """Return the standard errors (F,) of theta."""
        return np.asarray(self.scatter * np.sqrt(self.inverse[:, 0, 0]))

    def draws(self, family: str, rng: np.random.Generator) -> Floats:
        """Return draws (DRAWS, 2) of theta and nu of a family, from Student's t."""
        f = self.names.index(family)
        scale = self.scatter * np.sqrt(self.dof / rng.chisquare(self.dof, size=(DRAWS, 1)))
        normal = rng.normal(size=(DRAWS, 2)) @ np.linalg.cholesky(self.inverse[f]).T
        return np.asarray([self.theta[f], self.nu[f]] + scale * normal)


def efficiency(points: pd.DataFrame, column: str = "pc1") -> Lines:
    """Fit the line of each family with three models or more of known flops (Ruan et al. 2024, sec. 3.3).

    All lines share one residual variance, because three points leave one degree of freedom. Raises LawError if no
    family has enough models.
    """
    from harness.points import column as values

    known = points[points["flops"] > 0]
    fitted = [(str(f), t) for f, t in known.groupby("family") if t["flops"].nunique() >= FEWEST]
    if not fitted:
        raise LawError(f"no family has {FEWEST} models of known flops; found {len(known)} models with flops in total")
    fits, squares = [], 0.0
    for _, table in fitted:
        x, y = np.log10(values(table, "flops")), values(table, column)
        design = np.column_stack([x, np.ones_like(x)])
        line = np.linalg.lstsq(design, y, rcond=None)[0]
        residual = float(((y - design @ line) ** 2).sum())
        squares += residual
        r2 = 1 - residual / float(((y - y.mean()) ** 2).sum())
        fits.append((line, r2, len(x), np.linalg.inv(design.T @ design), 10 ** np.array([x.min(), x.max()])))
    lines, shares, n, inverse, flops = (np.array(x) for x in zip(*fits, strict=True))
    dof = int(n.sum() - 2 * len(n))
    names = tuple(name for name, _ in fitted)
    return Lines(names, lines[:, 0], lines[:, 1], shares, n, inverse, flops, float(np.sqrt(squares / dof)), dof)


def equivalents(
    points: pd.DataFrame, lines: Lines, reference: str, *, level: float = 0.9, seed: int = 0
) -> list[tuple[pd.Series[Any], Range, Range]]:
    """Return, for each model of known flops, C_eq = 10^((PC1 - nu) / theta) of a reference family, and C_eq / C.

    C_eq is the compute that the reference family needs for the same capability. Intervals are those of the reference
    line. Raises UsageError for a family without a line.
    """
    if reference not in lines.names:
        raise UsageError(f"--reference {reference!r} has no fitted line; expected one of: {', '.join(lines.names)}")
    f, draws = lines.names.index(reference), lines.draws(reference, np.random.default_rng(seed))
    tails = [(1 - level) / 2, (1 + level) / 2]
    equivalent = []
    for _, row in points[points["flops"] > 0].iterrows():
        with np.errstate(over="ignore", divide="ignore"):
            best = 10 ** ((row["pc1"] - lines.nu[f]) / lines.theta[f])
            low, high = np.quantile(10 ** ((row["pc1"] - draws[:, 1]) / draws[:, 0]), tails)
        gain = Range(*(float(x / row["flops"]) for x in (best, low, high)))
        equivalent.append((row, Range(float(best), float(low), float(high)), gain))
    return equivalent


def select(capabilities: Floats, count: int) -> tuple[list[int], float]:
    """Select the rows of (n, K) that minimise the prediction variance at all rows (V-optimality, Ruan et al. 2024).

    Returns row numbers, and the mean prediction variance relative to that with all rows measured (1: no loss). Greedy
    selection is followed by exchanges until none improves the criterion.
    """
    design = np.column_stack([np.ones(len(capabilities)), capabilities])  # (n, K + 1)
    if not design.shape[1] <= count <= len(design):
        raise UsageError(f"{count} models to select: expected {design.shape[1]} to {len(design)}")
    everything = design.T @ design

    def variance(moments: Floats) -> Floats:
        return np.asarray(np.einsum("...ij,ji->...", np.linalg.inv(moments), everything))

    outer = design[:, :, None] * design[:, None, :]  # (n, K + 1, K + 1)
    moments = RIDGE * np.eye(design.shape[1])
    chosen: list[int] = []
    for _ in range(count):
        cost = variance(moments + outer)
        cost[chosen] = np.inf
        chosen.append(int(np.argmin(cost)))
        moments = moments + outer[chosen[-1]]
    while True:
        swaps = variance((moments - outer[chosen])[:, None] + outer)  # (count, n): one out, another in
        swaps[:, chosen] = np.inf
        i, j = np.unravel_index(int(np.argmin(swaps)), swaps.shape)
        if swaps[i, j] >= variance(moments) * (1 - 1e-9):
            break
        moments = moments - outer[chosen[i]] + outer[j]
        chosen[i] = int(j)
    return sorted(chosen), float(variance(moments) / design.shape[1])
