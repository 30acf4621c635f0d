"""How often 90 % intervals of fits hold the truth, in simulations.

    python -m tests.benchmarks.coverage 200 power chinchilla sigmoid > results/benchmarks/coverage.md

Points of the law's own example on its own objective: independent, 60 of them, noise of 1 % (counted successes: 1,000
trials a point). The more simulations, the nearer; with 200 a share is known to 2 %.
"""

from __future__ import annotations

import sys

from harness.host import default_host
from harness.simulations import coverage, places
from harness.tables import Table

POINTS = 60


def main(count: int, names: list[str]) -> None:
    """Print the table of these laws."""
    host, rows = default_host(), []
    for name in names:
        law = host.laws[name]
        found = coverage(law, law.example, places(law, POINTS), count=count, bootstrap=200, starts=4)
        own = ", ".join(f"{parameter} {hits / count:.0%}" for parameter, hits in found.parameters.items())
        rows.append((name, own, *(f"{hits / count:.0%}" for hits in (found.curve, found.beyond, found.new))))
    about = (
        f"{count} simulations a law of {POINTS} independent points, noise of 1 %; 200 resamples a fit. Curve: at the "
        "middle of every feature. Beyond: at twice the largest. New: a measurement there."
    )
    notes = (about, f"`python -m tests.benchmarks.coverage {count} {' '.join(names)}`")
    columns = ("law", "parameters", "curve", "beyond", "new point")
    title = "Simulations in which 90 % intervals hold the truth"
    print(host.reporters["md"]([Table("coverage", title, columns, tuple(rows), notes)]))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
