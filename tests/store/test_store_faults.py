"""Faults of all kinds in all kinds of files of a store: none changes a number silently, none is a traceback.

python -m tests.store.test_store_faults 10000        prints the counts of so many faults
"""

from __future__ import annotations

import collections
import random
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from harness import Generation, HarnessError
from harness.store.cells import Store
from harness.store.identity import CellId, Settings
from harness.store.points import PointStore
from harness.store.sample_cells import Drawn
from harness.tasks.loading import fingerprint
from harness.types import Checkpoint, Task
from tests.store.test_records import CHECKPOINT, DOCS, SETTINGS, records

CHOICE = Task("tiny", "choice", DOCS, fingerprint("choice", False, DOCS))
DRAWS = Generation("exact", max_tokens=4)
TEXTS = Task(
    "texts", "generate", DOCS, fingerprint("generate", False, DOCS, DRAWS), metric="pass_rate", generation=DRAWS
)
SAMPLED = Settings("fake", "float64", "none", "auto", 256, "left", sampling={"sampler": "n", "n": 2})
FAULTS = ("flip", "truncate", "empty", "delete", "swap", "copy", "zero")


def make_store(path: Path) -> None:
    """Two checkpoints, each with a cell of choices and one of drawn texts in two parts."""
    store = Store(path, create=True)
    for task, settings in ((CHOICE, SETTINGS), (TEXTS, SAMPLED)):
        store.put_task(task)
        store.put_settings(settings)
    for number in (1, 2):
        digest = f"{number:016x}"
        store.put_checkpoint(
            digest, Checkpoint("fam", f"s{number}", 1, 0, f"/models/{number}", params=CHECKPOINT.params)
        )
        choices = CellId(digest, CHOICE.fingerprint, SETTINGS.digest)
        store.write(choices, records(logprob=-np.arange(1.0, 6.0) / number))
        name = CellId(digest, TEXTS.fingerprint, SAMPLED.digest).name
        for sample in (0, 1):
            outcomes = ("passed", "failed") if sample else ("failed", "passed")
            store.sample_cells.add(name, [Drawn(doc, sample, 7, "x", 1, "stop", outcomes[doc]) for doc in (0, 1)])
        store.sample_cells.seal(name, {"rows": 4, "truncated": [], "engine": "fake"})


def answer(path: Path) -> str:
    """Return everything that a reader of the store sees, as text."""
    store = PointStore(path)
    cells = store.select()
    points = store.points(metrics=["logp_gold", "acc", "pass_rate"]).to_csv()
    return (
        points
        + store.scores("tiny").to_csv()
        + store.samples("texts").to_csv()
        + str([(cell, sorted(store.provenance(cell.id.name).items())) for cell in cells])
    )


def harm(path: Path, rng: random.Random) -> str:
    """Do one fault to a file of a store, and return its kind."""
    files = sorted(file for file in path.rglob("*") if file.is_file() and ".locks" not in file.parts)
    victim, kind = rng.choice(files), rng.choice(FAULTS)
    content, others = victim.read_bytes(), [file for file in files if file != victim and file.suffix == victim.suffix]
    other = rng.choice(others) if others else victim
    place = rng.randrange(max(len(content), 1))
    if kind == "delete":
        victim.unlink()
    elif kind in ("swap", "copy"):
        victim.write_bytes(other.read_bytes())
        if kind == "swap":
            other.write_bytes(content)
    else:
        changed = bytearray(content)
        changed[place] ^= 1 << rng.randrange(8)
        zeroed = content[:place] + bytes(min(16, len(content) - place)) + content[place + 16 :]
        victim.write_bytes({"flip": bytes(changed), "truncate": content[:place], "empty": b"", "zero": zeroed}[kind])
    return f"{kind} {victim.relative_to(path).parts[0]}"


def outcome_of(path: Path, expected: str, rng: random.Random) -> tuple[str, str]:
    """Harm a fresh store and read it; return the fault, and named, shorter, harmless, silent or a traceback."""
    fault = harm(path, rng)
    try:
        answered = answer(path)
    except HarnessError:
        return fault, "named"
    except Exception as error:  # what this counts
        return fault, f"traceback {error!r}"
    if answered == expected:
        return fault, "harmless"
    lost = fault in ("delete records", "delete samples")  # a cell that is not there is one to compute
    return fault, "shorter" if lost else "silent"


def count(n: int, seed: int) -> collections.Counter[tuple[str, str]]:
    """Return how many of n faults had which outcome."""
    rng, counts = random.Random(seed), collections.Counter[tuple[str, str]]()
    with tempfile.TemporaryDirectory() as folder:
        whole, harmed = Path(folder) / "whole", Path(folder) / "harmed"
        make_store(whole)
        expected = answer(whole)
        for _ in range(n):
            shutil.copytree(whole, harmed)
            counts[outcome_of(harmed, expected.replace(str(whole), str(harmed)), rng)] += 1
            shutil.rmtree(harmed)
    return counts


@pytest.mark.parametrize("seed", [0])
def test_no_fault_is_silent_or_a_traceback(seed: int):
    counts = count(60, seed)
    assert not [key for key in counts if key[1].startswith(("silent", "traceback"))]
    assert sum(n for (_, outcome), n in counts.items() if outcome == "named") > 30


if __name__ == "__main__":
    for (fault, outcome), n in sorted(count(int(sys.argv[1]), seed=1).items()):
        print(f"{n:6d}  {fault:24s} {outcome}")
