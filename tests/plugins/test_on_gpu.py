"""The transformers engine on a GPU beside plain passes on the CPU. Skipped without one; HARNESS_DEVICE=cpu tries it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

import harness
from harness import Checkpoint, ChoiceScore, Request, SampleRequest
from harness.checkpoints.families import locate, select
from harness.host import PluginHost
from harness_plugins.engines.transformers import TransformersEngine, open_engine

DEVICE = os.environ.get("HARNESS_DEVICE", "cuda" if torch.cuda.is_available() else "")
pytestmark = pytest.mark.skipif(not DEVICE, reason="needs a GPU")
NAMES = ["aster:w96l3@1600", "birch:w96l3", "cedar:w96l3"]
FLOAT32, HALF = 1e-4, 0.02  # tolerance, relative to 1 + |log-probability|
LARGE = {
    "vocab_size": 1000,
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "max_position_embeddings": 2048,
    "initializer_range": 0.05,  # large enough for attention to change scores by more than the tolerance
}


def located(host: PluginHost, name: str) -> tuple[Checkpoint, Path]:
    return locate(select(name, host)[0])


def asked(n: int, shared: int = 0, seed: int = 0) -> list[Request]:
    """Choices of one token and of several, some alike but for their last token."""
    rng = np.random.default_rng(seed)

    def ids(size: int) -> tuple[int, ...]:
        return tuple(rng.integers(1, 900, size=size).tolist())

    block, fork = ids(shared), ids(4)
    ends = [
        (ids(1), ids(1)),
        ((*fork, *ids(2)), (*fork, *ids(1)), (*fork, *ids(1))),
        (ids(9), ids(3)),
        (ids(1), ids(7)),
    ]
    return [Request(i, block + ids(1 + i % 60), ends[i % 4]) for i in range(n)]


def by_key(scores) -> dict[object, ChoiceScore]:
    return {score.key: score for score in scores}


def expect(engine, requests: list[Request], expected: dict[object, ChoiceScore], tolerance: float) -> None:
    scored = by_key(engine.score(requests))
    assert scored.keys() == expected.keys()
    for key, score in scored.items():
        logprobs = expected[key].logprobs
        assert (np.abs(score.logprobs - logprobs) <= tolerance * (1 + np.abs(logprobs))).all(), key


def on_cpu(checkpoint: Checkpoint, folder: Path, requests: list[Request]) -> dict[object, ChoiceScore]:
    with open_engine(checkpoint, folder, device="cpu", share=False) as engine:
        return by_key(engine.score(requests))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", FLOAT32), ("bfloat16", HALF), ("float16", HALF)])
def test_scores_are_those_of_plain_passes_on_the_cpu(host: PluginHost, name, dtype, tolerance):
    requests = asked(300) + [replace(r, key=300 + r.key) for r in asked(40, shared=100)]
    expected = on_cpu(*located(host, name), requests)
    with open_engine(*located(host, name), device=DEVICE, dtype=dtype) as engine:
        assert engine.describe()["notes"] == []
        assert engine.scorer.sharing.prefixes
        expect(engine, requests, expected, tolerance)


@pytest.mark.parametrize("heads", [1, 2, 8])
def test_every_length_of_row_and_prefix_is_right(tmp_path, heads):
    """Lengths of 1 modulo 32 among them, with one key-value head: a kernel of PyTorch reads past them."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**LARGE, num_key_value_heads=heads)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    checkpoint = Checkpoint("fam", "s", 1, 0, "")
    for dtype, tolerance in (("float32", FLOAT32), ("bfloat16", HALF)):
        with open_engine(checkpoint, tmp_path, device=DEVICE, dtype=dtype) as engine:
            for shared in (0, *range(60, 68)):
                requests = asked(8, shared=shared, seed=shared)
                expect(engine, requests, on_cpu(checkpoint, tmp_path, requests), tolerance)
            assert engine.describe()["notes"] == []


def test_weights_that_were_read_ahead_into_pinned_memory_are_served(host: PluginHost):
    steps = [located(host, f"aster:w96l3@{step}") for step in (100, 400, 1600)]
    requests = asked(60)
    with open_engine(*steps[0], device=DEVICE, dtype="bfloat16") as engine:
        for before, after in zip(steps, steps[1:] + steps[:1], strict=True):
            engine.prefetch(*after)
            expect(engine, requests, on_cpu(*before, requests), HALF)
            engine.swap(*after)
        expect(engine, requests, on_cpu(*steps[0], requests), HALF)


def test_greedy_texts_are_those_of_the_cpu_and_seeds_repeat(host: PluginHost):
    prompts = [request.context for request in asked(12, shared=40)]
    greedy = [SampleRequest(i, prompt, 12) for i, prompt in enumerate(prompts)]
    drawn = [SampleRequest(i, prompt, 12, n=2, temperature=1.0, seed=i) for i, prompt in enumerate(prompts)]
    with open_engine(*located(host, NAMES[0]), device="cpu") as engine:
        expected = {sample.key: sample.ids for sample in engine.generate(greedy)}
    with open_engine(*located(host, NAMES[0]), device=DEVICE, dtype="float32") as engine:
        assert {sample.key: sample.ids for sample in engine.generate(greedy)} == expected
        first, second = ({(s.key, s.index): s.ids for s in engine.generate(drawn)} for _ in range(2))
        assert first == second


@pytest.mark.skipif(not DEVICE.startswith("cuda"), reason="needs a GPU")
def test_memory_that_really_runs_out_halves_the_batches(tmp_path):
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**LARGE)).save_pretrained(tmp_path)
    checkpoint, requests = Checkpoint("fam", "s", 1, 0, ""), asked(800, shared=300)
    expected = on_cpu(checkpoint, tmp_path, requests[:20])
    with open_engine(checkpoint, tmp_path, device=DEVICE, dtype="bfloat16") as engine:
        _, total = torch.cuda.mem_get_info()
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**26) / total)  # 64 MiB for a batch
        try:
            scored = by_key(engine.score(requests))
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        assert any(note.startswith("out of memory: batches of") for note in engine.describe()["notes"])
    for key, score in expected.items():
        assert scored[key].logprobs == pytest.approx(score.logprobs, rel=HALF, abs=HALF)


@pytest.mark.skipif(not DEVICE.startswith("cuda"), reason="needs a GPU")
def test_memory_of_the_gpu_is_free_when_an_engine_closes_or_fails(host: PluginHost, tmp_path, monkeypatch):
    def used() -> int:
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated()

    before = used()
    with open_engine(*located(host, NAMES[0]), device=DEVICE) as engine:
        list(engine.score(asked(20)))
        assert used() > before
    assert used() <= before + 2**20
    monkeypatch.setattr(TransformersEngine, "score", lambda *_: (_ for _ in ()).throw(RuntimeError("failed")))
    summary = harness.evaluate([NAMES[0]], ["nano_job"], tmp_path / "s", engine="transformers", registries=host)
    assert len(summary.failures) == 1
    assert used() <= before + 2**20
