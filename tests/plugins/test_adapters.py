"""Adapters (LoRA) as checkpoints: scores are those of peft, never those of the base."""

from __future__ import annotations

import itertools
import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import harness
from harness import Request
from harness.checkpoints.families import locate, select
from harness.errors import EngineError, FamilyError, SuiteError
from harness.host import PluginHost
from harness_plugins.engines.transformers import open_engine as open_transformers
from tests.plugins.test_executors import rows_of

BASE = "aster:w32l2@1600"


def folder_of(host: PluginHost) -> Path:
    return locate(select(BASE, host)[0])[1]


def save_adapter(folder: Path, base: Path, seed: int, **settings) -> None:
    """Write an adapter with random weights; its base is named by its folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import peft
        import torch
        from transformers import AutoModelForCausalLM

        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        config = peft.LoraConfig(**{"r": 2, "target_modules": ["q_proj", "down_proj"]} | settings)
        added = peft.get_peft_model(model, config)
        for name, parameter in added.named_parameters():
            if parameter.requires_grad and "magnitude" not in name:
                torch.nn.init.normal_(parameter, std=0.2)
        added.save_pretrained(folder)
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": str(base)}))


@pytest.fixture(scope="module")
def saved(tmp_path_factory, host: PluginHost) -> dict[str, Path]:
    """Return folders with two adapters."""
    out = tmp_path_factory.mktemp("adapters")
    for seed, name in enumerate(("one", "two")):
        save_adapter(out / name, folder_of(host), seed)
    return {name: out / name for name in ("one", "two")}


def scores_of_peft(adapter: Path, base: Path, requests, dtype: str = "float32") -> np.ndarray:
    """Return the log-probabilities that peft computes without merging, as lm-eval does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import peft
        import torch
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, dtype))
        model = peft.PeftModel.from_pretrained(model, adapter).eval()
    logprobs = []
    for request in requests:
        for continuation in request.continuations:
            ids = torch.tensor([[*request.context, *continuation]])
            with torch.no_grad():
                rows = model(ids).logits[0].float().log_softmax(-1)[len(request.context) - 1 : -1]
            logprobs.append(float(rows[range(len(continuation)), list(continuation)].double().sum()))
    return np.array(logprobs)


def some_requests(n: int = 6) -> list[Request]:
    return [Request(i, (0, 5 + i, 7, 20 + i), ((3,), (40 + i, 9, 2))) for i in range(n)]


def scores_of(checkpoint: harness.Checkpoint, base: Path, open_engine=open_transformers, **options) -> np.ndarray:
    with open_engine(checkpoint, base, **options) as engine:
        scores = {score.key: score.logprobs for score in engine.score(some_requests())}
    return np.concatenate([scores[key] for key in sorted(scores)])


KINDS = {  # kinds of adapters: settings of peft
    "plain": {},
    "rank-stabilised": {"use_rslora": True, "r": 4, "lora_alpha": 3},
    "DoRA": {"use_dora": True},
    "bias": {"target_modules": "all-linear"},
    "embedding": {"target_modules": ["embed_tokens", "v_proj"]},
    "head": {"target_modules": ["lm_head", "v_proj"]},
    "whole modules": {"modules_to_save": ["norm"]},
    "whole head": {"modules_to_save": ["lm_head"]},
    "rows of the embedding": {"trainable_token_indices": [5, 7, 9]},
}


@pytest.mark.parity
@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_adapter_gives_the_scores_of_peft(kind: str, host: PluginHost, tmp_path: Path):
    """Merging into a matrix that is head and embedding changed both, where the adapter was trained on one."""
    base = folder_of(host)
    save_adapter(tmp_path / "a", base, 0, **KINDS[kind])
    checkpoint = harness.Checkpoint("f", "s", None, 0, str(base), adapter=str(tmp_path / "a"))
    scores = scores_of(checkpoint, base)
    assert scores == pytest.approx(scores_of_peft(tmp_path / "a", base, some_requests()), abs=1e-3)
    assert np.abs(scores - scores_of(replace(checkpoint, adapter=""), base)).max() > 0.1


@pytest.mark.parity
def test_a_swap_knows_of_adapters(saved, host: PluginHost):
    """From the base to an adapter, to another one, and back."""
    base = folder_of(host)
    plain = harness.Checkpoint("f", "s", None, 0, str(base))
    first, second = (replace(plain, adapter=str(saved[name])) for name in ("one", "two"))
    expected = {checkpoint.adapter: scores_of(checkpoint, base) for checkpoint in (plain, first, second)}
    assert np.abs(expected[first.adapter] - expected[second.adapter]).max() > 0.1
    with open_transformers(plain, base) as engine:
        for checkpoint in (first, second, plain, second):
            engine.prefetch(checkpoint, base)
            engine.swap(checkpoint, base)
            scores = {score.key: score.logprobs for score in engine.score(some_requests())}
            assert (
                np.concatenate([scores[key] for key in sorted(scores)]).tolist()
                == expected[checkpoint.adapter].tolist()
            )


@pytest.mark.parity
def test_adapters_and_their_base_have_scores_of_their_own(saved, host: PluginHost, tmp_path: Path):
    names = [BASE, *(str(saved[name]) for name in ("one", "two")), BASE]
    harness.evaluate(names, ["nano_addition"], tmp_path, limit=20, registries=host, engine="transformers").check()
    store = harness.open_store(tmp_path, registries=host)
    logprobs = {cell.checkpoint.label: store.load(cell.id).logprob for cell in store.cells()}
    assert len(logprobs) == 3
    for a, b in itertools.combinations(logprobs, 2):
        assert np.abs(logprobs[a] - logprobs[b]).max() > 0.01
    points = store.points(metrics=["acc"])
    assert set(points["adapter"].dropna()) == {str(saved["one"]), str(saved["two"])}


@pytest.mark.soak
def test_two_local_workers_score_adapters_as_one_process_does(tmp_path, saved, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    names = [str(saved["one"]), str(saved["two"]), "aster:w32l2@1600"]
    harness.evaluate(names, ["nano_job"], tmp_path / "one", limit=10).check()
    arguments = {"executor": "local", "executor_options": {"workers": 2}}
    harness.evaluate(names, ["nano_job"], tmp_path / "two", limit=10, **arguments).check()
    of_workers = rows_of(tmp_path / "two")
    assert of_workers == rows_of(tmp_path / "one")
    assert len({tuple(rows["logprob"]) for rows in of_workers.values()}) == 3


def adapter(folder: Path, **settings) -> Path:
    folder.mkdir()
    config = {"peft_type": "LORA", "base_model_name_or_path": str(folder.parent / "base")} | settings
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.safetensors").write_bytes(b"")
    return folder


def test_an_adapter_whose_base_is_missing_is_said(host: PluginHost, tmp_path: Path):
    with pytest.raises(FamilyError, match="the base model .*base is missing; correct base_model_name_or_path"):
        select(str(adapter(tmp_path / "a")), host)


def test_an_adapter_that_is_no_lora_is_refused(host: PluginHost, tmp_path: Path):
    with pytest.raises(FamilyError, match="peft_type is 'PROMPT_TUNING'; only LORA is served"):
        select(str(adapter(tmp_path / "a", peft_type="PROMPT_TUNING")), host)


def test_an_engine_that_serves_no_adapters_never_scores_the_base_instead(fake_host: PluginHost, tmp_path: Path):
    folder = adapter(tmp_path / "a", base_model_name_or_path=str(folder_of(fake_host)))
    summary = harness.evaluate([str(folder)], ["nano_addition"], tmp_path / "s", engine="fake", registries=fake_host)
    with pytest.raises(SuiteError, match="the engine 'fake' serves no adapters; use --engine transformers"):
        summary.check()


def test_quantised_weights_name_the_library_that_is_missing(host: PluginHost, tmp_path: Path):
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "llama", "quantization_config": {"quant_method": "aqlm"}})
    )
    inspect = host.engines["transformers"].inspect
    checkpoint = harness.Checkpoint("f", "s", None, 0, str(tmp_path))
    with pytest.raises(EngineError, match="quantised by aqlm, which needs the package aqlm: pip install aqlm"):
        inspect(checkpoint, tmp_path, device="cpu")
