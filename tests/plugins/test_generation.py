"""Generation with the transformers engine: greedy texts equal a plain loop, sampled texts depend on seeds only."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import harness
from harness import EngineError, OutOfMemory, Sample, SampleRequest
from harness.host import PluginHost
from harness_plugins.engines import generation
from harness_plugins.engines.transformers import open_engine
from tests.plugins.test_transformers import CHECKPOINT, PLAIN, SHARING, located, saved

WORDS = "Tom lives in the town of"


def plain(model, prompt: tuple[int, ...], n: int) -> tuple[int, ...]:
    """Take the most probable token n times, reading everything again for each."""
    ids = list(prompt)
    for _ in range(n):
        with torch.inference_mode():
            ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return tuple(ids[len(prompt) :])


def drawn(engine, requests: list[SampleRequest]) -> dict[tuple[object, int], Sample]:
    return {(sample.key, sample.index): sample for sample in engine.generate(requests)}


@pytest.mark.parametrize("config", [SHARING["gpt2"], SHARING["llama"], PLAIN["bloom"], PLAIN["mamba"], PLAIN["gemma2"]])
def test_greedy_texts_are_those_of_a_plain_loop(tmp_path, host: PluginHost, config):
    """Learnt and rotary positions, ALiBi, windows and state spaces; prompts that begin alike and others."""
    model = saved(tmp_path, config)
    _, nano = located(host, "aster:w32l2@1600")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / file).write_bytes((nano / file).read_bytes())
    shared = tuple(range(2, 40))
    prompts = [(*shared, 41), (*shared, 42), (*shared, 43), (5, 6, 7)]
    with open_engine(CHECKPOINT, tmp_path) as engine:
        samples = drawn(engine, [SampleRequest(i, prompt, 6) for i, prompt in enumerate(prompts)])
    for i, prompt in enumerate(prompts):
        ids = plain(model, prompt, 6)
        assert samples[i, 0].ids == ids[: len(samples[i, 0].ids)]
        assert len(samples[i, 0].ids) == 6 or samples[i, 0].finish == "stop"


@pytest.fixture
def engine(host: PluginHost):
    with open_engine(*located(host, "aster:w64l2@1600"), max_length=64) as engine:
        yield engine


@pytest.fixture
def words(host: PluginHost) -> tuple[int, ...]:
    """A prompt in the model's own language."""
    _, folder = located(host, "aster:w64l2@1600")
    return tuple(transformers.AutoTokenizer.from_pretrained(folder)(WORDS)["input_ids"])


def test_samples_do_not_depend_on_the_size_of_batches(engine, words, monkeypatch):
    request = SampleRequest("x", words, 12, n=6, temperature=1.0, top_p=0.95, seed=3)
    together = drawn(engine, [request])
    monkeypatch.setitem(generation.KEPT, "cpu", 1)
    assert drawn(engine, [request]) == together
    assert len({sample.text for sample in together.values()}) > 1


def test_more_samples_are_drawn_later(engine, words):
    first = drawn(engine, [SampleRequest("x", words, 8, n=4, temperature=1.0, seed=10)])
    later = drawn(engine, [SampleRequest("x", words, 8, n=2, temperature=1.0, seed=12)])
    assert [later["x", i].ids for i in range(2)] == [first["x", i].ids for i in (2, 3)]


def test_texts_read_as_they_stand_behind_their_prompt(engine, words):
    (sample,) = engine.generate([SampleRequest("x", words, 10)])
    tokenizer = transformers.AutoTokenizer.from_pretrained(engine.folder)
    assert WORDS + sample.text == tokenizer.decode([*words, *sample.ids], skip_special_tokens=True)


def test_a_text_ends_before_the_first_of_its_stops(engine, words):
    (whole,) = engine.generate([SampleRequest("x", words, 16)])
    for stop in (whole.text[3:8], whole.text[1]):
        (cut,) = engine.generate([SampleRequest("x", words, 16, stop=("nowhere", stop))])
        assert (cut.text, cut.finish) == (whole.text[: whole.text.index(stop)], "stop")
        assert cut.ids == whole.ids[: len(cut.ids)]


def copied(host: PluginHost, folder: Path, **settings: Any) -> Path:
    """Copy a checkpoint and give it a generation_config.json."""
    shutil.copytree(located(host, "aster:w64l2@1600")[1], folder)
    (folder / "generation_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize(
    "settings", [{"repetition_penalty": 5.0}, {"guidance_scale": 3.0}, {"num_beams": 3}, {"max_time": 0.0}], ids=str
)
def test_settings_beside_the_weights_change_no_text_and_are_said(tmp_path, host, engine, words, settings):
    """A repetition penalty changed every text of a model that came with one; lm-eval applies it, too."""
    asked = SampleRequest("x", words, 12, n=2, temperature=1.0, seed=3)
    expected = drawn(engine, [asked])
    with open_engine(CHECKPOINT, copied(host, tmp_path / "own", **settings), max_length=64) as other:
        assert drawn(other, [asked]) == expected
        ((name, value),) = settings.items()
        assert f"without the settings of generation_config.json: {name} = {value}" in other.scorer.notes[-1]
        assert getattr(other.model.generation_config, name) == value


def test_what_transformers_writes_beside_all_weights_is_no_note(tmp_path, host, words):
    """save_pretrained of transformers 5 writes both; every sweep said that they do not apply."""
    written = {"output_attentions": False, "output_hidden_states": False, "use_cache": True, "bos_token_id": 0}
    with open_engine(CHECKPOINT, copied(host, tmp_path / "own", **written), max_length=64) as other:
        drawn(other, [SampleRequest("x", words, 2)])
        assert other.scorer.notes == []


def with_special(folder: Path, token: int) -> Path:
    """Make a token of the tokenizer in a folder a special one, and return the folder."""
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    (content,) = (text for text, i in tokenizer["model"]["vocab"].items() if i == token)
    added = {"id": token, "content": content, "special": True}
    tokenizer["added_tokens"].append(tokenizer["added_tokens"][0] | added)
    file.write_text(json.dumps(tokenizer))
    return folder


def test_a_stop_that_is_a_special_token_ends_a_text(tmp_path, host, engine, words):
    """Special tokens are left out of texts, so that <|im_end|> was never found."""
    (whole,) = engine.generate([SampleRequest("x", words, 16)])
    folder = copied(host, tmp_path / "own", eos_token_id=0)
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    end = vocabulary["."]
    with_special(folder, end)
    assert end in whole.ids
    with open_engine(CHECKPOINT, folder, max_length=64) as other:
        (cut,) = other.generate([SampleRequest("x", words, 16, stop=(".",))])
    assert (cut.ids, cut.finish) == (whole.ids[: whole.ids.index(end) + 1], "stop")
    assert cut.text == whole.text[: whole.text.index(".")]


@pytest.mark.parametrize("form", ["{before}{special}{after}", "{special}{after}", "{before}{special}"])
def test_a_stop_that_has_a_special_token_beside_other_text_ends_a_text(tmp_path, host, engine, words, form):
    """`<|im_end|>` with a line break was never found, because special tokens are left out of texts."""
    (whole,) = engine.generate([SampleRequest("x", words, 16)])
    folder = copied(host, tmp_path / "own", eos_token_id=0)
    end = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]["."]
    with_special(folder, end)
    place, before, after = whole.ids.index(end), *whole.text.split(".")[:2]
    stop = form.format(before=before[-1], special=".", after=after[:1])
    with open_engine(CHECKPOINT, folder, max_length=64) as other:
        (cut,) = other.generate([SampleRequest("x", words, 16, stop=("nowhere", stop))])
    assert (cut.ids, cut.finish) == (whole.ids[: place + (2 if "{after}" in form else 1)], "stop")
    assert cut.text == (before[:-1] if "{before}" in form else before)


def test_ends_of_texts_are_those_of_the_checkpoint_that_was_swapped_in(tmp_path, host, engine, words):
    (whole,) = engine.generate([SampleRequest("x", words, 16)])
    folder = copied(host, tmp_path / "own", eos_token_id=[0, whole.ids[3]])
    engine.prefetch(CHECKPOINT, folder)
    engine.swap(CHECKPOINT, folder)
    (cut,) = engine.generate([SampleRequest("x", words, 16)])
    assert cut.ids == whole.ids[: whole.ids.index(whole.ids[3]) + 1]


def test_other_ends_of_texts_beside_the_weights_are_another_cell(tmp_path, host):
    """Whoever added <|eot_id|> to generation_config.json was told that the texts are already stored."""
    folder = copied(host, tmp_path / "own")
    ends = [{}, {"eos_token_id": 0}, {"eos_token_id": [0, 17]}, {"eos_token_id": [0, 17]}]
    written = []
    for settings in ends:
        (folder / "generation_config.json").write_text(json.dumps(settings))
        tasks = ["nano_addition_gen", "nano_job"]
        written.append(harness.evaluate([str(folder)], tasks, tmp_path / "store", limit=2, registries=host).written)
    assert written == [2, 1, 1, 0]  # config.json names 0, too
    (folder / "generation_config.json").write_text("{")
    with pytest.raises(harness.HarnessError, match="generation_config.json"):
        harness.evaluate([str(folder)], ["nano_addition_gen"], tmp_path / "store", registries=host).check()


def test_little_of_the_mass_leaves_what_is_most_probable(engine, words):
    greedy = drawn(engine, [SampleRequest("x", words, 8)])["x", 0]
    for settings in ({"temperature": 1.0, "top_p": 1e-6}, {"temperature": 1e-4}):
        assert drawn(engine, [SampleRequest("x", words, 8, seed=1, **settings)])["x", 0].ids == greedy.ids


def test_samples_end_where_max_length_is_full(engine):
    prompt = tuple(range(1, 61))
    (sample,) = engine.generate([SampleRequest("x", prompt, 50, temperature=2.0)])
    assert len(sample.ids) == 4 or sample.finish == "stop"
    with pytest.raises(EngineError, match="the prompt 'x' has 64 tokens; max_length is 64"):
        list(engine.generate([SampleRequest("x", (*prompt, 1, 2, 3, 4), 1)]))


def test_memory_that_runs_out_halves_the_batch(engine, words, monkeypatch):
    request = SampleRequest("x", words, 4, n=8, temperature=1.0)
    expected = drawn(engine, [request])
    inner, room = engine.model.generate, 2

    def cramped(prompts, **settings):
        if len(prompts) > room:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return inner(prompts, **settings)

    monkeypatch.setattr(engine.model, "generate", cramped)
    assert drawn(engine, [request]) == expected
    room = 0
    with pytest.raises(OutOfMemory, match="1 samples after"):
        drawn(engine, [request])


@pytest.mark.parametrize(
    "wrong",
    [{"prompt": ()}, {"max_tokens": 0}, {"n": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"stop": ("",)}, {"seed": -1}],
)
def test_what_cannot_be_sampled_is_said(wrong):
    (name,) = wrong
    with pytest.raises(EngineError, match=f"cannot be sampled with {name}="):
        replace(SampleRequest("x", (1, 2), 5), **wrong)
