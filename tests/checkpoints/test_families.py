"""Families: TOML to checkpoints, step ranges, sizes read from files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import harness
from harness import Checkpoint, Family, FamilyError, UsageError
from harness.checkpoints.families import complete, find_family, locate, select
from harness.checkpoints.family_files import load_family
from harness.checkpoints.flops import training_flops
from harness.checkpoints.steps import parse_steps
from harness.checkpoints.weights import measure, tensor_shapes, weight_files
from harness.host import PluginHost


def write_family(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("100, 200, 400..3200 *2", (100, 200, 400, 800, 1600, 3200)),
        ("1000..5000 +2000", (1000, 3000, 5000)),
        ("3..20 *3", (3, 9)),
        ("7", (7,)),
        ("2, 1, 2", (1, 2)),
        (5, (5,)),
        ([30, 10], (10, 30)),
    ],
)
def test_step_ranges_expand(text, steps):
    assert parse_steps(text) == steps


@pytest.mark.parametrize("text", ["100..200", "a", "1..9 *1", "0..9 *2", "1..9 +0", "", "100-200"])
def test_a_bad_step_range_says_what_was_expected(text):
    with pytest.raises(FamilyError, match="expected"):
        parse_steps(text)


def test_nano_families_have_the_published_sizes(host: PluginHost):
    """Parameters, tokens and FLOPs equal those that were written when the ladder was trained."""
    known = {}
    for name in ("aster", "birch", "cedar"):
        for checkpoint in find_family(name, host).checkpoints:
            done = complete(*locate(checkpoint))
            known[done.label] = (done.params, done.params_non_embedding, done.tokens, done.flops)
    assert len(known) == 27
    assert known["aster:w32l2@100"] == (59552, 26784, 6553600, 2341679923200)
    assert known["aster:w192l5@1600"] == (2456640, 2260032, 104857600, 1545584246784000)
    assert known["birch:w96l3@1600"] == (434016, 335712, 104857600, 273059256729600)
    assert known["cedar:w192l5@1600"] == (2470464, 2224704, 104857600, 1523357791027200)


def test_nano_checkpoints_carry_loss_and_features(host: PluginHost):
    checkpoint = complete(*locate(select("aster:w64l2@100", host)[0]))
    assert (checkpoint.loss, checkpoint.annealed) == (1.9889, False)
    assert checkpoint.features == {"width": 64.0, "depth": 2.0}
    assert select("aster:w64l2@last", host)[0].annealed is True


def test_settings_of_a_size_go_before_those_of_the_family(tmp_path):
    path = write_family(
        tmp_path,
        """
        source = "w/{size}/{step}/{seed}"
        step = "1..4 *2"
        tokens_per_step = 10
        bos = "never"
        flops = "6ND"
        [features]
        batch = 8
        [sizes.a]
        params = 100
        seed = [0, 1]
        [sizes.b]
        step = 9
        tokens = 5e9
        bos = "always"
        flops = 1e20
        features = { rate = 0.1, batch = 9 }
        """,
    )
    family = load_family(path)
    labels = [c.label for c in family.checkpoints]
    assert labels == ["mine:a@1", "mine:a@1#1", "mine:a@2", "mine:a@2#1", "mine:a@4", "mine:a@4#1", "mine:b@9"]
    last = family.checkpoints[-1]
    assert (last.tokens, last.bos, last.flops, last.flops_convention) == (5e9, "always", 1e20, "given")
    assert last.features == {"rate": 0.1, "batch": 9}
    assert family.checkpoints[3].source == str(tmp_path / "w" / "a" / "2" / "1")
    assert family.checkpoints[2].tokens == 20


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[sizes.a]\nsourcce = 'x'", "unknown setting sourcce"),
        ("[sizes.a]\n", "either source"),
        ("source = 'x'\nhub = 'y'\n[sizes.a]\n", "either source"),
        ("source = 'x'", "at least one table"),
        ("source = 'x'\nbos = 'maybe'\n[sizes.a]\n", "bos = 'maybe'; expected one of"),
        ("source = 'x'\nflops = '7ND'\n[sizes.a]\n", "flops = '7ND'; expected a number, or one of"),
        ("source = 'x/{width}'\n[sizes.a]\n", "expected .size., .step. or .seed."),
        ("source = 'x'\n[features]\na = 'b'\n[sizes.a]\n", "feature a = 'b'; expected a finite number"),
        ("source = 'x'\n[features]\na = nan\n[sizes.a]\n", "feature a = nan; expected a finite number"),
        ("source = 'x'\n[features]\nvalue = 7\n[sizes.a]\n", "feature value would hide a column"),
        ("source = 'x'\n[features]\ntrials = 7\n[sizes.a]\n", "feature trials would hide a column"),
        ("source = 'x'\ntokens = -5\n[sizes.a]\n", "tokens = -5; expected a finite, non-negative number"),
        ("source = 'x'\ntokens = 'many'\n[sizes.a]\n", "tokens = 'many'; expected a number without quotes"),
        ("source = 'x'\nloss = {1 = inf}\n[sizes.a]\n", "loss = inf; expected"),
        ("source = 'x'\nstep = '7..1 *2'\n[sizes.a]\n", "step range '7..1 .2' decreases"),
        ("source = 'x'\nstep = ['a']\n[sizes.a]\n", "expected integers"),
        ("source = 'x'\nstep = '1..'\n[sizes.a]\n", "step range"),
        ("source = ", "mine.toml"),
    ],
)
def test_a_wrong_family_file_is_named_with_what_is_wrong(tmp_path, text, message):
    with pytest.raises(FamilyError, match=message) as caught:
        load_family(write_family(tmp_path, text))
    assert "mine.toml" in str(caught.value)


def test_selection_by_size_and_step(host: PluginHost):
    def labels(text):
        return [c.label for c in select(text, host)]

    assert labels("aster:w64l2@400..1600 *2") == ["aster:w64l2@400", "aster:w64l2@800", "aster:w64l2@1600"]
    assert labels("aster:w*2@last") == ["aster:w32l2@1600", "aster:w64l2@1600"]
    assert labels("aster@100") == ["aster:w32l2@100", "aster:w64l2@100", "aster:w96l3@100"]
    assert labels("aster:w32l2@800,100,400..1600 *4,last") == [f"aster:w32l2@{n}" for n in (100, 400, 800, 1600)]
    assert len(labels("birch")) == 5


@pytest.mark.parametrize("text", ["astor", "aster:w1", "aster@17", "aster:w32l2@5", ":", ""])
def test_selecting_what_is_not_there_lists_what_is(host: PluginHost, text):
    with pytest.raises((UsageError, FamilyError)) as caught:
        select(text, host)
    assert "aster" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("birch:w32l2@100,1600", "birch:w32l2@100"),
        ("aster:w32l2,w999@100", "aster:w999@100"),
        ("aster:w32l2,w192l5@400", "aster:w192l5@400"),
        ("aster@last,17", r"aster:\*@17"),
    ],
)
def test_no_step_or_size_that_was_asked_for_is_left_out_silently(host: PluginHost, text, missing):
    with pytest.raises(UsageError, match=f"there is no checkpoint {missing}; (steps of|sizes are)"):
        select(text, host)


def test_counts_of_zero_are_not_taken_for_missing(host: PluginHost):
    known, folder = locate(select("aster:w32l2@100", host)[0])
    assert complete(replace(known, tokens=0), folder).flops == 0
    assert complete(replace(known, params=0), folder).params == 0


def test_a_folder_with_a_checkpoint_is_a_family(host: PluginHost):
    source = find_family("aster", host).checkpoints[0].source
    (checkpoint,) = select(source, host)
    assert complete(*locate(checkpoint)).params == 59552


@pytest.mark.parametrize("name", ["at@step", "co:lon", "sp ace ü"])
def test_a_folder_is_found_whatever_its_name(tmp_path, host: PluginHost, name):
    """The part of a path after @ or : was taken for steps or sizes."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "config.json").write_text("{}")
    (checkpoint,) = select(str(tmp_path / name), host)
    assert checkpoint.source == str(tmp_path / name)


def test_a_family_file_may_name_folders_of_adapters(tmp_path):
    """They were said to lack config.json."""
    for folder, file, content in (
        ("base", "config.json", {}),
        ("lora-7", "adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": "../base"}),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file).write_text(json.dumps(content))
    family = load_family(write_family(tmp_path, 'source = "lora-{step}"\nstep = 7\n[sizes.a]'))
    checkpoint, folder = locate(family.checkpoints[0])
    assert (checkpoint.label, checkpoint.adapter) == ("mine:a@7", str(tmp_path / "lora-7"))
    assert checkpoint.source == str(folder) == str(tmp_path / "base")


def test_a_family_file_with_a_byte_order_mark_is_read(tmp_path):
    assert load_family(write_family(tmp_path, '\ufeffsource = "x"\n[sizes.a]')).checkpoints[0].size == "a"


def test_a_table_of_steps_with_other_keys_is_refused(tmp_path):
    """Checkpoints had no tokens, and no FLOPs, without a word."""
    path = write_family(tmp_path, 'source = "x"\nstep = 7\n[sizes.a]\ntokens = { step-7 = 5 }')
    with pytest.raises(FamilyError, match="size a: tokens has the step step-7; expected whole numbers"):
        load_family(path)


def test_a_missing_part_of_weights_without_an_index_is_named(tmp_path):
    save_file({"x": np.zeros(2)}, tmp_path / "model-00001-of-00003.safetensors")
    save_file({"y": np.zeros(2)}, tmp_path / "model-00003-of-00003.safetensors")
    with pytest.raises(FamilyError, match="lacks model-00002-of-00003.safetensors; copy it again"):
        weight_files(tmp_path)


def test_a_damaged_download_is_deleted_before_it_is_repeated(tmp_path):
    """`copy it again` does not help: the hub's client takes the file for complete."""
    blob = tmp_path / "blobs" / "1234"
    blob.parent.mkdir()
    blob.write_bytes(b"")
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(blob)
    again = f"delete {blob} and download it again"
    with pytest.raises(FamilyError, match=again):
        tensor_shapes(tmp_path / "model.safetensors")
    with pytest.raises(FamilyError, match=again):
        measure(tmp_path)


def test_a_missing_folder_is_named(tmp_path):
    path = write_family(tmp_path, "source = 'nowhere'\n[sizes.a]\n")
    with pytest.raises(FamilyError, match="no config.json or adapter_config.json in .*nowhere"):
        locate(load_family(path).checkpoints[0])


def write_checkpoint(folder: Path, shapes: dict[str, tuple[int, ...]], **config) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"hidden_size": 4, "num_hidden_layers": 1, **config}))
    save_file({name: np.zeros(shape, dtype=np.float32) for name, shape in shapes.items()}, folder / "model.safetensors")
    return folder


def test_an_untied_head_is_counted_but_not_among_non_embedding_parameters(tmp_path):
    shapes = {"embed_in.weight": (10, 4), "embed_out.weight": (10, 4), "layer.dense.weight": (4, 4)}
    sizes = measure(write_checkpoint(tmp_path, shapes))
    assert (sizes.params, sizes.params_non_embedding, sizes.head) == (96, 16, 40)


@pytest.mark.parametrize(
    "names",
    [
        ("backbone.embeddings.weight", "lm_head.weight"),
        ("model.tok_embeddings.weight", "output.weight"),
        ("transformer.tokens_embed.weight", "lm_head.weight"),
        ("bert.embeddings.word_embeddings.weight", "cls.output_layer.weight"),
    ],
    ids=["mamba", "internlm2", "openai-gpt", "bert"],
)
def test_embeddings_of_other_names_are_not_counted_outside_of_embeddings(tmp_path, names):
    """Mamba's embedding was counted as layers, and so were its FLOPs by the convention 6ND_non_embedding."""
    sizes = measure(write_checkpoint(tmp_path, dict.fromkeys(names, (10, 4)) | {"layers.0.output.weight": (4, 4)}))
    assert (sizes.params, sizes.params_non_embedding, sizes.head) == (96, 16, 40)


def test_buffers_of_older_versions_are_not_parameters(tmp_path):
    shapes = {
        "wte.weight": (10, 4),
        "wpe.weight": (8, 4),
        "h.0.attn.bias": (1, 1, 8, 8),
        "h.0.attn.c_attn.bias": (12,),
        "h.0.attn.masked_bias": (1,),
        "rotary_emb.inv_freq": (2,),
    }
    sizes = measure(write_checkpoint(tmp_path, shapes))
    assert (sizes.params, sizes.params_non_embedding, sizes.head) == (84, 12, 40)


def test_optimizer_states_and_copies_beside_the_weights_are_no_parameters(tmp_path):
    """consolidated.safetensors, as some repositories have it beside their shards, doubled params and FLOPs."""
    write_checkpoint(tmp_path, {"wte.weight": (10, 4)})
    save_file({"exp_avg.wte.weight": np.zeros((10, 4))}, tmp_path / "optimizer.safetensors")
    assert (measure(tmp_path).params, weight_files(tmp_path)) == (40, [tmp_path / "model.safetensors"])
    (tmp_path / "model.safetensors").rename(tmp_path / "model-00001-of-00001.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"wte.weight": "model-00001-of-00001.safetensors"}}))
    assert measure(tmp_path).params == 40
    index.write_text(json.dumps({"weight_map": {"wte.weight": "model-00001-of-00002.safetensors"}}))
    with pytest.raises(FamilyError, match="lacks model-00001-of-00002.safetensors, which .*index.json names"):
        measure(tmp_path)
    index.write_text("[]")
    with pytest.raises(FamilyError, match="not an index of weights"):
        weight_files(tmp_path)


def test_a_broken_safetensors_file_is_named(tmp_path):
    write_checkpoint(tmp_path, {"wte.weight": (2, 2)})
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(FamilyError, match="model.safetensors: not a safetensors file"):
        measure(tmp_path)


def test_a_hub_revision_is_resolved_to_its_commit_without_a_network(tmp_path, monkeypatch):
    """The cache of huggingface_hub, laid out as it does, answers for `step1` with the commit it stands for."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "models--org--tiny"
    write_checkpoint(repo / "snapshots" / commit, {"wte.weight": (10, 4)})
    (repo / "refs").mkdir()
    (repo / "refs" / "step1").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    text = "hub = 'org/{size}'\nrevision = 'step{step}'\nstep = [1, 2]\n[sizes.tiny]\n"
    first, second = load_family(write_family(tmp_path, text)).checkpoints
    located, folder = locate(first)
    assert located.source == f"hub:org/tiny@{commit}"
    assert complete(located, folder).params == 40
    with pytest.raises(FamilyError, match="org/tiny at step2 cannot be downloaded"):
        locate(second)


def test_training_flops_are_6nd():
    assert training_flops(7e9, 2e12) == 8.4e22


@pytest.mark.parametrize("feature", ["acc", "acc_stderr", "acc_n", "trials", "passed"])
def test_a_feature_with_the_name_of_a_column_is_refused_wherever_the_family_comes_from(tmp_path, host, feature):
    """A feature `trials` of a family made in Python once replaced the trials that were counted."""
    checkpoint = Checkpoint("mine", "s", 1, 0, str(tmp_path), features={feature: 7.0})
    with pytest.raises(FamilyError, match=f"mine:s@1: feature {feature} would hide a column or a metric"):
        harness.evaluate([Family("mine", (checkpoint,))], ["nano_job"], tmp_path / "s", registries=host)


def test_weights_that_are_cut_off_are_known_before_they_are_read(tmp_path, host: PluginHost):
    _, folder = locate(select("aster:w32l2@100", host)[0])
    whole = (folder / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        FamilyError, match=f"has {len(whole) // 2} bytes; its header expects {len(whole)}; copy it again"
    ):
        tensor_shapes(tmp_path / "model.safetensors")
