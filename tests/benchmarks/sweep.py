"""Idle time of the processor between the checkpoints of a sweep.

    python -m tests.benchmarks.sweep > results/benchmarks/sweep.md

The sweep of the demo, 27 nano checkpoints and eight tasks of 400 documents, on an empty store. Idle is the time from
the last forward pass of a checkpoint to the first of the next that scores documents: writing, loading or swapping
weights, and the canary.
"""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import harness
from harness.host import default_host
from harness.tables import Table
from harness_plugins.engines import transformers as engine
from harness_plugins.engines.forwards import Forwards
from tests.benchmarks.throughput import processor, versions

TASKS = ("addition", "agreement", "birthplace", "flag", "job", "ordering", "saying", "text")
REPEATS = 2


@dataclass
class Clock:
    """The forward passes of a sweep: begin and end of each, by checkpoint; those of canaries are not among them."""

    passes: list[list[tuple[float, float]]] = field(default_factory=list)
    canaries: list[float] = field(default_factory=list)
    is_canary: bool = False

    def of_pass(self, run: Callable[..., Any]) -> Callable[..., Any]:
        """Return a pass that is timed."""

        def timed(*arguments: Any, **settings: Any) -> Any:
            begun = time.perf_counter()
            answer = run(*arguments, **settings)
            if not self.is_canary:
                self.passes[-1].append((begun, time.perf_counter()))
            return answer

        return timed

    def of_canary(self, run: Callable[..., Any]) -> Callable[..., Any]:
        """Return a canary that is timed, with which a checkpoint begins."""

        def timed(*arguments: Any) -> Any:
            self.passes.append([])
            self.is_canary, begun = True, time.perf_counter()
            result = run(*arguments)
            self.is_canary = False
            self.canaries.append(time.perf_counter() - begun)
            return result

        return timed

    @property
    def idle(self) -> float:
        """Return the seconds between the checkpoints."""
        ends = zip(self.passes, self.passes[1:], strict=False)
        return sum(after[0][0] - before[-1][1] for before, after in ends)


def sweep() -> tuple[float, Clock]:
    """Return the seconds of a sweep, and its forward passes."""
    clock, kept = Clock(), (Forwards.packed, Forwards.plain, engine.sharing_of)
    Forwards.packed, Forwards.plain = clock.of_pass(kept[0]), clock.of_pass(kept[1])  # type: ignore[method-assign]
    engine.sharing_of = clock.of_canary(kept[2])
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        tasks = [f"nano_{name}" for name in TASKS]
        harness.evaluate(["aster", "birch", "cedar"], tasks, Path(folder) / "store", limit=400).check()
    Forwards.packed, Forwards.plain, engine.sharing_of = kept  # type: ignore[method-assign]
    return time.perf_counter() - begun, clock


def main() -> None:
    """Print the table."""
    runs = [sweep() for _ in range(REPEATS)]
    rows = []
    for number, (seconds, clock) in enumerate(runs, 1):
        share = 100 * clock.idle / seconds
        cells = (f"{seconds:.1f}", f"{clock.idle:.2f}", f"{share:.1f}", f"{sum(clock.canaries[1:]):.2f}")
        rows.append((str(number), len(clock.passes), *cells))
    middle = median(100 * clock.idle / seconds for seconds, clock in runs)
    rows.append(("median", len(runs[0][1].passes), "", "", f"{middle:.1f}", ""))
    columns = ("run", "checkpoints", "seconds", "idle between, s", "idle between, %", "of it canaries, s")
    notes = (
        f"{processor()}; Python {platform.python_version()}, {versions()}.",
        "`python -m tests.benchmarks.sweep`; the first run also pays for imports.",
    )
    print(default_host().reporters["md"]([Table("sweep", "Between checkpoints", columns, tuple(rows), notes)]))


if __name__ == "__main__":
    main()
