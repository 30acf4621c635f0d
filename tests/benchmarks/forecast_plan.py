"""Interval widths that `harness forecast --plan` expects, compared with the widths after the run is made.

python -m tests.benchmarks.forecast_plan > results/forecasts/plan.md
"""

from __future__ import annotations

import numpy as np
import pandas as pd

import harness
from harness.host import default_host
from harness.tables import Measured, Table
from tests.fitting.test_forecasts import SIZES, ladder

STORES, TASKS = 12, 6
TARGET = {"params": 8.8e9, "tokens": 1.76e11}  # 64 times the FLOPs of the largest run
NEXT = {f"a size of {factor} times the parameters": factor for factor in (2, 4)}


def store(seed: int, sizes: tuple[float, ...] = SIZES) -> pd.DataFrame:
    """Return simulated points: a sigmoid in ln N for every task, counted on 500 documents."""
    return pd.concat([ladder(f"t{i}", a=-1.5 + 0.5 * i, seed=1000 * seed + i, sizes=sizes) for i in range(TASKS)])


def widths(points: pd.DataFrame) -> tuple[float, harness.Forecast]:
    """Return the mean width of the 90 % intervals of the target, and the forecast."""
    forecast = harness.forecast(points, **TARGET)
    return float((forecast.frame["high"] - forecast.frame["low"]).mean()), forecast


def compared(seed: int) -> dict[str, tuple[float, float, float]]:
    """Return the width now, expected and real, for every run that could be next."""
    points = store(seed)
    now, widths_after = widths(points)
    expected = {row[1]: row[6].value for row in widths_after.plan().rows}
    after = {
        name: widths(pd.concat([points, store(seed + STORES, (factor * SIZES[-1],))]))[0]
        for name, factor in NEXT.items()
    }
    return {name: (now, expected[name], real) for name, real in after.items()}


def main() -> None:
    """Print the table."""
    results = [compared(seed) for seed in range(STORES)]
    rows = []
    for name in NEXT:
        values = np.array([result[name] for result in results])
        error = values.std(axis=0, ddof=1) / np.sqrt(STORES)
        rows.append((name, *(Measured(*pair) for pair in zip(values.mean(axis=0), error, strict=True))))
    note = (
        f"Means ± standard errors over {STORES} simulated stores of {TASKS} tasks and 5 sizes, target 64 times the "
        "FLOPs of the largest run. `python -m tests.benchmarks.forecast_plan`"
    )
    columns = ("next run", "width now", "expected width", "width after the run")
    table = Table(
        "plan", "Expected and real widths of 90 % intervals after the next run", columns, tuple(rows), (note,)
    )
    print(default_host().reporters["md"]([table]))


if __name__ == "__main__":
    main()
