"""Time of fits, compared with plain scipy in the same run and to the same optimum.

    python -m tests.benchmarks.laws > results/benchmarks/laws.md

Approach 3 of Hoffmann et al. on the 240 points of Besiroglu et al.: from the 4,500 published starts with L-BFGS-B and
finite differences, and 4,000 resamples of the points with L-BFGS-B and written gradients, as these authors do; beside
`harness.fit` from its generic starts, and with the same resamples. Of scipy's fits every tenth is run, and its time
taken ten times. Seconds are those of the processor, so that what else runs on the machine counts little. Then those of
every published fit of a formula.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from itertools import product
from statistics import median
from typing import Any

import numpy as np
from scipy.optimize import minimize

from harness.host import default_host
from harness.tables import Table
from harness.types import Floats
from tests.benchmarks.throughput import processor
from tests.reproductions import losses, sampling, synthetic, tasks
from tests.reproductions.targets import quick, read

REPEATS = 5
RESAMPLES = 4000
SHARE = 10  # one in so many of scipy's fits is run
DELTA = 1e-3
STARTS = ((0.0, 5.0, 10.0, 15.0, 20.0, 25.0), (0.0, 0.5, 1.0, 1.5, 2.0), (-1.0, -0.5, 0.0, 0.5, 1.0))


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Return the processor's seconds of a call, and what it returns."""
    begun = time.process_time()
    result = run()
    return time.process_time() - begun, result


class Scipy:
    """Approach 3 as its authors fit it: parameters a, b, e = ln E, alpha, beta without bounds."""

    def __init__(self) -> None:
        points = read("epoch", "chinchilla_points_240.csv")
        self.n, self.d, self.y = (np.log(points[name].to_numpy()) for name in ("params", "tokens", "loss"))

    def terms(self, p: Floats) -> Floats:
        """Return the logarithms of the three terms (3, 240)."""
        return np.stack([p[0] - p[3] * self.n, p[1] - p[4] * self.d, np.full_like(self.n, p[2])])

    def objective(self, p: Floats, weights: Floats | float = 1.0) -> float:
        """Return the weighted sum of Huber's loss."""
        miss = np.abs(np.log(np.exp(self.terms(p)).sum(0)) - self.y)
        return float((weights * np.where(miss <= DELTA, miss**2 / 2, DELTA * (miss - DELTA / 2))).sum())

    def with_gradient(self, p: Floats, weights: Floats) -> tuple[float, Floats]:
        """Return the same and its gradient (5,)."""
        terms = self.terms(p)
        total = np.log(np.exp(terms).sum(0))
        miss = total - self.y
        size = np.abs(miss)
        value = float((weights * np.where(size <= DELTA, miss**2 / 2, DELTA * (size - DELTA / 2))).sum())
        share = np.exp(terms - total) * (weights * np.clip(miss, -DELTA, DELTA))
        by_exponents = [-(share[0] * self.n).sum(), -(share[1] * self.d).sum()]
        return value, np.array([*share.sum(1), *by_exponents])

    def from_grid(self) -> float:
        """Return the best objective from some of the published starts, derivatives by finite differences."""
        sizes, exponents, offsets = STARTS
        grid = np.array(list(product(sizes, sizes, offsets, exponents, exponents)))
        drawn = np.random.default_rng(0).permutation(grid)[: len(grid) // SHARE]
        return min(float(minimize(self.objective, start, method="L-BFGS-B").fun) for start in drawn)

    def bootstrap(self, best: Floats, weights: Floats) -> Floats:
        """Return alpha and beta (R, 2) of every resample."""
        tight = {"ftol": 1e-14, "gtol": 1e-9, "maxiter": 1000}  # with the default they stop where they begin
        solutions = (
            minimize(self.with_gradient, best, args=(w,), jac=True, method="L-BFGS-B", options=tight).x for w in weights
        )
        return np.array([p[3:] for p in solutions])


def side_by_side() -> Table:
    """Time both on the same points."""
    plain, points = Scipy(), read("epoch", "chinchilla_points_240.csv")
    rng = np.random.default_rng(0)
    weights = rng.multinomial(240, np.full(240, 1 / 240), size=RESAMPLES).astype(np.float64)
    runs = [timed(lambda: quick(points, "chinchilla", "loss")) for _ in range(REPEATS)]
    draws = [timed(lambda: quick(points, "chinchilla", "loss", weights=weights)) for _ in range(REPEATS)]
    published, given = timed(lambda: quick(points, "chinchilla", "loss", starts="published"))
    p = runs[0][1].steps[0].parameters
    grid, objective = timed(plain.from_grid)
    grid *= SHARE
    best = np.array([p["a"], p["b"], np.log(p["E"]), p["alpha"], p["beta"]])
    resampled, theirs = timed(lambda: plain.bootstrap(best, weights[::SHARE]))
    resampled *= SHARE
    ours = draws[0][1].steps[0].draws[::SHARE, [2, 4]]
    fit, boot = median(seconds for seconds, _ in runs), median(seconds for seconds, _ in draws)
    step = runs[0][1].steps[0]
    rows = (
        ("fit, 4,500 starts of L-BFGS-B, finite differences", grid, f"objective {objective:.8g}", 1.0),
        (f"the same starts, harness ({given.steps[0].agree} agree)", published, _cost(given), grid / published),
        (f"fit, harness, 32 generic starts ({step.agree} agree)", fit, _cost(runs[0][1]), grid / fit),
        ("4,000 resamples, L-BFGS-B, written gradients", resampled, _errors(theirs), 1.0),
        ("fit and the same 4,000 resamples, harness", boot, _errors(ours), resampled / boot),
    )
    cells = tuple((what, f"{seconds:.3g}", found, f"{ratio:.0f}") for what, seconds, found, ratio in rows)
    how = (
        f"`python -m tests.benchmarks.laws`; of ours the median of {REPEATS} runs, of scipy's one, of every {SHARE}th "
        f"fit and times {SHARE}; errors are those of these resamples. Seconds of one processor."
    )
    versions = f"{processor()}; Python {platform.python_version()}, numpy {np.__version__}, scipy {_scipy()}."
    notes = (versions, how)
    return Table("laws", "A fit of loss, and its errors", ("what", "seconds", "found", "times as fast"), cells, notes)


def _cost(solution: Any) -> str:
    return f"objective {solution.steps[0].cost:.8g}"


def _errors(draws: Floats) -> str:
    return "errors of alpha {:.5f}, beta {:.5f}".format(*draws.std(axis=0, ddof=1))


def _scipy() -> str:
    import scipy

    return str(scipy.__version__)


def every_target() -> Table:
    """Time every published fit of a formula."""
    rows = []
    for target in [*losses.TARGETS, *tasks.TARGETS, *sampling.TARGETS, *synthetic.TARGETS]:
        seconds = timed(target.compute)[0]
        rows.append((target.name, target.procedure, f"{seconds:.2f}"))
    notes = ("One run, with reading the file; several fits where the procedure has several.",)
    return Table("targets", "Published fits made again", ("target", "procedure", "seconds"), tuple(rows), notes)


def main() -> None:
    """Print the tables."""
    print(default_host().reporters["md"]([side_by_side(), every_target()]))


if __name__ == "__main__":
    main()
