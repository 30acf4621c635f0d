"""How the store scales: time and memory for 10^6 to 10^8 choices, and for 10^2 to 10^5 cells.

    python -m tests.benchmarks.store [--rows 1e6,1e7,1e8] [--cells 1e2,1e3,1e4,2e4,1e5] > results/benchmarks/store.md

Rows are written through the store, 10^5 in a cell (25,000 documents, four choices). Cells come from harness.evaluate
with an engine that answers at once, eight documents each. Every operation runs in a process of its own on one core;
seconds are those of the processor, so that a busy machine does not change them much, and memory is the peak of the
process, about 170 MiB of which are imports. DuckDB, on one thread, reads every column of the same rows. Up to 20,000
cells are compared: a comparison fits eight laws (four tasks of two families), each with 1,000 resamples of its points.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import harness
from harness import Checkpoint, ChoiceScore, Doc, Family, Task
from harness.host import default_host
from harness.store.cells import Store
from harness.store.choice_cells import Records
from harness.store.identity import CellId, Settings
from harness.tables import Table
from harness.tasks.loading import fingerprint
from harness.testing import inspect_fake, open_fake
from tests.benchmarks.throughput import processor, versions

DOCS, CHOICES = 25_000, 4  # of a cell of the first table
TASKS, SIZES = 4, 5  # of the second: cells are TASKS x checkpoints, in two families of so many sizes
MOST_COMPARED = 20_000  # cells; a comparison of 10^5 would resample 12,500 points of each task and family
SETTINGS = Settings("instant", "float64", "none", "auto", 256, "left")


def make_task(name: str, n: int) -> Task:
    """Return a task of n documents with CHOICES choices."""
    letters = tuple(" abcdefgh"[k + 1] for k in range(CHOICES))
    docs = tuple(Doc(str(i), (f"{name} {i}",), letters, letters, (i % CHOICES,)) for i in range(n))
    return Task(name, "choice", docs, fingerprint("choice", False, docs))


def checkpoint(number: int, count: int, folder: Path) -> Checkpoint:
    """Return checkpoint number of so many: families, sizes and steps in turn."""
    family, size, step = number % 2, number // 2 % SIZES, number // 2 // SIZES
    params, tokens = 10 ** (6 + size), 1e9 * (1 + step)
    flops = 6.0 * params * tokens
    return Checkpoint(
        f"family{family}", f"s{size}", step, 0, str(folder / f"{number}"), params=params, tokens=tokens, flops=flops
    )


def accuracy(known: Checkpoint) -> float:
    """Return the accuracy of a made-up checkpoint."""
    return 0.25 + 0.7 / (1 + np.exp(-0.4 * (np.log10(known.flops or 1.0) - 18.0)))


def logprobs(known: Checkpoint, gold: Any, seed: int) -> Any:
    """Return log-probabilities (n, CHOICES) of documents with such right answers."""
    rng = np.random.default_rng([seed, known.params or 0, known.step or 0])
    values = rng.normal(-3, 1, (len(gold), CHOICES))
    values[np.arange(len(gold)), gold] += 4 * (rng.random(len(gold)) < accuracy(known))
    return values


# --- operations, each in a process of its own ----------------------------------------------------------------------


def write_rows(path: Path, count: int) -> str:
    """Write so many rows, 10^5 in a cell."""
    task, store = make_task("rows", DOCS), Store(path, create=True)
    store.put_task(task)
    store.put_settings(SETTINGS)
    gold = np.arange(DOCS) % CHOICES
    ids = tuple(doc.doc_id for doc in task.docs for _ in range(CHOICES))
    n = max(1, count // (DOCS * CHOICES))
    for number in range(n):
        known, digest = checkpoint(number, n, path), f"{number:016x}"
        store.put_checkpoint(digest, known)
        records = Records(
            ids,
            np.tile(np.arange(CHOICES), DOCS),
            logprobs(known, gold, number).ravel(),
            np.ones(DOCS * CHOICES, dtype=np.int64),
            np.zeros(DOCS * CHOICES, dtype=np.bool_),
        )
        store.write(CellId(digest, task.fingerprint, SETTINGS.digest), records)
    return f"{sum(file.stat().st_size for file in path.rglob('*.parquet')) / 2**20:.0f} MiB on disk"


def metric(path: Path, count: int) -> str:
    """Compute one metric of every cell."""
    points = harness.open_store(path).points(metrics=["acc"])
    return f"{len(points)} points"


def duckdb(path: Path, count: int) -> str:
    """Read every column of every row with DuckDB."""
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET threads = 1")
    columns = "count(doc_id), sum(choice), sum(logprob), sum(n_tokens), count_if(truncated)"
    (row,) = connection.execute(f"SELECT {columns}, max(doc_id) FROM '{path}/records/*.parquet'").fetchall()
    return f"{row[0]} rows"


class InstantEngine:
    """An engine that draws log-probabilities instead of computing them."""

    def __init__(self, known: Checkpoint) -> None:
        self.inner = open_fake(known, Path()).__enter__()
        self.known = known

    def score(self, requests: Any) -> Iterator[ChoiceScore]:
        """Score requests; document i has the right answer i mod CHOICES."""
        for number, request in enumerate(requests):
            values = logprobs(self.known, np.array([number % CHOICES]), number)[0]
            yield ChoiceScore(request.key, values, np.zeros(CHOICES, dtype=np.bool_))

    def swap(self, known: Checkpoint, folder: Path) -> None:
        """Serve another checkpoint."""
        self.known = known

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def generate(self, requests: Any) -> Any:
        """Draw samples."""
        return self.inner.generate(requests)

    def prefetch(self, known: Checkpoint, folder: Path) -> None:
        """Nothing to read ahead."""

    def describe(self) -> dict[str, str]:
        """Return provenance."""
        return {"engine": "instant"}


@contextmanager
def open_instant(known: Checkpoint, folder: Path) -> Iterator[InstantEngine]:
    """Open it."""
    yield InstantEngine(known)


def evaluated(path: Path, count: int) -> str:
    """Evaluate so many cells; those that are there are checked and not done again."""
    host = default_host()
    if "instant" not in host.engines:
        host.add(Plugin, "instant")
    folders = path.parent / f"{path.name}-models"
    known = [checkpoint(number, count // TASKS, folders) for number in range(count // TASKS)]
    for one in known:
        make_model(Path(one.source))
    families = [Family(name, tuple(c for c in known if c.family == name)) for name in ("family0", "family1")]
    tasks = [make_task(f"task{i}", 8) for i in range(TASKS)]
    summary = harness.evaluate(families, tasks, path, engine="instant", registries=host)
    summary.check()
    return f"{summary.written} written, {summary.already_stored} there"


class Plugin:
    """Registers the engine."""

    @staticmethod
    @harness.hookimpl
    def register_engines(register: harness.Register) -> None:
        """Register it."""
        register("instant", open_instant, inspect_fake)


def make_model(folder: Path) -> None:
    """Make a folder that has the files of a checkpoint, unless it is there."""
    if folder.exists():
        return
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    header = json.dumps({"__metadata__": {"folder": folder.name}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)


def listed(path: Path, count: int) -> str:
    """List all cells with their names."""
    return f"{len(harness.open_store(path).cells())} cells"


def claimed(path: Path, count: int) -> str:
    """Lock and free every cell."""
    store, n = Store(path), 0
    for name in store.cell_names():
        with store.lock(CellId.of(name)).acquire(timeout=0):
            n += 1
    return f"{n} locks"


def compared(path: Path, count: int) -> str:
    """Compare the families: scores, predictions of two laws with intervals, crossings."""
    return f"{len(harness.compare(harness.open_store(path)))} tables"


OPERATIONS: dict[str, Callable[[Path, int], str]] = {
    "write": write_rows,
    "metric": metric,
    "duckdb": duckdb,
    "evaluate": evaluated,
    "resume": evaluated,
    "list": listed,
    "claim": claimed,
    "points": metric,
    "compare": compared,
}


# --- the tables ------------------------------------------------------------------------------------------------------


def measured(operation: str, path: Path, count: int) -> dict[str, Any]:
    """Run an operation in a process of its own; return its processor seconds, wall seconds, peak MiB and result."""
    command = [sys.executable, "-m", "tests.benchmarks.store", "--do", operation, str(path), str(count)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(path.parent / "cache")}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    measurement: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(operation, count, measurement, file=sys.stderr, flush=True)
    return measurement


def do(operation: str, path: Path, count: int) -> None:
    """Run an operation and print its measurements."""
    wall, processor_time = time.perf_counter(), time.process_time()
    result = OPERATIONS[operation](path, count)
    seconds, passed = time.process_time() - processor_time, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "wall": passed, "MiB": peak, "result": result}))


def table_of(name: str, title: str, operations: list[str], counts: list[int], folder: Path) -> Table:
    """Measure operations at all counts."""
    rows: list[tuple[Any, ...]] = []
    for count in counts:
        path = folder / f"{name}-{count}"
        asked = [name for name in operations if name != "compare" or count <= MOST_COMPARED]
        measurements = {operation: measured(operation, path, count) for operation in asked}
        other = measurements["duckdb"]["seconds"] if "duckdb" in measurements else None
        for operation, one in measurements.items():
            ratio = one["seconds"] / other if other else None
            cells = (f"{count:.0e}".replace("e+0", "e"), operation, one["seconds"], one["wall"], one["MiB"])
            rows.append((*cells, one["seconds"] / count * 1e6, *([ratio] if other else []), one["result"]))
    columns = ["count", "operation", "processor s", "wall s", "peak MiB", "µs for each"]
    columns += ["ratio to DuckDB"] if "duckdb" in operations else []
    return Table(name, title, (*columns, "result"), tuple(rows))


def numbers(text: str) -> list[int]:
    """Read 1e6,1e7."""
    return [int(float(item)) for item in text.split(",") if item]


def main() -> None:
    """Print the tables, or do one operation."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", default="1e6,1e7,1e8", type=numbers)
    parser.add_argument("--cells", default="1e2,1e3,1e4,2e4,1e5", type=numbers)
    parser.add_argument("--do", nargs=3, metavar=("OPERATION", "STORE", "COUNT"))
    asked = parser.parse_args()
    if asked.do:
        do(asked.do[0], Path(asked.do[1]), int(asked.do[2]))
        return
    rows = ["write", "metric", "duckdb"]
    cells = ["evaluate", "resume", "list", "claim", "points", "compare"]
    with tempfile.TemporaryDirectory() as folder:
        tables = [
            table_of("rows", "Rows: choices in cells of 10^5", rows, asked.rows, Path(folder)),
            table_of("cells", "Cells of 8 documents", cells, asked.cells, Path(folder)),
        ]
    print(f"# The store at scale\n\n{(__doc__ or '').split(chr(10) * 2, 2)[2]}\n{processor()}; {versions()}.\n")
    print(default_host().reporters["md"](tables))


if __name__ == "__main__":
    main()
