"""The nano world does not change, and a family can be trained and evaluated."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import harness
import harness_tasks
from harness.checkpoints.family_files import load_family
from harness_plugins import nano
from harness_plugins.nano import checkpoints, documents, models, questions, recipe, text, train, world

SHIPPED = ["addition", "agreement", "birthplace", "flag", "job", "ordering", "saying", "text"]
TINY = recipe.Training("aster", steps=16, batch=4, docs=300)
OPTIONS = [
    "--sizes=w32l2", "--steps=16", "--batch=4", "--docs=300", "--workers=1", "--device=cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All tasks, generated and written again."""
    folder = tmp_path_factory.mktemp("tasks")
    questions.main([str(folder)])
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a really trained, tiny family."""
    pytest.importorskip("transformers")
    out = tmp_path_factory.mktemp("trained")
    assert train.main(["aster", str(out), *OPTIONS]) == 0
    return out


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    """A copy of the tiny family, to be damaged."""
    return shutil.copytree(trained, tmp_path / "copy")


# --- the world ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_tasks_are_drawn_byte_for_byte_as_shipped(written: Path, name: str) -> None:
    """The documents that ship are those that the world draws."""
    shipped = Path(harness_tasks.__file__).parent / f"nano_{name}" / "docs.jsonl"
    assert (written / f"nano_{name}.jsonl").read_bytes() == shipped.read_bytes()


def test_generation_tasks_are_drawn_too(written: Path) -> None:
    """The tasks of generation, which do not ship yet, are the same as ever."""
    digests = {file.stem: _digest(file.read_bytes()) for file in written.glob("*_gen.jsonl")}
    assert digests == {"nano_addition_gen": "be48365f6ba932e6", "nano_recall_gen": "1e22a8ee540a4224"}


@pytest.mark.parametrize(
    ("family", "digest"),
    [
        ("aster", "ad7ca1a5b94230fd"),
        ("birch", "db2c82f0c9a1485a"),
        ("cedar", "b2098f19ac90596e"),
        ("dune", "a02251dd4a76abdd"),
    ],
)
def test_training_text_is_the_same_as_ever(family: str, digest: str) -> None:
    """Documents of each mixture are those on which the included families were trained."""
    texts = documents.documents(world.draw_world(), documents.MIXTURES[family], 500, 1000)
    assert _digest("\n".join(texts).encode()) == digest


def test_every_mixture_is_whole_and_has_a_design() -> None:
    """Shares add up to 1, and every family of the text can be trained."""
    assert [sum(shares.values()) for shares in documents.MIXTURES.values()] == pytest.approx([1] * 4)
    assert list(models.DESIGNS) == list(documents.MIXTURES)
    assert set(nano.FAMILIES) < set(models.DESIGNS)


def test_facts_of_the_world_answer_the_tasks(written: Path) -> None:
    """The gold choice of a fact is what the world says."""
    jobs = {person.name: person.job for person in world.draw_world().people}
    for line in (written / "nano_job.jsonl").read_text().splitlines():
        doc = json.loads(line)
        name = doc["query"].removeprefix("The job of ").removesuffix(" is")
        assert doc["choices"][doc["gold"]] == jobs[name]


# --- training -----------------------------------------------------------------------------------------------


def test_the_family_file_says_what_was_trained(trained: Path) -> None:
    """Steps, tokens, losses and the annealed one are read back by the harness."""
    rungs = load_family(trained / "aster.toml").checkpoints
    assert [rung.step for rung in rungs] == [1, 2, 4, 8, 16]
    assert [rung.tokens for rung in rungs] == [rung.step * 4 * 256 for rung in rungs if rung.step]
    assert [rung.annealed for rung in rungs] == [False] * 4 + [True]
    assert {(rung.size, rung.seed, rung.bos) for rung in rungs} == {("w32l2", 0, "always")}
    losses = [rung.loss or np.nan for rung in rungs]
    assert losses[0] == pytest.approx(np.log(recipe.VOCAB), abs=0.1)  # knows nothing yet
    assert losses == sorted(losses, reverse=True)


def test_the_trained_family_is_evaluated(trained: Path, tmp_path: Path) -> None:
    """The checkpoints load and score, and what is known of their training reaches the points."""
    family, store = str(trained / "aster.toml"), tmp_path / "store"
    harness.evaluate([family], ["nano_job"], store, limit=5, options={"device": "cpu"}).check()
    scores = harness.open_store(store).scores()
    assert len(scores) == 5 * 5 * 4  # checkpoints, documents, choices
    assert np.isfinite(scores["logprob"]).all()
    last = harness.open_store(store).points(metrics=["logp_gold"]).iloc[-1]
    assert np.isfinite(last["value"])
    assert (last["step"], last["params"]) == (16, 59552)
    assert last["flops"] == 6 * 59552 * 16 * 4 * 256  # the head is tied, so all parameters are multiplied


def test_the_tokenizer_is_that_of_the_shipped_families(trained: Path) -> None:
    """A family that is trained today shares its tokens with those that ship."""
    shipped = Path(nano.__file__).with_name("weights") / "aster" / "w32l2" / "step-1600"
    folder = trained / "aster" / "w32l2" / "step-16"
    files = [json.loads((place / "tokenizer.json").read_text()) for place in (folder, shipped)]
    assert files[0]["model"] == files[1]["model"]


def test_a_finished_size_is_skipped(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same command again trains nothing."""
    before = _times(trained / "aster")
    assert train.main(["aster", str(trained), *OPTIONS]) == 0
    assert "aster w32l2 is finished; skipped" in capsys.readouterr().out
    assert _times(trained / "aster") == before


def test_an_interrupted_size_is_trained_again(trained: Path, copy: Path) -> None:
    """Without its last checkpoint, a size is trained again with the same result; no other files are left."""
    size = copy / "aster" / "w32l2"
    shutil.rmtree(size / "step-16")
    (size / ".step-16.new").mkdir()
    file = train.train_family(TINY, copy, ["w32l2"])
    assert {folder.name for folder in size.iterdir()} == {f"step-{step}" for step in TINY.kept}
    before, after = (load_family(path).checkpoints for path in (trained / "aster.toml", file))
    # the last bits of weights depend on torch's threads
    assert [rung.loss for rung in after] == pytest.approx([rung.loss for rung in before], abs=1e-3)


def test_a_checkpoint_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """A disk that fills up while the tokenizer is written leaves no checkpoint."""
    pytest.importorskip("transformers")

    class FullDisk:
        def save_pretrained(self, _: Path) -> None:
            raise OSError("No space left on device")

    output = checkpoints.Output(TINY, tmp_path)
    snapshot = checkpoints.Snapshot(16, 1.0, models.make_model(TINY, recipe.SIZES["w32l2"]))
    with pytest.raises(OSError, match="No space left"):
        output.save("w32l2", snapshot, FullDisk())
    assert not output.is_finished("w32l2")


def test_the_seed_changes_the_first_weights() -> None:
    """Two seeds, two models; torch's own random state stays as it was."""
    torch = pytest.importorskip("torch")
    state = torch.random.get_rng_state()
    seeds = [recipe.Training("aster", seed=seed) for seed in (0, 0, 1)]
    first, again, other = (
        models.make_model(training, recipe.SIZES["w32l2"]).get_input_embeddings().weight for training in seeds
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_workers_change_the_time_and_not_the_text(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts drawn by two processes are those drawn by one, the short last part included."""
    monkeypatch.setattr(text, "PART", 200)
    tokenizer = (trained / "aster" / "w32l2" / "step-16" / "tokenizer.json").read_text()
    of_one_worker, of_two_workers = (text.draw_tokens(TINY, tokenizer, workers=workers) for workers in (1, 2))
    assert np.array_equal(of_one_worker, of_two_workers)
    assert (of_one_worker == recipe.EOS_ID).sum() == TINY.docs


def test_the_rate_warms_up_and_anneals() -> None:
    """The rate rises to its peak, which is lower for wider models, and ends at a twentieth of it."""
    rates = [recipe.learning_rate(step, 1600, 64) for step in range(1, 1601)]
    assert max(rates) == pytest.approx(4e-3, rel=0.02)
    assert rates[-1] == pytest.approx(4e-3 / 20)
    assert recipe.learning_rate(1600, 1600, 128) < rates[-1]


# --- errors -------------------------------------------------------------------------------------------------


def test_an_unknown_size_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A size that does not exist is an error of usage, which lists those that do."""
    assert train.main(["aster", str(tmp_path), "--sizes", "w32l2,w48l2", "--device", "cpu"]) == 2
    assert capsys.readouterr().err.startswith("train: unknown size w48l2; expected one or more of w32l2, w64l2")


@pytest.mark.parametrize(("option", "value"), [("steps", 32), ("batch", 8), ("docs", 600), ("seed", 1)])
def test_another_training_is_not_mixed_in(trained: Path, option: str, value: int) -> None:
    """A folder that holds the family from other settings is refused, and the difference named."""
    other = recipe.Training(**{"family": "aster", "steps": 16, "batch": 4, "docs": 300, option: value})
    difference = rf"{option} \d+; expected {option} {value}; choose another folder"
    with pytest.raises(harness.FamilyError, match=difference):
        train.train_family(other, trained, ["w64l2"])


def test_another_training_ends_with_status_1(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command line says so in one line."""
    assert train.main(["aster", str(trained), *OPTIONS, "--seed", "1"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_family_file_of_others_is_not_overwritten(tmp_path: Path) -> None:
    """A family file without its checkpoints, such as an included one, stays."""
    shipped = shutil.copy(Path(nano.__file__).with_name("aster.toml"), tmp_path)
    with pytest.raises(harness.FamilyError, match="without its checkpoints; choose another folder"):
        train.train_family(TINY, tmp_path)
    assert "balanced mixture" in Path(shipped).read_text()


def test_checkpoints_of_others_are_not_overwritten(copy: Path) -> None:
    """A checkpoint that does not say how it was trained is no part of this training."""
    (copy / "aster" / "w32l2" / "step-1" / "training.json").unlink()
    with pytest.raises(harness.FamilyError, match="step-1 was trained with family None, steps None"):
        train.train_family(TINY, copy)


def test_a_text_shorter_than_a_batch_is_refused() -> None:
    """The error says what was found, what a batch takes, and what to do."""
    message = r"300 gave 1,023 tokens; .* 4 x 256 = 1,024; raise --docs or lower"
    with pytest.raises(harness.UsageError, match=message):
        text.cut(np.zeros(1023, dtype=np.int16), TINY)


def test_a_loss_that_is_not_finite_stops_the_training() -> None:
    """Weights that diverged are not saved."""
    torch = pytest.importorskip("torch")
    losses = train.deque([torch.tensor(1.0), torch.tensor(float("nan"))])
    with pytest.raises(harness.HarnessError, match="the loss at step 2 is nan"):
        train._mean(losses, 2)


@pytest.mark.parametrize("option", ["--steps", "--batch", "--docs", "--workers"])
def test_numbers_below_one_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Argparse names the option."""
    with pytest.raises(SystemExit):
        train.main(["aster", "OUT", option, "0"])
    assert f"argument {option}: 0 is less than 1" in capsys.readouterr().err


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _times(folder: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
