"""Adapters (LoRA) as checkpoints: scores are those of the merged model, never those of the base."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

import harness
from harness.checkpoints.families import locate, select
from harness.errors import EngineError, FamilyError, SuiteError
from harness.host import PluginHost
from tests.plugins.test_executors import rows_of

BASE = "aster:w32l2@1600"


def folder_of(host: PluginHost) -> Path:
    return locate(select(BASE, host)[0])[1]


@pytest.fixture(scope="module")
def saved(tmp_path_factory, host: PluginHost) -> dict[str, Path]:
    """Return folders with two adapters and with the first one merged."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import peft
        import torch
        from transformers import AutoModelForCausalLM

        base, out = folder_of(host), tmp_path_factory.mktemp("adapters")
        for seed, name in enumerate(("one", "two")):
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
            config = peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
            added = peft.get_peft_model(model, config)
            added.save_pretrained(out / name)
            if name == "one":
                added.merge_and_unload().save_pretrained(out / "merged")
        for file in base.glob("tokenizer*"):
            shutil.copy(file, out / "merged")
    for name in ("one", "two"):
        file = out / name / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": str(base)}))
    return {name: out / name for name in ("one", "two", "merged")}


@pytest.mark.parity
def test_an_adapter_scores_as_its_merged_model_and_not_as_its_base(saved, host: PluginHost, tmp_path: Path):
    names = [BASE, *(str(saved[name]) for name in ("one", "two", "merged"))]
    harness.evaluate(names, ["nano_addition"], tmp_path, limit=20, registries=host, engine="transformers").check()
    store = harness.open_store(tmp_path, registries=host)
    found = {cell.checkpoint.label: store.load(cell.id).logprob for cell in store.cells()}
    assert len(found) == 4
    assert found["one:one"] == pytest.approx(found["merged:merged"], abs=1e-4)
    for other in (BASE, "two:two"):
        assert np.abs(found["one:one"] - found[other]).max() > 0.01
    points = store.points(metrics=["acc"])
    assert set(points["adapter"].dropna()) == {str(saved["one"]), str(saved["two"])}


@pytest.mark.soak
def test_two_local_workers_score_adapters_as_one_process_does(tmp_path, saved, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    names = [str(saved["one"]), str(saved["two"]), "aster:w32l2@1600"]
    harness.evaluate(names, ["nano_job"], tmp_path / "one", limit=10).check()
    arguments = {"executor": "local", "executor_options": {"workers": 2}}
    harness.evaluate(names, ["nano_job"], tmp_path / "two", limit=10, **arguments).check()
    found = rows_of(tmp_path / "two")
    assert found == rows_of(tmp_path / "one")
    assert len({tuple(rows["logprob"]) for rows in found.values()}) == 3


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
