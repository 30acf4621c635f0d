"""Adapters on the real vLLM, for the CPU: every choice and text equal to the transformers engine's, with peft."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import harness
from harness import Checkpoint, EngineError, Request, SampleRequest
from harness.host import PluginHost
from harness_plugins.engines.transformers import open_engine as open_transformers
from harness_plugins.engines.vllm import open_engine
from tests.plugins.test_adapters import BASE, folder_of, save_adapter, scores_of_peft

pytestmark = pytest.mark.vllm
OPTIONS = {"enforce_eager": True, "max_num_seqs": 32}
PROMPTS = ["Tom lives in the town of", "The flag of", "Tom is older than", "The sum of 3 and 4 is"]


@pytest.fixture(autouse=True)
def _little_memory(monkeypatch):
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")


def adapted(base: Path, adapter: str | Path = "") -> Checkpoint:
    return Checkpoint("f", "s", None, 0, str(base), adapter=str(adapter))


def requests() -> list[Request]:
    """Choices of one token and of several, with a common prefix of several blocks."""
    rng = np.random.default_rng(0)
    shared = (0, *rng.integers(1, 1000, size=70).tolist())
    return [Request(i, (*shared, 5 + i, 7), ((3,), (40 + i, 9, 2), (40 + i, 8))) for i in range(12)]


def answers(engine: harness.Engine, tokenizer: Any) -> tuple[np.ndarray, dict[int, str]]:
    """Return the log-probabilities of all choices, and the greedy texts."""
    scores = {score.key: score.logprobs for score in engine.score(requests())}
    prompts = enumerate(tokenizer.encode_batch(PROMPTS))
    texts = {
        sample.key: sample.text for sample in engine.generate(SampleRequest(i, (0, *ids), 12) for i, ids in prompts)
    }
    return np.concatenate([scores[request.key] for request in requests()]), texts


@contextmanager
def both(checkpoint: Checkpoint, base: Path, **settings: Any) -> Iterator[tuple[Any, Any]]:
    with (
        open_engine(checkpoint, base, **settings, **OPTIONS) as vllm,
        open_transformers(checkpoint, base, **settings) as other,
    ):
        yield vllm, other


@pytest.mark.parametrize("settings", [{}, {"use_dora": True, "use_rslora": True, "modules_to_save": ["norm"]}])
def test_choices_and_texts_equal_those_of_transformers_and_peft(settings, host: PluginHost, tmp_path: Path):
    base = folder_of(host)
    save_adapter(tmp_path / "a", base, 0, **{"target_modules": "all-linear"} | settings)
    tokenizer = host.engines["transformers"].inspect(adapted(base), base).load_tokenizer()
    with both(adapted(base, tmp_path / "a"), base) as (vllm, other):
        (scores, texts), (expected, other_texts) = (answers(engine, tokenizer) for engine in (vllm, other))
        assert any("the adapter was merged into its base model in float32" in note for note in vllm.describe()["notes"])
        assert vllm.unchecked == ""  # the kernels use the merged weights
        with pytest.raises(EngineError, match="adapters are not swapped in"):
            vllm.swap(adapted(base, tmp_path / "a"), base)
    assert scores == pytest.approx(expected, abs=1e-3)
    assert texts == other_texts
    assert scores == pytest.approx(scores_of_peft(tmp_path / "a", base, requests()), abs=1e-3)
    with open_transformers(adapted(base), base) as engine:
        plain, plain_texts = answers(engine, tokenizer)
    assert np.abs(scores - plain).max() > 1
    assert texts != plain_texts


def test_a_sweep_over_a_base_and_its_adapters_has_the_records_of_transformers(host: PluginHost, tmp_path: Path):
    """Base, adapter, another adapter, and another step of the base: each with its own numbers."""
    for seed, name in enumerate(("one", "two")):
        save_adapter(tmp_path / name, folder_of(host), seed)
    families = [BASE, str(tmp_path / "one"), str(tmp_path / "two"), "aster:w32l2@100"]
    settings = {"limit": 15, "registries": host}
    tasks = ["nano_job", "nano_addition"]
    harness.evaluate(families, tasks, tmp_path / "t", engine="transformers", **settings).check()
    harness.evaluate(families, tasks, tmp_path / "v", engine="vllm", options=OPTIONS, **settings).check()
    stores = [harness.open_store(tmp_path / name, registries=host) for name in "tv"]
    of_vllm, other = (
        {(c.checkpoint.label, c.task): store.load(c.id).logprob for c in store.cells()} for store in stores
    )
    assert len(of_vllm) == len(other) == 8
    assert max(float(np.abs(of_vllm[key] - other[key]).max()) for key in of_vllm) < 1e-3
    values = [of_vllm[label, "nano_job"] for label in sorted({label for label, _ in of_vllm})]
    assert all(np.abs(a - b).max() > 0.1 for i, a in enumerate(values) for b in values[:i])


def test_an_adapter_that_unties_the_head_is_refused(host: PluginHost, tmp_path: Path):
    base = folder_of(host)
    save_adapter(tmp_path / "a", base, 0, target_modules=["lm_head"])
    refused = pytest.raises(
        EngineError, match="ties to the other, and vLLM would use one matrix .*; use --engine transf"
    )
    with refused, open_engine(adapted(base, tmp_path / "a"), base, **OPTIONS):
        pass
