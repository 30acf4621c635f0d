"""Idle time of the processor between the checkpoints of a sweep.

    python -m tests.benchmarks.sweep > results/benchmarks/sweep.md

The sweep of the demo, 27 nano checkpoints and eight tasks of 400 documents, on an empty store. Idle is the time from
the last forward pass of a checkpoint to the first of the next that scores documents: writing, swapping or loading
weights, and the checks of what the engine may share with these weights, which are forward passes too.
"""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import harness
from harness.host import default_host
from harness.tables import Table
from harness_plugins.engines.forwards import Forwards
from harness_plugins.engines.transformers import TransformersEngine
from tests.benchmarks.throughput import processor, versions

TASKS = ("addition", "agreement", "birthplace", "flag", "job", "ordering", "saying", "text")
REPEATS = 2


@dataclass
class Clock:
    """The forward passes that score documents: begin and end of each, by checkpoint; and the seconds of all checks."""

    passes: list[list[tuple[float, float]]] = field(default_factory=list)
    checks: list[float] = field(default_factory=list)
    is_check: bool = False

    def of_pass(self, run: Callable[..., Any]) -> Callable[..., Any]:
        """Return a pass that is timed."""

        def timed(*arguments: Any, **settings: Any) -> Any:
            begun = time.perf_counter()
            answer = run(*arguments, **settings)
            if not self.is_check:
                self.passes[-1].append((begun, time.perf_counter()))
            return answer

        return timed

    def of_checks(self, serve: Callable[..., Any]) -> Callable[..., Any]:
        """Return the checks, timed, with which a checkpoint begins."""

        def timed(*arguments: Any) -> Any:
            self.passes.append([])
            self.is_check, begun = True, time.perf_counter()
            result = serve(*arguments)
            self.is_check = False
            self.checks.append(time.perf_counter() - begun)
            return result

        return timed

    @property
    def idle(self) -> float:
        """Return the seconds between the checkpoints."""
        ends = zip(self.passes, self.passes[1:], strict=False)
        return sum(after[0][0] - before[-1][1] for before, after in ends)


def sweep() -> tuple[float, Clock]:
    """Return the seconds of a sweep, and its forward passes."""
    clock = Clock()
    begun = time.perf_counter()
    with ExitStack() as stack:
        for name in ("packed", "plain"):
            stack.enter_context(mock.patch.object(Forwards, name, clock.of_pass(getattr(Forwards, name))))
        serve = clock.of_checks(TransformersEngine._serve)  # what follows each swap
        stack.enter_context(mock.patch.object(TransformersEngine, "_serve", serve))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        tasks = [f"nano_{name}" for name in TASKS]
        harness.evaluate(["aster", "birch", "cedar"], tasks, Path(folder) / "store", limit=400).check()
    return time.perf_counter() - begun, clock


def main() -> None:
    """Print the table."""
    runs = [sweep() for _ in range(REPEATS)]
    rows = []
    for number, (seconds, clock) in enumerate(runs, 1):
        share = 100 * clock.idle / seconds
        cells = (f"{seconds:.1f}", f"{clock.idle:.2f}", f"{share:.1f}", f"{sum(clock.checks[1:]):.2f}")
        rows.append((str(number), len(clock.passes), *cells))
    middle = median(100 * clock.idle / seconds for seconds, clock in runs)
    rows.append(("median", len(runs[0][1].passes), "", "", f"{middle:.1f}", ""))
    columns = ("run", "checkpoints", "seconds", "idle between, s", "idle between, %", "of it checks, s")
    notes = (
        f"{processor()}; Python {platform.python_version()}, {versions()}.",
        "`python -m tests.benchmarks.sweep`; the first run also pays for imports.",
    )
    print(default_host().reporters["md"]([Table("sweep", "Between checkpoints", columns, tuple(rows), notes)]))


if __name__ == "__main__":
    main()
