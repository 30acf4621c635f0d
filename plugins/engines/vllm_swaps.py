"""Results of first swaps of weights, by kind of engine, kept in this process and in the user's cache folder.

The first swap of a kind is compared with a fresh engine, which takes a minute to start on a GPU. A stored verdict saves
later processes this start. It never replaces the comparison of the weights in use with the checkpoint after each swap.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from harness import Checkpoint, Request, StoreError
from harness.engines import read_config, safetensors_files
from harness.files import cache_folder, digest_of, write_whole
from harness_plugins.engines.memory import free_memory
from harness_plugins.engines.transformers import open_engine as open_transformers
from harness_plugins.engines.vllm_asks import canary_of, differs

SECOND_OPINION = 2**32  # bytes; at the first swap of a kind, smaller weights are also compared with transformers
CODE = (
    "vllm_asks.py",
    "vllm_checks.py",
    "vllm_serving.py",
    "vllm_slots.py",
)  # its digest is part of a kind
VERSIONS = ("vllm", "torch", "transformers", "device")
SIZES = {"max_model_len", "gpu_memory_utilization"}  # options that do not affect a verdict
PLACES = {  # variables of vLLM that differ between processes and do not affect a verdict
    "VLLM_CACHE_ROOT",
    "VLLM_CPU_KVCACHE_SPACE",
    "VLLM_HOST_IP",
    "VLLM_LOGGING_LEVEL",
    "VLLM_NO_USAGE_STATS",
    "VLLM_PORT",
}
Kind = tuple[str, ...]


@dataclass(frozen=True)
class Swapped:
    """The result of a swap: the canary's scores, and why the workers found the weights wrong, or ""."""

    canary: list[float]
    why_not: str


@dataclass(frozen=True)
class Verdict:
    """Why weights of a kind are not swapped, or ""; whether other processes may rely on it; its file if it was read."""

    why_not: str = ""
    lasting: bool = False
    file: Path | None = None

    def __str__(self) -> str:
        return (
            f"{self.why_not} (found by an earlier process; remove {self.file} to repeat the comparison)"
            if self.file
            else self.why_not
        )


def kind_of(folder: Path, about: Mapping[str, Any], options: Mapping[str, Any], environment: Mapping[str, str]) -> Kind:
    """Return everything on which the correctness of a swap may depend."""
    config = read_config(folder)
    facts = {
        "architectures": config.get("architectures"),
        "tie_word_embeddings": config.get("tie_word_embeddings"),
        "code": _code(),
        **{name: about.get(name) for name in VERSIONS},
        **{f"option {name}": value for name, value in options.items() if name not in SIZES},
        **{name: value for name, value in os.environ.items() if name.startswith("VLLM_") and name not in PLACES},
        **environment,
    }
    return tuple(f"{name} = {value}" for name, value in sorted(facts.items()))


@cache
def _code() -> str:
    """Return the digest of the code that verifies swaps."""
    content = b"".join(Path(__file__).with_name(name).read_bytes() for name in CODE)
    return hashlib.sha256(content).hexdigest()[:16]


@cache
def verdicts() -> dict[Kind, Verdict]:
    """Return the verdicts of this process."""
    return {}


@cache
def checked() -> set[Kind]:
    """Return the kinds of engine whose weights were verified in this process."""
    return set()


def verdict_of(kind: Kind) -> Verdict | None:
    """Return the verdict of this process or of an earlier one; None if there is none or its file is damaged."""
    if kind in verdicts():
        return verdicts()[kind]
    file = _file(kind)
    try:
        stored = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(stored, dict) or stored.get("kind") != list(kind) or not isinstance(stored.get("why_not"), str):
        return None
    return Verdict(stored["why_not"], lasting=True, file=file)


def keep_verdict(kind: Kind, verdict: Verdict) -> None:
    """Keep a verdict for this process and, if it lasts, for others; an unwritable folder costs time only."""
    verdicts()[kind] = verdict
    file = _file(kind)
    if verdict.lasting:
        with suppress(OSError, StoreError):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, json.dumps({"kind": kind, "why_not": verdict.why_not}, indent=1).encode())


def _file(kind: Kind) -> Path:
    return cache_folder() / "swaps" / f"{digest_of(list(kind))}.json"


def second_opinion(
    checkpoint: Checkpoint,
    folder: Path,
    settings: Mapping[str, Any],
    canary: Sequence[int] | None,
    scores: Sequence[float],
) -> str:
    """Compare the canary's scores with those of transformers on the CPU, if memory allows.

    Returns how they differ, or "" if they agree or were not compared.
    """
    size = sum(file.stat().st_size for file in safetensors_files(folder))
    if canary is None or not 0 < size < min(SECOND_OPINION, free_memory() / 4) or settings["quantization"]:
        return ""
    asked = [Request(a.number, a.context, a.continuations) for a in canary_of(*canary)]
    options = {"dtype": settings["dtype"], "max_length": canary[1], "device": "cpu", "share": False}
    trust = bool(settings["trust_remote_code"])
    with open_transformers(checkpoint, folder, trust_remote_code=trust, **options) as other:
        logprobs = {score.key: score.logprobs for score in other.score(asked)}
    expected = [float(x) for request in asked for x in logprobs[request.key]]
    why_not = differs(scores, expected, settings["dtype"])
    return f"{why_not} between a fresh engine of vLLM and transformers on the CPU" if why_not else ""
