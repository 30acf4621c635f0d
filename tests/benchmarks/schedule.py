"""The scheduler of executors, simulated on the largest sweeps: how much GPU time goes into cells that are kept.

    python -m tests.benchmarks.schedule > results/benchmarks/schedule.md

500 checkpoints of five sizes x 60 tasks on 64 GPUs. The code that decides is the product's (schedule.py); the clock,
the costs and the failures are simulated. Estimates of a cell are wrong by a factor that is drawn anew for every size,
task and cell. No number of this table was measured on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from harness.evaluation.schedule import Work
from harness.evaluation.schedule_simulation import Faults, SweepOutcome, simulate
from harness.host import default_host
from harness.tables import Table

SIZES = {"0.4B": (0.4e9, 150), "1.2B": (1.2e9, 150), "3B": (3e9, 100), "7B": (7e9, 70), "13B": (13e9, 30)}
TASKS, WORKERS, SEEDS = 60, 64, 5
TOKENS = (2e5, 2e7)  # of a task, log-uniform: ARC 0-shot to MMLU 5-shot without shared blocks
RATE = 2e14  # FLOP/s of one GPU
READ = 2e9  # bytes of weights a second, 2 bytes a parameter
CELL = 0.05  # seconds of a cell besides
START = 60.0  # seconds of an engine of another size


@dataclass(frozen=True)
class Case:
    """What goes wrong: spread of the estimates (of log seconds), hours a worker lives, seconds until it is replaced."""

    name: str
    spread: float = 0.0
    lives: float = float("inf")
    restart: float = 0.0
    checkpoints: float = 1.0  # share of the sweep


CASES = (
    Case("nothing goes wrong"),
    Case("estimates wrong by a factor of 1.5", 0.4),
    Case("estimates wrong by a factor of 2", 0.7),
    Case("and a worker dies every 24 h", 0.4, 24, 180),
    Case("and a worker dies every 6 h", 0.4, 6, 180),
    Case("and a worker dies every 2 h", 0.4, 2, 180),
    Case("a tenth of the sweep, estimates wrong by 1.5", 0.4, checkpoints=0.1),
)


def sweep(rng: np.random.Generator, share: float) -> list[Work]:
    """Return the works of a sweep, as they are estimated."""
    tokens = np.exp(rng.uniform(*np.log(TOKENS), TASKS))
    works = []
    for size, (params, n) in SIZES.items():
        for i in range(round(share * n)):
            cells = {f"{size} {i} {task}": CELL + 2 * params * t / RATE for task, t in enumerate(tokens)}
            works.append(Work(size, cells, 2 * params / READ))
    return works


def run(case: Case, seed: int) -> tuple[SweepOutcome, int]:
    """Return what became of a case, and how many cells it has."""
    rng = np.random.default_rng(seed)
    works = sweep(rng, case.checkpoints)
    wrong = {(size, task): rng.lognormal(0, case.spread) for size in SIZES for task in range(TASKS)}
    real = {
        cell: seconds * wrong[cell.split()[0], int(cell.split()[2])] * rng.lognormal(0, case.spread / 4)
        for work in works
        for cell, seconds in work.cells.items()
    }
    faults = Faults(lambda: float(rng.exponential(3600 * case.lives)), case.restart)
    return simulate(works, WORKERS, start=START, seconds=lambda _, cell: real[cell], faults=faults), len(real)


def row(case: Case) -> tuple[object, ...]:
    """Return a row of the table; raise where a cell was not done once."""
    runs = [run(case, seed) for seed in range(SEEDS)]
    for outcome, cells in runs:
        once = sum(times == 1 for times in outcome.times_done.values())
        if once + len(outcome.failed) != cells:
            raise SystemExit(f"{case.name}: {once} of {cells} cells were done once, {len(outcome.failed)} failed")
    outcomes = [outcome for outcome, _ in runs]
    shares = sorted(100 * outcome.share for outcome in outcomes)
    hours = median(outcome.end for outcome in outcomes) / 3600
    deaths, failed = (median(values) for values in _counts(outcomes))
    return (case.name, runs[0][1], f"{hours:.2f}", f"{deaths:.0f}", f"{failed:.0f}", f"{shares[SEEDS // 2]:.1f}",
            f"{shares[0]:.1f}")  # fmt: skip


def _counts(outcomes: Sequence[SweepOutcome]) -> tuple[list[int], list[int]]:
    return [outcome.deaths for outcome in outcomes], [len(outcome.failed) for outcome in outcomes]


def main() -> None:
    """Print the table."""
    columns = ("case", "cells", "hours", "deaths", "failed cells", "useful GPU time, %", "least, %")
    sizes = ", ".join(f"{n} of {size}" for size, (_, n) in SIZES.items())
    about = (
        f"Simulated: {sizes}; {TASKS} tasks of {TOKENS[0]:.0e} to {TOKENS[1]:.0e} tokens; {WORKERS} GPUs at "
        f"{RATE:.0e} FLOP/s; weights read at {READ:.0e} bytes/s, nothing of it hidden by reading ahead; {START:.0f} s "
        f"to start an engine of another size; {CELL} s per cell besides; 180 s until a dead worker is replaced."
    )
    useful = "Useful: time on cells that were kept, of all GPUs until the last cell. "
    useful += f"Medians and the least of {SEEDS} seeds. No cell was done twice."
    command = (
        "`python -m tests.benchmarks.schedule`; the scheduler is harness/evaluation/schedule.py, costs are assumed."
    )
    notes = (about, useful, command)
    rows = tuple(row(case) for case in CASES)
    print(default_host().reporters["md"]([Table("schedule", "Sweeps on 64 GPUs, simulated", columns, rows, notes)]))


if __name__ == "__main__":
    main()
