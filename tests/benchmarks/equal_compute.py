"""Simulated families whose true curves are known: how often the intervals of `harness rank` cover the truth.

    python -m tests.benchmarks.equal_compute 300

Stores: three families answer the same documents, whose difficulty they share; every run is off by a little. Tables:
points with noise. Pareto: the best of many runs, each worse than the frontier by a random factor.
"""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import norm

from harness.host import default_host
from harness.store.choice_cells import Records
from harness.store.identity import CellId, Settings
from harness.store.points import PointStore
from harness.tables import Range, Table
from harness.types import Checkpoint, Doc, Floats, Task
from harness_plugins.analyses.rank import rank

TRUTH = {  # lo, hi, k, x0 of accuracy in log10 FLOPs
    "ash": (0.25, 0.90, 2.4, 19.2),
    "beech": (0.25, 0.85, 2.4, 19.0),
    "cherry": (0.25, 0.95, 2.0, 19.6),
}
FRONTIERS = {"ash": (60.0, -0.11), "beech": (25.0, -0.09)}  # a, b of the error a C^b
AT = 10**19.4  # FLOPs at which families are compared
RUNS, DOCUMENTS = 9, 400
BUDGETS = np.geomspace(10**17.5, 10**20.5, RUNS)
SHARED = 0.6  # of the variance of a document's difficulty, which families share
WOBBLE = 0.05  # standard deviation of a run's skill, in logits
NOISE = 0.01  # of the accuracies of tables
RESAMPLES = 200


def accuracy(family: str, flops: Floats | float) -> Floats:
    """Return the true accuracy of a family."""
    lo, hi, k, x0 = TRUTH[family]
    return np.asarray(lo + (hi - lo) * expit(k * (np.log10(flops) - x0)))


def budget(family: str, score: float) -> float:
    """Return the FLOPs at which a family truly reaches a score."""
    lo, hi, k, x0 = TRUTH[family]
    return float(10 ** (x0 + logit((score - lo) / (hi - lo)) / k))


def crossover(a: str, b: str) -> float | None:
    """Return where two true curves cross in the compute that was measured, or None."""

    def apart(x: float) -> float:
        return float(accuracy(a, 10**x) - accuracy(b, 10**x))

    low, high = np.log10(BUDGETS[[0, -1]])
    return 10 ** brentq(apart, low, high) if apart(low) * apart(high) < 0 else None


def write_store(path: Path, rng: np.random.Generator) -> PointStore:
    """Write a store of all families: answers to the same documents, right more often with more compute."""
    store = PointStore(path, create=True)
    docs = tuple(
        Doc(f"d{i:04}", ("Q",), (" a", " b", " c", " d"), ("a", "b", "c", "d"), (0,)) for i in range(DOCUMENTS)
    )
    task = Task("simulated", "choice", docs, "f" * 16)
    settings = Settings("none", "float64", "", "never", 8, "left")
    store.put_task(task)
    store.put_settings(settings)
    difficulty = rng.normal(size=DOCUMENTS)
    doc_ids, choices = np.repeat([d.doc_id for d in docs], 4), np.tile(np.arange(4), DOCUMENTS)
    for number, family in enumerate(TRUTH):
        skills = expit(logit(accuracy(family, BUDGETS)) + WOBBLE * rng.normal(size=RUNS))
        for i, skill in enumerate(skills):
            deviations = np.sqrt(SHARED) * difficulty + np.sqrt(1 - SHARED) * rng.normal(size=DOCUMENTS)
            logprob = np.full((DOCUMENTS, 4), -2.0)
            logprob[deviations >= norm.ppf(skill), 1] = -1.0
            logprob[deviations < norm.ppf(skill), 0] = -1.0
            digest = f"{number * RUNS + i:016x}"
            store.put_checkpoint(digest, _checkpoint(family, i, digest))
            ones = np.ones(4 * DOCUMENTS, dtype=np.int64)
            records = Records(tuple(doc_ids), choices, logprob.ravel(), ones, ones == 0)
            store.write(CellId(digest, task.fingerprint, settings.digest), records)
    return store


def _checkpoint(family: str, number: int, source: str) -> Checkpoint:
    flops = float(BUDGETS[number])
    params = int(np.sqrt(flops / 120))
    return Checkpoint(family, f"s{number}", 1, 0, source, params=params, tokens=flops / (6 * params), flops=flops)


def table(rng: np.random.Generator) -> pd.DataFrame:
    """Return noisy accuracies of independent runs."""
    return pd.concat(
        pd.DataFrame({"family": name, "flops": BUDGETS, "acc": accuracy(name, BUDGETS) + NOISE * rng.normal(size=RUNS)})
        for name in TRUTH
    )


def frontiers(rng: np.random.Generator) -> pd.DataFrame:
    """Return errors of many runs, each above the true frontier of its family by a random factor."""
    flops = np.repeat(BUDGETS, 6)
    return pd.concat(
        pd.DataFrame(
            {
                "family": name,
                "run": np.arange(len(flops)),
                "flops": flops,
                "error": a * flops**b * np.exp(rng.exponential(0.05, len(flops))),
            }
        )
        for name, (a, b) in FRONTIERS.items()
    )


def covers(interval: Range, truth: float) -> bool:
    """Say whether an interval covers a value."""
    return bool(interval.low <= truth <= interval.high)


def _judge(tables: Mapping[str, Table], kind: str) -> dict[str, list[Any]]:
    """Return what covers the truth, of each kind of statement."""
    truth = {family: float(accuracy(family, AT)) for family in TRUTH}
    judged: dict[str, list[Any]] = defaultdict(list)
    for row in tables["scores"].rows:
        judged[f"{kind}: score of a family"].append(covers(row[3], truth[row[2]]))
    for row in tables["differences"].rows:
        judged[f"{kind}: difference of two families"].append(covers(row[4], truth[row[2]] - truth[row[3]]))
    for row in tables["gains"].rows:
        gain = budget(row[2], truth[row[1]]) / AT
        judged[f"{kind}: compute-equivalent gain"].append(covers(row[3], gain))
    judged[f"{kind}: crossover, where one was found"] = _crossings(tables, crossover)
    order = " > ".join(sorted(truth, key=lambda family: -truth[family]))
    said, chance = tables["ranking"].rows[0][2:]
    judged[f"{kind}: order"].append((chance, said == order))
    return judged


def _pareto(tables: Mapping[str, Table]) -> dict[str, list[Any]]:
    judged: dict[str, list[Any]] = defaultdict(list)
    for row in tables["scores"].rows:
        a, b = FRONTIERS[row[2]]
        judged["Pareto table: error of a family"].append(covers(row[3], a * AT**b))
    (a, b), (c, d) = FRONTIERS["ash"], FRONTIERS["beech"]
    where = (c / a) ** (1 / (b - d))
    judged["Pareto table: crossover, where one was found"] = _crossings(tables, lambda *_: where)
    return judged


def _crossings(tables: Mapping[str, Table], truth: Callable[[str, str], float | None]) -> list[bool]:
    """Say for each pair that crosses whether an interval of its crossings covers the true one."""
    pairs: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for row in tables["crossovers"].rows:
        where = truth(row[1], row[2])
        if where is not None and row[3] is not None:
            pairs[row[1], row[2]].append(covers(row[3], where))
    return [any(crossed) for crossed in pairs.values()]


def simulate(seed: int, *, stores: bool = True, resamples: int = RESAMPLES) -> dict[str, list[Any]]:
    """Return what covers the truth in one simulation of each kind."""
    rng, host = np.random.default_rng(seed), default_host()
    asked: dict[str, Any] = {"at": {"flops": AT}, "host": host, "bootstrap": resamples, "seed": seed}
    outcomes: dict[str, list[Any]] = {}
    if stores:
        with tempfile.TemporaryDirectory() as folder:
            outcomes |= _judge(_named(rank(write_store(Path(folder) / "store", rng), **asked)), "store")
    outcomes |= _judge(_named(rank(table(rng), metric="acc", **asked)), "table")
    return outcomes | _pareto(_named(rank(frontiers(rng), metric="error", lower_is_better=True, pareto=True, **asked)))


def _named(tables: list[Table]) -> dict[str, Table]:
    return {table.name: table for table in tables}


def summed(every: list[dict[str, list[Any]]]) -> list[tuple[str, ...]]:
    """Return the share of intervals that cover the truth, and how probable orders were right."""
    totals: dict[str, list[Any]] = defaultdict(list)
    for one in every:
        for name, outcomes in one.items():
            totals[name] += outcomes
    covered = [(k, f"{np.mean(v):.0%} of {len(v):,}", "90%") for k, v in totals.items() if not k.endswith(": order")]
    return covered + [row for k, v in totals.items() if k.endswith(": order") for row in _orders(k, v)]


def _orders(name: str, every: list[tuple[float, bool]]) -> list[tuple[str, ...]]:
    """Return how often orders of some probability were right, and their mean probability."""
    chances, right = (np.array(values) for values in zip(*every, strict=True))
    rows = []
    for low, high in ((0.0, 0.5), (0.5, 0.8), (0.8, 1.0)):
        in_bin = (chances >= low) & (chances < high)
        if in_bin.any():
            said = f"{name} said to be {low:.0%} to {high:.0%} probable, right"
            rows.append((said, f"{right[in_bin].mean():.0%} of {in_bin.sum():,}", f"{chances[in_bin].mean():.0%}"))
    return rows


def main(count: int) -> None:
    """Print the table."""
    with ProcessPoolExecutor(2) as pool:
        rows = summed(list(pool.map(partial(simulate), range(count), chunksize=5)))
    about = (
        f"{count:,} simulations: 3 families of {RUNS} runs, {DOCUMENTS} documents that all share (stores) or noise of "
        f"{NOISE:.0%} (tables), compared at {AT:.3g} FLOPs, {RESAMPLES} resamples. Pareto tables: 2 families of "
        f"{6 * RUNS} runs."
    )
    notes = (about, f"`python -m tests.benchmarks.equal_compute {count}`")
    statements = Table(
        "equal_compute", "Families at equal compute", ("statement", "found", "nominal"), tuple(rows), notes
    )
    print(default_host().reporters["md"]([statements]))


if __name__ == "__main__":
    main(int(sys.argv[1]))
