"""Speed of fitting observational laws, compared with the published loop.

    python -m tests.benchmarks.observational > results/benchmarks/observational.md

55 fits: eleven sets of components and compute on five splits of the published models, each with its own imputation and
PCA, as in the published program. Its loop is written here again in plain numpy and scipy: 1,000 rounds of imputation,
as its test of convergence never holds, and one bounded least-squares fit by scipy.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import pandas as pd
import scipy
from scipy.optimize import least_squares

from harness.host import default_host
from harness.tables import Table
from harness.types import Floats
from harness_plugins.laws.observational import Observational
from tests.benchmarks.throughput import processor
from tests.reproductions.observational import BENCHMARKS, PRODUCTS, WORDS, models
from tests.reproductions.targets import read

SPLITS = (42e21, 63e21, 84e21, 126e21, 168e21)  # FLOPs up to which models are fitted
REPEATS = 3


def published_loop(table: pd.DataFrame, benchmarks: tuple[str, ...], task: str, components: int) -> Floats:
    """Fit as the published program does; return the predictions of the ladder."""
    x, y = table[list(benchmarks)].to_numpy(), table[task].to_numpy()
    mean, scale = np.nanmean(x, axis=0), np.nanstd(x, axis=0)
    standard = (x - mean) / scale
    gaps = np.isnan(standard)
    standard[gaps] = 0.0
    for _ in range(1000):
        level = standard.mean(0)
        _, _, axes = np.linalg.svd(standard - level, full_matrices=False)
        standard[gaps] = (level + np.outer((standard - level) @ axes[0], axes[0]))[gaps]
    filled = np.clip(mean + scale * standard, 0, 1)
    _, _, axes = np.linalg.svd(filled - filled.mean(0), full_matrices=False)
    axes = axes * np.where(axes.sum(axis=1, keepdims=True) < 0, -1.0, 1.0)  # signs as ours, for the same start
    z = (filled - filled.mean(0)) @ axes[:components].T

    def curve(w: Floats) -> Floats:
        return np.asarray(w[-1] + (1 - w[-1]) / (1 + np.exp(-(w[0] + z @ w[1:-1]))))

    start = np.array([0.0, *[0.03] * components, 0.0])
    bounds = ([*[-100.0] * (components + 1), 0.0], [*[100.0] * (components + 1), 0.2])
    return curve(least_squares(lambda w: curve(w) - y, start, bounds=bounds, max_nfev=10_000).x)


def ours(table: pd.DataFrame, benchmarks: tuple[str, ...], task: str, components: int) -> Floats:
    """Fit the law; return the predictions of the ladder."""
    law = Observational(benchmarks, components)
    return law.predict(law.fit(table, task, np.random.default_rng(0)), table)


def sweep(fit: Callable[..., Floats]) -> tuple[float, list[Floats]]:
    """Return the seconds of 55 fits, and the predictions of each."""
    table = models().merge(read("obsscaling", "emergent_tasks.csv"), on="model")
    without = tuple(name for name in BENCHMARKS if name != "gsm8k")
    kinds = [(BENCHMARKS, WORDS, k) for k in range(1, 6)] + [(without, PRODUCTS, k) for k in range(1, 6)]
    kinds.append((("mmlu", "hellaswag"), WORDS, 2))
    begun, fits = time.perf_counter(), []
    for split in SPLITS:
        ladder = table[table["flops"] <= split].reset_index(drop=True)
        fits += [fit(ladder, *kind) for kind in kinds]
    return time.perf_counter() - begun, fits


def main() -> None:
    """Print the table."""
    runs = [(sweep(ours), sweep(published_loop)) for _ in range(REPEATS)]
    own, theirs = (median(run[i][0] for run in runs) for i in (0, 1))
    squares = [np.mean((a - b) ** 2) for a, b in zip(runs[0][0][1], runs[0][1][1], strict=True)]
    rows = (
        ("harness, 55 fits", f"{own:.2f}", f"{1000 * own / 55:.1f}", ""),
        ("published loop, 55 fits", f"{theirs:.2f}", f"{1000 * theirs / 55:.1f}", f"{theirs / own:.0f}"),
    )
    same = sum(s < 1e-6 for s in squares)
    agree = f"{same} of 55 pairs of fits agree to 0.001 (root mean square of predictions)"
    notes = (
        f"{agree}; the largest difference is {np.sqrt(max(squares)):.2g}. Median of {REPEATS} runs, side by side.",
        f"{processor()}; Python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}.",
        "`python -m tests.benchmarks.observational`",
    )
    columns = ("program", "seconds", "ms a fit", "times as long")
    print(default_host().reporters["md"]([Table("observational", "Observational fits", columns, rows, notes)]), end="")


if __name__ == "__main__":
    main()
