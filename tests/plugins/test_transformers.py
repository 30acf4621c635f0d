"""The transformers engine: equal to a plain forward pass, on every kind of model that runs here."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

import harness
from harness import Checkpoint, ChoiceScore, EngineError, OutOfMemory, Request
from harness.checkpoints.families import complete, locate, select
from harness.host import PluginHost
from harness.testing import check_engine
from harness_plugins.engines.forwards import Forwards
from harness_plugins.engines.inspection import inspect
from harness_plugins.engines.loading import copy_tensors
from harness_plugins.engines.memory import empty_pinned
from harness_plugins.engines.transformers import open_engine
from harness_plugins.engines.vllm import inspect as inspect_vllm

CHECKPOINT = Checkpoint("fam", "s", 1, 0, "")


def located(host: PluginHost, text: str) -> tuple[Checkpoint, Path]:
    (checkpoint,) = select(text, host)
    return locate(checkpoint)


def requests(n: int = 9, vocabulary: int = 1000, seed: int = 0) -> list[Request]:
    rng = np.random.default_rng(seed)

    def ids(size: int) -> tuple[int, ...]:
        return tuple(rng.integers(1, vocabulary, size=size).tolist())

    return [Request(i, (0, *ids(2 + 3 * i)), tuple(ids(k) for k in (1, 3, 7))) for i in range(n)]


def all_scores(engine, asked: list[Request]) -> list[ChoiceScore]:
    """Return the score of every request, by key; each comes once."""
    scores = sorted(engine.score(asked), key=lambda score: score.key)
    assert [score.key for score in scores] == sorted(request.key for request in asked)
    return scores


def few_shot(n: int, vocabulary: int = 1000, shared: int = 40) -> list[Request]:
    """Requests that begin alike, with one-token choices, choices that fork late, and one that is alone."""
    rng = np.random.default_rng(1)

    def ids(size: int) -> tuple[int, ...]:
        return tuple(rng.integers(1, vocabulary, size=size).tolist())

    block, fork = ids(shared), ids(4)
    ends = [(ids(1), ids(1)), ((*fork, *ids(2)), (*fork, *ids(1)), (*fork, *ids(1))), (ids(5),)]
    return [Request(i, block + ids(1 + i), ends[i % 3]) for i in range(n)]


def numbered(asked: list[Request]) -> list[Request]:
    return [replace(request, key=i) for i, request in enumerate(asked)]


def plain(model: torch.nn.Module, request: Request) -> tuple[list[float], list[bool]]:
    """Score each continuation with one full forward, log-softmax over everything, no batching."""
    logprobs, greedy = [], []
    for continuation in request.continuations:
        ids = torch.tensor([request.context + continuation])
        with torch.inference_mode():
            rows = torch.log_softmax(model(ids).logits[0].float(), -1)[len(request.context) - 1 : -1]
        targets = torch.tensor(continuation)
        logprobs.append(float(rows.gather(1, targets[:, None]).double().sum()))
        greedy.append(bool((rows.argmax(-1) == targets).all()))
    return logprobs, greedy


@pytest.mark.parametrize("name", ["aster:w96l3@1600", "birch:w64l2", "cedar:w64l2"])
def test_the_contract_of_engines(host: PluginHost, name):
    check_engine(open_engine, *located(host, name), tokens=True)


@pytest.mark.parametrize("name", ["aster:w64l2@1600", "birch:w64l2", "cedar:w64l2"])
def test_scores_equal_a_plain_forward(host: PluginHost, name):
    checkpoint, folder = located(host, name)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with open_engine(checkpoint, folder) as engine:
        for score in all_scores(engine, requests()):
            logprobs, greedy = plain(model, requests()[score.key])
            assert score.logprobs == pytest.approx(logprobs, rel=1e-6, abs=2e-5)
            assert score.is_greedy.tolist() == greedy


TINY = {
    "vocab_size": 200,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
}
WIDE = {**TINY, "head_dim": 16}
GPT = {"vocab_size": 200, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}
SMALL = {"vocab_size": 200, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
OPT = {"ffn_dim": 48, "word_embed_proj_dim": 32, "max_position_embeddings": 64}
NEO = {**SMALL, "intermediate_size": 48, "max_position_embeddings": 64}
SHARING = {
    "gemma": transformers.GemmaConfig(**WIDE),
    "gemma3": transformers.Gemma3TextConfig(**WIDE, sliding_window=512),
    "gpt2": transformers.GPT2Config(**GPT),
    "gpt_neox": transformers.GPTNeoXConfig(**NEO),
    "gptj": transformers.GPTJConfig(**GPT, rotary_dim=8),
    "llama": transformers.LlamaConfig(**TINY),
    "mistral": transformers.MistralConfig(**WIDE, sliding_window=None),
    "olmo2": transformers.Olmo2Config(**TINY),
    "opt": transformers.OPTConfig(**SMALL, **OPT),
    "phi": transformers.PhiConfig(**TINY),
    "qwen2": transformers.Qwen2Config(**WIDE),
    "qwen3": transformers.Qwen3Config(**WIDE),
}
PLAIN = {
    "bloom": transformers.BloomConfig(vocab_size=200, hidden_size=32, n_layer=2, n_head=2),
    "gemma2": transformers.Gemma2Config(**WIDE, sliding_window=8, query_pre_attn_scalar=16),
    "falcon": transformers.FalconConfig(**SMALL, alibi=True),
    "mamba": transformers.MambaConfig(vocab_size=200, hidden_size=32, num_hidden_layers=2, state_size=4),
    "mistral": transformers.MistralConfig(**WIDE, sliding_window=8),
    "mpt": transformers.MptConfig(vocab_size=200, d_model=32, n_layers=2, n_heads=2),
}


def saved(folder: Path, config) -> torch.nn.Module:
    """Write a model with weights that are far from nought, and return it."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.parametrize("kind", sorted(SHARING))
def test_contexts_and_prefixes_are_shared_exactly(tmp_path, kind):
    """Rotary or learnt positions, grouped heads, soft caps, windows longer than the input."""
    model = saved(tmp_path, SHARING[kind])
    with open_engine(CHECKPOINT, tmp_path) as engine:
        assert engine.scorer.sharing.prefixes
        assert engine.describe()["notes"] == []
        for asked in (requests(5, vocabulary=200), few_shot(6, vocabulary=200, shared=32)):
            for score in all_scores(engine, asked):
                logprobs, greedy = plain(model, asked[score.key])
                assert score.logprobs == pytest.approx(logprobs, rel=1e-5, abs=1e-4)
                assert score.is_greedy.tolist() == greedy


@pytest.mark.parametrize("kind", sorted(PLAIN))
def test_nothing_is_shared_where_that_is_not_exact(tmp_path, kind):
    """Sliding windows shorter than the input, ALiBi and state spaces are left to the plain pass, which says so."""
    model = saved(tmp_path, PLAIN[kind])
    with open_engine(CHECKPOINT, tmp_path) as engine:
        assert not engine.scorer.sharing.reach
        assert "shares nothing: " in engine.describe()["notes"][0]
        asked = requests(5, vocabulary=200)
        for score in all_scores(engine, asked):
            logprobs, greedy = plain(model, asked[score.key])
            assert score.logprobs == pytest.approx(logprobs, rel=1e-5, abs=1e-3)
            assert score.is_greedy.tolist() == greedy


def test_trees_longer_than_a_window_are_not_packed(tmp_path):
    """A packed mask would show a token what its own sliding window hides."""
    model = saved(tmp_path, transformers.MistralConfig(**WIDE | {"max_position_embeddings": 256}, sliding_window=160))
    asked = few_shot(3, vocabulary=200, shared=170) + few_shot(3, vocabulary=200, shared=40)
    with open_engine(CHECKPOINT, tmp_path) as engine:
        assert engine.scorer.sharing.reach == 160
        for request, score in zip(asked, sorted(engine.score(numbered(asked)), key=lambda s: s.key), strict=True):
            assert score.logprobs == pytest.approx(plain(model, request)[0], rel=1e-5, abs=1e-4)


def test_scores_do_not_depend_on_the_size_of_batches(host: PluginHost):
    scores = []
    for batch_tokens in (1, 64, 4096):
        with open_engine(*located(host, "aster:w64l2@1600"), batch_tokens=batch_tokens) as engine:
            scores.append({score.key: score.logprobs for score in all_scores(engine, requests())})
    for other in scores[1:]:
        for key, logprobs in scores[0].items():
            assert other[key] == pytest.approx(logprobs, abs=2e-5)


def test_a_swap_gives_the_scores_of_a_fresh_engine(host: PluginHost):
    """The same module serves the next checkpoint, whose weights were read ahead or not."""
    first, second = located(host, "aster:w64l2@100"), located(host, "aster:w64l2@1600")
    with open_engine(*second) as engine:
        fresh = [score.logprobs for score in engine.score(requests())]
    for ahead in (True, False):
        with open_engine(*first) as engine:
            module = engine.model
            before = [score.logprobs for score in engine.score(requests())]
            if ahead:
                engine.prefetch(*second)
            engine.swap(*second)
            after = [score.logprobs for score in engine.score(requests())]
            assert (engine.model is module) == ahead
        assert all((a == b).all() for a, b in zip(after, fresh, strict=True))
        assert not any((a == b).any() for a, b in zip(after, before, strict=True))


def test_averaged_weights_in_the_same_folder_are_not_swapped_in(host: PluginHost, tmp_path):
    """model_ema.safetensors replaced model.safetensors in every checkpoint except the first of a sweep."""
    first, (checkpoint, folder) = located(host, "aster:w64l2@100"), located(host, "aster:w64l2@400")
    averaged = located(host, "aster:w64l2@1600")[1] / "model.safetensors"
    shutil.copytree(folder, tmp_path / "both")
    shutil.copy(averaged, tmp_path / "both" / "model_ema.safetensors")
    with open_engine(checkpoint, folder) as engine:
        expected = {score.key: score.logprobs for score in engine.score(requests())}
    with open_engine(*first) as engine:
        engine.prefetch(checkpoint, tmp_path / "both")
        engine.swap(checkpoint, tmp_path / "both")
        assert all((score.logprobs == expected[score.key]).all() for score in engine.score(requests()))
    with pytest.raises(EngineError, match=r"vLLM would also load model_ema.safetensors beside model.safetensors; move"):
        inspect_vllm(checkpoint, tmp_path / "both")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_checkpoint_of_another_architecture_is_swapped_in(host: PluginHost, dtype):
    """It is built while its predecessor is scored (in float32), and another file that is read ahead does no harm."""
    first, second, third = (located(host, name) for name in ("aster:w64l2@1600", "birch:w96l3", "cedar:w64l2"))
    with open_engine(*second, dtype=dtype) as engine:
        fresh = [score.logprobs for score in engine.score(requests())]
    with open_engine(*first, dtype=dtype) as engine:
        engine.prefetch(*second)
        assert (engine.ahead is not None) == (dtype == "float32")
        list(engine.score(requests()))
        engine.swap(*second)
        after = [score.logprobs for score in engine.score(requests())]
        engine.prefetch(*first)
        engine.swap(*third)
        assert type(engine.model).__name__ == "GPT2LMHeadModel"
    assert all((a == b).all() for a, b in zip(after, fresh, strict=True))


def test_what_cannot_be_read_ahead_is_tried_again_and_then_an_error(host: PluginHost, tmp_path):
    """The error is that of the load, and the engine still serves what follows."""
    first, second = located(host, "aster:w64l2@1600"), located(host, "birch:w64l2")
    broken = tmp_path / "broken"
    shutil.copytree(second[1], broken)
    (broken / "model.safetensors").write_bytes(b"nothing")
    with open_engine(*first) as engine:
        engine.prefetch(second[0], broken)
        with pytest.raises(EngineError, match="does not load in transformers"):
            engine.swap(second[0], broken)
        engine.swap(*second)
        assert len(list(engine.score(requests()))) == len(requests())


def test_memory_is_free_when_an_engine_closes(host: PluginHost):
    with open_engine(*located(host, "cedar:w64l2")) as engine:
        list(engine.score(requests()))
        module = weakref.ref(engine.model)
    assert module() is None


@pytest.mark.soak
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep memory in their own way")
def test_on_a_cpu_memory_is_kept_for_the_next_batch_and_given_back_at_the_end():
    """In a process of its own, as it is a setting of the whole process."""
    run = """
import resource, torch
from harness.checkpoints.families import locate, select
from harness.host import default_host
from harness_plugins.engines.transformers import open_engine

def faults():
    begun = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begun

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

checkpoint, folder = locate(select("birch:w64l2", default_host())[0])
with open_engine(checkpoint, folder):
    torch.ones(2**24)
    print(min(faults() for _ in range(5)) < 16)
    held = resident()
print(held - resident() > 2**25)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", run], check=True, stdout=subprocess.PIPE, text=True)
    assert done.stdout.split() == ["True", "True"]


def test_without_a_gpu_there_is_no_pinned_memory_to_free_and_no_error():
    empty_pinned()  # PyTorch raises RuntimeError


def test_weights_whose_names_do_not_fit_are_loaded_anew(host: PluginHost):
    with open_engine(*located(host, "aster:w64l2@1600")) as engine:
        before = engine.model.state_dict()["model.norm.weight"].clone()
        tensors = {name: torch.zeros_like(t) for name, t in engine.model.state_dict().items()}
        assert not copy_tensors(engine.model, {**tensors, "surprise": torch.zeros(1)})
        assert not copy_tensors(engine.model, {k: v for k, v in tensors.items() if k != "model.norm.weight"})
        assert not copy_tensors(engine.model, {**tensors, "model.norm.weight": torch.zeros(3)})
        assert (engine.model.state_dict()["model.norm.weight"] == before).all()


class Cramped(Forwards):
    """Passes on a device with room for so many tokens at once."""

    room = 60

    def _logits(self, inputs, at):
        if inputs["input_ids"].numel() > self.room:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return super()._logits(inputs, at)


@pytest.mark.soak
@pytest.mark.parametrize("share", [True, False])
def test_batches_are_halved_when_memory_runs_out_and_it_is_said(host: PluginHost, share):
    with open_engine(*located(host, "aster:w64l2@1600"), share=share, batch_tokens=1000) as engine:
        expected = {score.key: score.logprobs for score in engine.score(requests())}
        engine.scorer.forwards = Cramped(engine.model, "cpu")
        for score in all_scores(engine, requests()):
            assert score.logprobs == pytest.approx(expected[score.key], abs=2e-5)
        assert engine.scorer.batch_tokens < 125
        assert "out of memory: batches of" in engine.describe()["notes"][0]
        engine.scorer.forwards.room = 30
        scored = {score.key: score.logprobs for score in engine.score(requests(7))}  # trees do not fit, rows do
        assert all(scored[key] == pytest.approx(expected[key], abs=2e-5) for key in range(7))
        engine.scorer.forwards.room = 10
        with pytest.raises(OutOfMemory, match="one sequence of 34 tokens does not fit"):
            list(engine.score(requests()))


def test_what_is_known_before_weights_are_read(host: PluginHost):
    info = inspect(*located(host, "aster:w64l2@1600"))
    assert (info.dtype, info.max_length, info.quantisation) == ("float32", 256, "none")
    assert inspect(*located(host, "aster:w64l2@100")).shape == info.shape
    assert inspect(*located(host, "birch:w96l3")).shape == info.shape
    assert inspect(*located(host, "aster:w64l2@100"), dtype="bfloat16").shape != info.shape
    assert inspect(*located(host, "aster:w64l2@100"), max_length=128).shape != info.shape
    assert inspect(*located(host, "aster:w64l2@1600"), max_length=2048).max_length == 2048
    with pytest.raises(EngineError, match="max_length 2048 exceeds its 256 learned positions"):
        inspect(*located(host, "cedar:w64l2"), max_length=2048)
    with pytest.raises(EngineError, match="dtype 'float8'; expected one of"):
        inspect(*located(host, "cedar:w64l2"), dtype="float8")


def test_bfloat16_is_near_float32(host: PluginHost):
    with open_engine(*located(host, "aster:w64l2@1600")) as engine:
        exact = [score.logprobs for score in engine.score(requests(3))]
    with open_engine(*located(host, "aster:w64l2@1600"), dtype="bfloat16") as engine:
        assert engine.describe()["dtype"] == "bfloat16"
        for score, logprobs in zip(engine.score(requests(3)), exact, strict=True):
            assert score.logprobs == pytest.approx(logprobs, abs=0.5)


def test_a_checkpoint_that_lacks_a_tensor_is_not_scored(tmp_path, host: PluginHost):
    """What transformers would fill with random numbers."""
    from safetensors.torch import load_file, save_file

    checkpoint, folder = located(host, "aster:w64l2@1600")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.0.mlp.gate_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(EngineError, match="lacks the weights model.layers.0.mlp.gate_proj.weight"):
        open_engine(checkpoint, tmp_path).__enter__()
    with open_engine(checkpoint, folder) as engine, pytest.raises(EngineError, match="lacks the weights"):
        engine.swap(checkpoint, tmp_path)


def changed(folder: Path, config, change, **settings) -> Path:
    """Write a random model whose file and config.json were then changed."""
    from safetensors.torch import load_file, save_file

    saved(folder, config)
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors", metadata={"format": "pt"})
    merged = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**merged, **settings}))
    return folder


def test_a_config_of_one_layer_for_a_file_of_two_is_not_scored(tmp_path):
    """transformers leaves the second layer out with a warning."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    saved(whole, SHARING["llama"])
    changed(cut, SHARING["llama"], dict, num_hidden_layers=1)
    said = r"does not use: model.layers.1.input_layernorm.weight, .* \(9 in all\); check config.json"
    with pytest.raises(EngineError, match=said):
        open_engine(CHECKPOINT, cut).__enter__()
    with open_engine(CHECKPOINT, whole) as engine:
        engine.prefetch(CHECKPOINT, cut)
        with pytest.raises(EngineError, match=said):
            engine.swap(CHECKPOINT, cut)


def test_a_config_with_another_vocabulary_than_the_file_names_both_shapes(tmp_path):
    """The error of transformers named neither the tensor nor its shapes, but an option that a user cannot set."""
    changed(tmp_path, SHARING["llama"], dict, vocab_size=300)
    shapes = r"lm_head.weight is 200 x 32 in the file and 300 x 32 by config.json.* \(2 in all\); correct config.json"
    with pytest.raises(EngineError, match=shapes):
        open_engine(CHECKPOINT, tmp_path).__enter__()


def test_a_tensor_of_an_unknown_name_is_not_left_out(tmp_path):
    changed(tmp_path, SHARING["llama"], lambda tensors: {**tensors, "adapter.weight": torch.ones(2)})
    with pytest.raises(EngineError, match=r"adapter.weight \(1 in all\)"):
        open_engine(CHECKPOINT, tmp_path).__enter__()


def test_buffers_of_older_versions_and_equal_copies_of_tied_heads_are_no_surprise(tmp_path):
    def older(tensors):
        buffers = {"masked_bias": torch.tensor(-1e4), "bias": torch.ones(1, 1, 64, 64)}
        tensors |= {f"transformer.h.0.attn.{name}": tensor for name, tensor in buffers.items()}
        return {**tensors, "lm_head.weight": tensors["transformer.wte.weight"].clone()}

    gpt2 = changed(tmp_path / "gpt2", SHARING["gpt2"], older)
    inverse = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}
    llama = changed(tmp_path / "llama", SHARING["llama"], lambda tensors: tensors | inverse)
    for folder in (gpt2, llama):
        with open_engine(CHECKPOINT, folder) as engine:
            assert len(list(engine.score(requests(2, vocabulary=200)))) == 2


def test_a_head_that_differs_from_the_embedding_it_is_tied_to_is_not_scored(tmp_path):
    """Neither at the first load, nor as the next checkpoint, whose tensors are read ahead."""
    tied = transformers.LlamaConfig(**TINY, tie_word_embeddings=True)
    first, second = tmp_path / "first", tmp_path / "second"
    saved(first, tied)
    changed(second, tied, lambda tensors: {**tensors, "lm_head.weight": torch.ones(200, 32)})
    with pytest.raises(EngineError, match="the output head of the file differs from its embedding"):
        open_engine(CHECKPOINT, second).__enter__()
    with open_engine(CHECKPOINT, first) as engine:
        engine.prefetch(CHECKPOINT, second)
        with pytest.raises(EngineError, match="the output head of the file differs from its embedding"):
            engine.swap(CHECKPOINT, second)


def test_a_broken_checkpoint_is_an_engine_error(tmp_path, host: PluginHost):
    _, folder = located(host, "aster:w64l2@1600")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(EngineError, match="does not load in transformers"), open_engine(CHECKPOINT, tmp_path):
        pass


def test_the_tokenizer_says_what_it_puts_before_a_text(host: PluginHost, tmp_path):
    checkpoint, folder = located(host, "aster:w64l2@1600")
    tokenizer = inspect(checkpoint, folder).load_tokenizer()
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.prefix_ids) == (0, 0, ())
    with_bos = transformers.AutoTokenizer.from_pretrained(folder, add_bos_token=True)
    with_bos.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    assert inspect(checkpoint, tmp_path).load_tokenizer().prefix_ids == (0,)


PUBLISHED = {
    ("aster:w32l2@1600", "nano_addition"): (0.275, -5.04),
    ("aster:w32l2@1600", "nano_job"): (0.517, -2.36),
    ("aster:w96l3@1600", "nano_ordering"): (0.765, -1.25),
    ("aster:w96l3@1600", "nano_addition"): (0.595, -2.20),
    ("birch:w32l2", "nano_birthplace"): (0.480, -5.05),
    ("cedar:w32l2", "nano_ordering"): (0.250, -6.34),
    ("cedar:w192l5", "nano_addition"): (0.955, -0.27),
    ("aster:w192l5", "nano_ordering"): (0.960, -0.20),
}


@pytest.mark.parametrize(("name", "task"), sorted(PUBLISHED))
def test_the_first_400_documents_score_what_was_measured_when_the_ladder_was_trained(tmp_path, host, name, task):
    harness.evaluate([name], [task], tmp_path / "s", limit=400, registries=host).check()
    points = harness.open_store(tmp_path / "s", registries=host).points(metrics=["acc", "logp_gold"])
    acc, logp = PUBLISHED[name, task]
    assert points["value"].tolist() == [pytest.approx(acc, abs=0.005), pytest.approx(logp, abs=0.02)]
    assert complete(*locate(select(name, host)[0])).flops == points["flops"].iloc[0]


CODE = """
from transformers import LlamaConfig, LlamaForCausalLM

class MineConfig(LlamaConfig):
    model_type = "mine"

class Mine(LlamaForCausalLM):
    config_class = MineConfig
"""


def test_code_of_a_checkpoint_runs_only_when_trusted_and_is_recorded(host: PluginHost, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    checkpoint, nano = located(host, "aster:w32l2@100")
    folder = Path(shutil.copytree(nano, tmp_path / "mine"))
    config = json.loads((folder / "config.json").read_text())
    maps = {"AutoConfig": "modeling_mine.MineConfig", "AutoModelForCausalLM": "modeling_mine.Mine"}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "mine", "auto_map": maps}))
    (folder / "modeling_mine.py").write_text(CODE)
    family = harness.Family("mine", (replace(checkpoint, family="mine", source=str(folder)),), "")
    settings = {"limit": 5, "engine": "transformers", "registries": host}
    refused = harness.evaluate([family], ["nano_job"], tmp_path / "s", **settings)
    assert "trust_remote_code" in str(refused.failures[0])
    harness.evaluate([family], ["nano_job"], tmp_path / "s", options={"trust_remote_code": True}, **settings).check()
    store = harness.open_store(tmp_path / "s", registries=host)
    (name,) = store.cell_names()
    assert list(store.provenance(name)["remote_code"]) == ["modeling_mine.py"]
    again = harness.evaluate(["aster:w32l2@100"], ["nano_job"], tmp_path / "t", **settings)
    again.check()
    other = harness.open_store(tmp_path / "t", registries=host)
    np.testing.assert_allclose(store.scores()["logprob"], other.scores()["logprob"], atol=1e-5)


def with_surplus_tokens(host: PluginHost, folder: Path) -> Path:
    """Copy a checkpoint whose tokenizer got two tokens that its embedding has no rows for."""
    shutil.copytree(located(host, "aster:w32l2@1600")[1], folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = json.loads((folder / "config.json").read_text())["vocab_size"]
    tokenizer.add_tokens([f"<{i}>" for i in range(rows + 2 - len(tokenizer))])
    tokenizer.save_pretrained(folder)
    return folder


def task_of(name: str, *contexts: str) -> harness.Task:
    docs = (harness.Doc(str(i), (text,), (" a", " b"), ("a", "b"), (0,)) for i, text in enumerate(contexts))
    return harness.Task(name, "choice", tuple(docs), "")


def test_a_token_beyond_the_embedding_is_named_and_other_tasks_are_scored(host: PluginHost, tmp_path):
    """Tokens were added without resizing: an IndexError on a CPU, and the end of the process on a GPU."""
    folder = with_surplus_tokens(host, tmp_path / "own")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    last = tokenizer.convert_ids_to_tokens(len(tokenizer) - 1)
    tasks = [task_of("good", "The flag", "The town"), task_of("bad", "The flag", f"The {last}")]
    summary = harness.evaluate([str(folder)], tasks, tmp_path / "store", engine="transformers", registries=host)
    assert summary.written == 1
    (failure,) = summary.failures
    size = len(tokenizer)
    told = f"document 1: the model has no token {size - 1}, {last!r}, because its vocabulary has {size - 2} tokens"
    assert f"{told}, and its tokenizer {size}; use the tokenizer" in str(failure)


def test_an_engine_refuses_a_token_beyond_the_embedding(host: PluginHost):
    with open_engine(*located(host, "aster:w32l2@1600")) as engine:
        rows = engine.scorer.forwards.vocabulary
        for request in (Request(0, (1, rows), ((2,), (3,))), Request(0, (1, 2), ((3,), (4, rows)))):
            with pytest.raises(EngineError, match=f"^the model has no token {rows}: its vocabulary has {rows} tokens"):
                list(engine.score([request]))
        with pytest.raises(EngineError, match=f"^the model has no token {rows}"):
            list(engine.generate([harness.SampleRequest(0, (1, rows), 2)]))
