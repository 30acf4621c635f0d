"""From texts to numbers: the transformers engine against lm-eval's, side by side, on one machine.

    python -m tests.benchmarks.throughput [SHAPE ...] > results/benchmarks/throughput.md

A randomly initialised Llama (width 768, 12 layers, 50k vocabulary, 2,048 positions; about 160M parameters) and the
largest nano model, asked for requests in the shape of real benchmarks. Each measurement is a process of its own: model
loaded, eight documents to warm up, then the time from texts in memory to log-probabilities, tokenisation and our
canary included. lm-eval runs once with each of its batch sizes, and the fastest of them, like ours, three times:
medians and ratios are of those. Both must give the same numbers.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from harness import Checkpoint, Doc, Task
from harness.checkpoints.families import locate, select
from harness.host import default_host
from harness.tables import Table
from harness.tasks.finding import find_task
from harness.tasks.loading import fingerprint

BATCH_SIZES = (1, 16, 64)
REPEATS = 3
WARM_UP = 8
VOCABULARY = 50_000
LLAMA = {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12}


@dataclass(frozen=True)
class Shape:
    """What requests look like, in tokens: the least and the most of contexts and choices."""

    model: str
    documents: int
    context: tuple[int, int]
    choice: tuple[int, int]
    shared: int = 0
    least: float = 1.0  # the ratio that is expected


SHAPES = {
    "arc": Shape("llama", 100, (12, 45), (1, 9), least=3),
    "mmlu_5shot": Shape("llama", 100, (40, 140), (1, 1), shared=550, least=5),
    "hellaswag": Shape("llama", 100, (30, 110), (8, 40), least=3),
    "nano_arc": Shape("nano", 400, (12, 45), (1, 9), least=2),
}


def words(model: str) -> list[str]:
    """Return texts of one token (llama) or of about one (nano) to make requests of."""
    if model == "llama":
        return [f"w{i}" for i in range(VOCABULARY - 2)]
    texts = find_task("nano_text", default_host(), limit=200).docs
    return " ".join(doc.choices[0] for doc in texts).split()


def make_task(shape: Shape, n: int, seed: int = 0) -> Task:
    """Return documents of a shape, with four choices each."""
    rng, pool = np.random.default_rng(seed), words(shape.model)

    def text(least: int, most: int) -> str:
        begin, size = rng.integers(len(pool) - most), rng.integers(least, most + 1)
        return " ".join(pool[begin : begin + size])

    shared = text(shape.shared, shape.shared) + " " if shape.shared else ""
    docs = []
    for i in range(n):
        choices = tuple(text(*shape.choice) for _ in range(4))
        docs.append(Doc(str(i), (shared + text(*shape.context),), tuple(" " + c for c in choices), choices, (0,)))
    return Task("benchmark", "choice", tuple(docs), fingerprint("choice", False, docs))


def make_llama(folder: Path, sizes: Mapping[str, int] = LLAMA, **settings: Any) -> None:
    """Write a random model and a tokenizer whose tokens are words; `settings` are those of save_pretrained."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    torch.manual_seed(0)
    common = {"vocab_size": VOCABULARY, "max_position_embeddings": 2048, "bos_token_id": 0, "eos_token_id": 1}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **common))
    model.to(settings.pop("dtype", None)).save_pretrained(folder, **settings)
    vocabulary = {"<s>": 0, "</s>": 1} | {word: i + 2 for i, word in enumerate(words("llama"))}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="</s>"))  # no password
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")
    tokenizer.save_pretrained(folder)


def ours(folder: Path, task: Task, warm_up: Task) -> tuple[float, list[float]]:
    """Return seconds and log-probabilities of our engine."""
    from harness.evaluation.bos_and_truncation import Encoder
    from harness.evaluation.tokens import encode_task
    from harness_plugins.engines.inspection import inspect
    from harness_plugins.engines.transformers import open_engine

    checkpoint = Checkpoint("benchmark", "s", None, 0, str(folder))
    info = inspect(checkpoint, folder, max_length=2048)

    def run(task: Task) -> list[float]:
        engine._serve(engine.model)  # what every swap decides; the warm-up has paid what a first load decides
        encoded = encode_task(task, Encoder(info.load_tokenizer(), info.max_length, bos="always"))
        logprob = np.zeros(len(encoded.n_tokens))
        for score in engine.score(encoded.requests):
            piece = encoded.pieces[int(str(score.key))]
            logprob[piece.rows] += score.logprobs[piece.which]
        return [float(x) for x in logprob]

    with open_engine(checkpoint, folder, max_length=2048) as engine:
        run(warm_up)
        return timed(run, task)


def theirs(folder: Path, task: Task, warm_up: Task, batch_size: int) -> tuple[float, list[float]]:
    """Return seconds and log-probabilities of lm-eval's HFLM."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    settings: dict[str, Any] = {"dtype": "float32", "device": "cpu", "max_length": 2048, "add_bos_token": True}
    lm = HFLM(pretrained=str(folder), batch_size=batch_size, **settings)

    def run(task: Task) -> list[float]:
        pairs = [doc.prompt(k) for doc in task.docs for k in range(len(doc.choices))]
        requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
        return [logprob for logprob, _ in lm.loglikelihood(requests, disable_tqdm=True)]

    run(warm_up)
    return timed(run, task)


def timed(run: Callable[[Task], list[float]], task: Task) -> tuple[float, list[float]]:
    """Return the seconds that a run takes, and what it gives."""
    begun = time.perf_counter()
    result = run(task)
    return time.perf_counter() - begun, result


def measure(name: str, folder: str, batch_size: str) -> None:
    """Print one measurement as JSON; batch size 0 is our engine."""
    shape = SHAPES[name]
    task, warm_up = make_task(shape, shape.documents), make_task(shape, WARM_UP, seed=1)
    size = int(batch_size)
    seconds, logprobs = theirs(Path(folder), task, warm_up, size) if size else ours(Path(folder), task, warm_up)
    print(json.dumps({"seconds": seconds, "peak": peak_memory(), "logprobs": logprobs}))


def peak_memory() -> float:
    """Return the most MiB that this process held; getrusage would count what its parent held before."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def measured(name: str, folder: Path, batch_size: int) -> dict[str, Any]:
    """Measure in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.throughput", "--measure", name, str(folder), str(batch_size)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    measurement: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{name} batch {batch_size}: {measurement['seconds']:.2f} s", file=sys.stderr)
    return measurement


def compare(name: str, folder: Path) -> tuple[object, ...]:
    """Return a row of the table."""
    first = {size: measured(name, folder, size) for size in BATCH_SIZES}
    best = min(first, key=lambda size: float(first[size]["seconds"]))
    lm_eval, harness = [first[best]], [measured(name, folder, 0)]
    for _ in range(REPEATS - 1):
        lm_eval.append(measured(name, folder, best))
        harness.append(measured(name, folder, 0))
    off = np.abs(np.array(lm_eval[0]["logprobs"]) - np.array(harness[0]["logprobs"])).max()
    seconds = [median(run["seconds"] for run in runs) for runs in (lm_eval, harness)]
    peaks = [max(run["peak"] for run in runs) for runs in (lm_eval, harness)]
    documents = SHAPES[name].documents
    rates = [documents / s for s in seconds]
    cells = (best, *(f"{rate:.1f}" for rate in rates), f"{seconds[0] / seconds[1]:.1f}")
    return (name, documents, *cells, *(f"{peak:.0f}" for peak in peaks), f"{off:.0e}")


def processor() -> str:
    """Return the name of the processor, its cores and its memory."""
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB"


def versions() -> str:
    """Return the versions that matter."""
    return ", ".join(f"{name} {version(name)}" for name in ("scaling-harness", "lm-eval", "transformers", "torch"))


def main(names: list[str]) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as temporary:
        llama = Path(temporary)
        make_llama(llama)
        folders = {"llama": llama, "nano": locate(select("aster:w192l5", default_host())[0])[1]}
        rows = tuple(compare(name, folders[SHAPES[name].model]) for name in names or SHAPES)
    columns = (
        "requests", "documents", "lm-eval's batch size", "lm-eval, documents/s", "harness, documents/s", "ratio",
        "lm-eval, peak MiB", "harness, peak MiB", "largest difference, nats",
    )  # fmt: skip
    notes = (
        f"{processor()}; Python {platform.python_version()}, {versions()}.",
        f"`python -m tests.benchmarks.throughput`; float32, lm-eval's fastest batch size, medians of {REPEATS}.",
    )
    table = Table("throughput", "From texts to log-probabilities, against lm-eval", columns, rows, notes)
    print(default_host().reporters["md"]([table]))


if __name__ == "__main__":
    if "--measure" in sys.argv:
        measure(*sys.argv[sys.argv.index("--measure") + 1 :])
    else:
        main(sys.argv[1:])
