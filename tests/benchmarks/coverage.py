"""Coverage of 90 % intervals of fits, in simulations of every law.

    python -m tests.benchmarks.coverage 1000 > results/benchmarks/coverage.md

Points of the law's own example on its own objective: independent, 60 of them, noise of 1 % (counted successes: 1,000
trials a point), and of 0.1 % where 1 % leaves parameters unknown. The more simulations, the nearer; with 1,000 a share
is known to 1 %. Names of laws after the number simulate these alone. Procedures are simulated with the tables of their
tests.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np

from harness.fitting.fit import fit
from harness.fitting.laws import steps_of
from harness.fitting.simulations import coverage, places
from harness.host import default_host
from harness.tables import Table
from harness.types.laws import ComposedLaw, FormulaLaw, ProcedureLaw
from harness_plugins.laws.isoflop import IsoFlop
from harness_plugins.laws.observational import Observational
from tests.plugins import test_families, test_isoflop, test_observational

POINTS, RESAMPLES, NOISE = 60, 500, 0.01
LESS_NOISE = {"farseer": 0.001}
TURN = {"p": -0.7, "x0": 2.6, "k": 4.0, "q": 1.0}  # accuracy that turns where the simulated losses lie


def truth(law: FormulaLaw | ComposedLaw) -> dict[str, float]:
    """Return the parameters of a law's example, or of its steps' examples."""
    if isinstance(law, ComposedLaw):
        first, second = law.steps
        return {**truth(first), **(TURN if set(TURN) == set(second.parameters) else truth(second))}
    return dict(law.example)  # type: ignore[attr-defined]  # every law that ships has one


def row(case: tuple[str, float], count: int) -> tuple[str, ...]:
    """Return a row of the table of formulas: a law, and the noise of its points."""
    name, scale = case
    law = default_host().laws[name]
    options = {"count": count, "scale": scale, "bootstrap": RESAMPLES, "starts": 4}
    covered = coverage(law, truth(law), places(steps_of(law)[0], POINTS), **options)  # type: ignore[arg-type]
    of_parameters = ", ".join(f"{parameter} {hits / count:.0%}" for parameter, hits in covered.parameters.items())
    label = name if scale == NOISE else f"{name}, noise of {scale:.1%}"
    return (label, of_parameters, *(f"{hits / count:.0%}" for hits in (covered.curve, covered.beyond, covered.new)))


def families(seed: int) -> dict[str, list[bool]]:
    """Predict the largest model of eight families, and all of a ninth, with family_skill."""
    held = test_families.held(seed, 100)
    return {"family_skill, the next model of a family": held["known"], "family_skill, a new family": held["new"]}


def capabilities(seed: int) -> dict[str, list[bool]]:
    """Predict the task of 20 new models from 40 with observational."""
    table = test_observational.models(60, noise=0.03, seed=seed)
    law = Observational(test_observational.NAMES, components=2)
    fitted = fit(table, law, value="task", hold_out="index > 39", bootstrap=100)
    return {"observational, new models": [bool(held["inside"]) for held in fitted.hold_out]}


def minima(seed: int) -> dict[str, list[bool]]:
    """Find the exponent of N* from parabolas near the minima, and far to either side of them."""
    covered, rng = {}, np.random.default_rng(seed)
    exponent = test_isoflop.SURFACE["beta"] / (test_isoflop.SURFACE["alpha"] + test_isoflop.SURFACE["beta"])
    for about, width in (("1.3 times", 0.3), ("2.7 times", 1.0)):
        grid = test_isoflop.grid(-width, width, noise=0.002, rng=rng)
        fitted = fit(grid, IsoFlop(measure_bias=False), value="loss", bootstrap=100, seed=seed).steps[0]
        draws = [draw.parameters["a"] for draw in fitted.draws]  # type: ignore[union-attr]
        low, high = np.quantile(draws, [0.05, 0.95])
        covered[f"isoflop, exponent of N*, sizes within {about}"] = [bool(low <= exponent <= high)]
    return covered


def procedures(seed: int) -> dict[str, list[bool]]:
    """Simulate every procedure once."""
    return {**families(seed), **capabilities(seed), **minima(seed)}


def shares(simulations: Iterable[Mapping[str, list[bool]]]) -> list[tuple[str, str]]:
    """Return the share of intervals that held, of each kind."""
    held, count = Counter[str](), Counter[str]()
    for simulated in simulations:
        for name, inside in simulated.items():
            held[name] += sum(inside)
            count[name] += len(inside)
    return [(name, f"{held[name] / count[name]:.0%} of {count[name]:,}") for name in count]


def main(count: int, names: list[str]) -> None:
    """Print the tables."""
    host = default_host()
    wanted = names or [name for name in host.laws if not isinstance(host.laws[name], ProcedureLaw)]
    with ProcessPoolExecutor() as pool:
        cases = [(name, NOISE) for name in wanted] + [(name, LESS_NOISE[name]) for name in wanted if name in LESS_NOISE]
        rows = sorted(pool.map(partial(row, count=count), cases))
        others = [] if names else shares(pool.map(procedures, range(count)))
    about = (
        f"{count:,} simulations a law of {POINTS} independent points, noise of 1 %; {RESAMPLES} resamples a fit. "
        "Curve: at the middle of every feature. Beyond: at twice the largest. New: a measurement there."
    )
    bounds = (
        "q of accuracy_from_loss, and so of two_step and two_step_nd, lies on its bound, where percentiles are no more "
        "than near; with noise of 1 % the nine parameters of farseer make up for one another, so that its curve is "
        "known and they are not."
    )
    notes = (about, bounds, f"`python -m tests.benchmarks.coverage {' '.join([str(count), *names])}`")
    columns = ("law", "parameters", "curve", "beyond", "new point")
    title = "Simulations in which 90 % intervals hold the truth"
    tables = [Table("coverage", title, columns, tuple(rows), notes)]
    if others:
        about = f"{count:,} simulated tables, 100 resamples each."
        tables.append(Table("procedures", "Procedures", ("90 % intervals of", "held"), tuple(others), (about,)))
    print(host.reporters["md"](tables))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
