"""The vLLM engine without vLLM: after crashes, lack of memory and wrong swaps of its children, nothing is lost."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from harness import Checkpoint, EngineError, OutOfMemory, Request, SampleRequest
from harness.testing.fake_engine import FakeEngine
from harness_plugins.engines.processes import WINDOW, _is_alive
from harness_plugins.engines.vllm import inspect
from harness_plugins.engines.vllm_engine import Settings, VllmEngine
from harness_plugins.engines.vllm_swaps import Verdict, keep_verdict, kind_of, verdict_of, verdicts

WORKER = (sys.executable, "-m", "tests.plugins.stand_in")
CHECKPOINT = Checkpoint("fam", "s", 1, 0, "")
devices = map(str, count())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "a")


def make_folder(path: Path, **files: str) -> Path:
    path.mkdir()
    (path / "config.json").write_text('{"architectures": ["Fake"], "tie_word_embeddings": true}')
    for name, text in files.items():
        (path / name).write_text(text)
    return path


@pytest.fixture
def start():
    """Start engines on folders, each on a device of its own name, and close them."""
    engines: list[VllmEngine] = []

    def start(folder: Path, **options) -> VllmEngine:
        settings = {"dtype": "float32", "device": next(devices), **options}
        engines.append(VllmEngine(folder, Settings(settings, worker=WORKER)))
        engines[-1].start()
        return engines[-1]

    yield start
    for engine in engines:
        engine.close()


def requests(n: int, cells: int = 1) -> list[Request]:
    rng = np.random.default_rng(0)

    def ids(size: int) -> tuple[int, ...]:
        return tuple(rng.integers(256, size=size).tolist())

    return [Request(("key", i), ids(4), (ids(1), ids(3)), cell=i * cells // n) for i in range(n)]


def expect(engine: VllmEngine, asked: list[Request]) -> None:
    """Compare what comes with the fake engine's: each result once."""
    scores = list(engine.score(asked))
    assert sorted(score.key for score in scores) == sorted(request.key for request in asked)
    expected = {score.key: score for score in FakeEngine(engine.folder.name).score(asked)}
    for score in scores:
        assert score.logprobs.tolist() == expected[score.key].logprobs.tolist()
        assert score.is_greedy.tolist() == expected[score.key].is_greedy.tolist()


@pytest.mark.soak
def test_every_result_comes_once_whatever_the_number_of_requests(start, folder):
    engine = start(folder)
    for n, cells in ((2500, 3), (1024, 1), (1, 1), (0, 1)):
        expect(engine, requests(n, cells))
    assert engine.starts == 1


@pytest.mark.soak
def test_a_child_with_room_for_more_than_it_is_sent_answers_what_it_has(start, folder):
    """Both sides waited for each other: vLLM takes 1024 at a time on large GPUs, and the worker held twice as many."""
    engine = start(folder)
    expect(engine, requests(WINDOW + 1))
    asked = [SampleRequest(i, (i % 200, 7), 5, temperature=1.0, seed=i) for i in range(WINDOW + 1)]
    assert sorted(sample.key for sample in engine.generate(asked)) == list(range(WINDOW + 1))


@pytest.mark.soak
def test_a_child_that_dies_is_started_again_and_asked_what_it_did_not_answer(start, tmp_path):
    engine = start(make_folder(tmp_path / "a", mishaps="result 300 kill\nresult 100 exit\n"))
    expect(engine, requests(700))
    notes = engine.describe()["notes"]
    assert len(notes) == 2
    assert notes[0].startswith("the process of the engine ended by signal 9; vLLM was restarted and received ")
    assert int(notes[0].split()[-3]) <= 700 - 250  # not all once more


@pytest.mark.soak
def test_a_child_that_dies_again_and_again_is_given_up(start, tmp_path):
    engine = start(make_folder(tmp_path / "a", mishaps="result 5 kill\n" * 9))
    with pytest.raises(EngineError, match=r"vLLM cannot serve .*ended by signal 9\n(.*\n)*about to kill"):
        list(engine.score(requests(20)))
    assert engine.starts == 4
    assert engine.child is None


def test_a_request_that_cannot_be_answered_is_not_tried_again(start, tmp_path):
    engine = start(make_folder(tmp_path / "a", mishaps="result 5 request\n"))
    with pytest.raises(EngineError, match="ValueError: the prompt is odd"):
        list(engine.score(requests(20)))
    assert engine.starts == 1


@pytest.mark.soak
def test_memory_that_runs_out_is_asked_for_less(start, tmp_path):
    mishaps = "start memory\nresult 10 memory\nresult 10 memory\n"
    engine = start(make_folder(tmp_path / "a", mishaps=mishaps), max_num_batched_tokens=1000)
    assert engine.options["gpu_memory_utilization"] == 0.72
    expect(engine, requests(50))
    about = engine.describe()
    assert about["options"]["max_num_batched_tokens"] == 256
    assert about["notes"][:2] == [
        "out of memory: gpu_memory_utilization is 0.72 from now on",
        "out of memory: max_num_batched_tokens is 500 from now on",
    ]


@pytest.mark.soak
def test_errors_of_vllms_engine_core_are_found_in_its_log(start, tmp_path):
    """On a GPU it is another process, and its client says only that there is a root cause above."""
    mishaps = "start core_full\nresult 10 core_out\n"
    engine = start(make_folder(tmp_path / "a", mishaps=mishaps), max_num_batched_tokens=1000)
    expect(engine, requests(50))
    assert engine.describe()["notes"][:2] == [
        "out of memory: gpu_memory_utilization is 0.72 from now on",
        "out of memory: max_num_batched_tokens is 500 from now on",
    ]


@pytest.mark.soak
def test_a_model_that_leaves_no_memory_for_its_cache_is_refused_at_once(start, tmp_path):
    """It was started four times, each time with less memory, where more is needed."""
    folder = make_folder(tmp_path / "a", mishaps="start core_cache\nstart kill\n")
    told = r"See root cause above\.: ValueError: No available memory for the cache blocks\. Try increasing gpu_memory"
    with pytest.raises(EngineError, match=told):
        start(folder)
    assert (folder / "mishaps").read_text() == "start kill"


def test_an_engine_whose_core_was_killed_ends(tmp_path):
    """The client of vLLM would wait for ever for its results, and the sweep for the engine."""
    code = (
        "import time, types; from harness_plugins.engines.vllm_start import end_with_core; "
        "end_with_core(types.SimpleNamespace(engine_dead=True), 0.01); time.sleep(60)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "the process of vLLM's engine core ended\n")


@pytest.mark.soak
def test_memory_that_never_suffices_is_out_of_memory(tmp_path, start):
    with pytest.raises(OutOfMemory, match=r"CUDA out of memory\."):
        start(make_folder(tmp_path / "a", mishaps="start memory\n" * 9))


def test_an_option_that_does_not_exist_is_said_at_once(start, folder):
    with pytest.raises(EngineError, match="unexpected keyword argument 'unheard_of'"):
        start(folder, unheard_of=1)


def test_samples_come_once_though_the_child_dies(start, tmp_path):
    asked = [SampleRequest(i, (i + 1, 7), 5, n=4, temperature=1.0, seed=i) for i in range(30)]
    engine = start(make_folder(tmp_path / "a", mishaps="result 50 kill\n"))
    samples = {(sample.key, sample.index): sample for sample in engine.generate(asked)}
    expected = {(sample.key, sample.index): sample for sample in FakeEngine("a").generate(asked)}
    assert samples == expected
    with pytest.raises(EngineError, match="has 3000 tokens; max_length is 2048"):
        list(engine.generate([SampleRequest(0, (1,) * 3000, 5)]))


def test_a_caller_that_goes_away_leaves_nothing_behind(start, folder):
    engine = start(folder)
    scores = engine.score(requests(2000))
    next(scores)
    scores.close()
    assert engine.child is None
    expect(engine, requests(10))


# --- swaps -----------------------------------------------------------------------------------------------------------


def pids(engine: VllmEngine, folders: list[Path]) -> list[int]:
    """Swap from folder to folder, with right scores each time; return the process that served each."""
    children = []
    for folder in folders:
        engine.swap(CHECKPOINT, folder)
        expect(engine, requests(5))
        children.append(engine.child.process.pid)
    return children


@pytest.mark.soak
def test_a_swap_that_was_seen_right_is_trusted(start, tmp_path):
    first, *others = [make_folder(tmp_path / name) for name in "abcd"]
    engine = start(first)
    before = engine.child.process.pid
    after = pids(engine, others)
    assert before != after[0] == after[1] == after[2]
    assert engine.describe()["notes"] == []
    another = start(first, device=engine.options["device"])
    before = another.child.process.pid
    assert set(pids(another, others)) == {before}  # seen by the first engine


def forget() -> None:
    """Forget what this process has seen, as if it were another one."""
    verdicts().clear()


@pytest.mark.soak
def test_a_second_process_does_not_start_a_second_engine(start, tmp_path):
    first, *others = [make_folder(tmp_path / name) for name in "abcd"]
    engine = start(first)
    assert len({engine.child.process.pid, *pids(engine, others)}) == 2
    forget()
    another = start(first, device=engine.options["device"])
    before = another.child.process.pid
    assert set(pids(another, others)) == {before}
    forget()
    other_options = start(first, device=engine.options["device"], seed=1)
    assert len({other_options.child.process.pid, *pids(other_options, others)}) == 2


@pytest.mark.soak
def test_a_verdict_of_an_earlier_process_does_not_spare_the_check_after_a_swap(start, tmp_path):
    """The swap is wrong in the second process only; a third one does not try again, and says where that is kept."""
    first, *others = [make_folder(tmp_path / name) for name in "abc"]
    engine = start(first)
    pids(engine, others)
    forget()
    (first / "swaps").write_text("nothing")
    for _ in range(2):
        another = start(first, device=engine.options["device"])
        before = another.child.process.pid
        assert before not in pids(another, others)
        note = another.describe()["notes"][-1]
        assert "a later swap was wrong: the weights in use differ from the checkpoint in lm_head.weight" in note
        forget()
    assert re.search(r"\(found by an earlier process; remove .*\.json to repeat the comparison\)", note)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("swaps", "why"),
    [
        ("half", "nats from those of a fresh engine"),
        ("nothing", "from those of a fresh engine"),
        ("refuse", "it failed"),
    ],
)
def test_a_swap_that_was_seen_wrong_is_not_done_again(start, tmp_path, swaps, why):
    first, *others = [make_folder(tmp_path / name, swaps=swaps) for name in "abcd"]
    engine = start(first)
    assert len(set(pids(engine, others))) == 3
    note = engine.describe()["notes"][-1]
    assert note.startswith("weights are not swapped, each checkpoint has its own engine: ")
    assert why in note


@pytest.mark.soak
def test_a_later_swap_that_changes_nothing_is_noticed(start, tmp_path):
    first, second, *others = [make_folder(tmp_path / name, swaps="right") for name in "abcd"]
    engine = start(first)
    (before,) = pids(engine, [second])
    (second / "swaps").write_text("nothing")
    after = pids(engine, others)
    assert len({before, *after}) == 3
    told = "a later swap was wrong: the weights in use differ from the checkpoint in lm_head.weight"
    assert engine.describe()["notes"][-1].endswith(told)


def test_a_model_whose_weights_cannot_be_verified_is_not_swapped(start, tmp_path):
    why = "weights are quantised (fp8)"
    first, *others = [make_folder(tmp_path / name, unchecked=why) for name in "abc"]
    engine = start(first)
    assert len(set(pids(engine, others))) == 2
    told = "weights are not swapped, each checkpoint has its own engine: "
    assert engine.describe()["notes"] == [told + why]


def test_a_fresh_engine_that_does_not_serve_its_checkpoint_is_an_error(start, tmp_path):
    """Where engines of the same kind were verified before."""
    first = make_folder(tmp_path / "a")
    wrong = make_folder(tmp_path / "b", unchecked="the weights in use differ from the checkpoint in lm_head.weight")
    engine = start(first)
    with pytest.raises(EngineError, match=r"does not serve the weights of .*b: the weights in use differ"):
        engine.swap(CHECKPOINT, wrong)
    assert engine.child is None


def test_checkpoints_whose_tensors_differ_have_different_shapes(tmp_path):
    """So that no swap leads from one to the other."""
    layer = {"layers.0.weight": ("F32", [2, 2]), "layers.0.bias": ("F32", [2])}
    first = write_tensors(make_folder(tmp_path / "a"), layer)
    assert first == write_tensors(make_folder(tmp_path / "b"), dict(reversed(layer.items())))
    others = [
        {"layers.0.weight": ("F32", [2, 2])},
        layer | {"layers.0.bias": ("F32", [4])},
        layer | {"layers.0.bias": ("F16", [2])},
        {"layers.0.weight": ("F32", [2, 2]), "layers.0.gain": ("F32", [2])},
    ]
    for i, tensors in enumerate(others):
        assert write_tensors(make_folder(tmp_path / str(i)), tensors) != first


def write_tensors(folder: Path, tensors: dict[str, tuple[str, list[int]]]) -> str:
    """Write safetensors of zeros; return the shape of the checkpoint."""
    header, end = {}, 0
    for name, (dtype, shape) in tensors.items():
        begin, end = end, end + int(np.prod(shape)) * {"F32": 4, "F16": 2}[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(end))
    return inspect(CHECKPOINT, folder).shape


def test_equal_weights_under_two_names_are_no_wrong_swap(start, tmp_path):
    """A canary that scores the same after a verified swap is no cause for a fresh engine."""
    first, second = (make_folder(tmp_path / name) for name in "ab")
    copied = tmp_path / "elsewhere" / "b"
    copied.parent.mkdir()
    make_folder(copied)
    engine = start(first)
    pids(engine, [second, copied])
    assert engine.describe()["notes"] == []


def test_a_verdict_is_kept_on_disk_until_anything_changes_that_it_depends_on(folder, monkeypatch):
    about = {"vllm": "1", "torch": "2", "device": "gpu"}

    def kind(options=None, environment=None, **changes: str) -> tuple[str, ...]:
        return kind_of(folder, about | changes, {"dtype": "float32", **(options or {})}, environment or {})

    keep_verdict(kind(), Verdict("it differs", lasting=True))
    verdicts().clear()
    assert verdict_of(kind()).why_not == "it differs"
    assert verdict_of(kind({"max_model_len": 5})).why_not == "it differs"
    others = [kind(vllm="2"), kind(torch="3"), kind(device="cpu"), kind({"dtype": "bfloat16"}), kind({"seed": 1})]
    assert [verdict_of(other) for other in [*others, kind(environment={"VLLM_X": "1"})]] == [None] * 6
    monkeypatch.setenv("VLLM_ATTENTION_BACKEND", "other")
    assert verdict_of(kind()) is None
    monkeypatch.delenv("VLLM_ATTENTION_BACKEND")
    (folder / "config.json").write_text('{"architectures": ["Other"]}')
    assert verdict_of(kind()) is None


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"kind": ["other"], "why_not": ""}', '{"kind": null}', "\udcff"])
def test_a_damaged_verdict_is_as_none_and_written_again(folder, damage):
    kind = kind_of(folder, {}, {"damage": damage}, {})
    keep_verdict(kind, Verdict("", lasting=True))
    verdicts().clear()
    file = verdict_of(kind).file
    file.write_bytes(damage.encode("utf-8", "surrogateescape"))
    assert verdict_of(kind) is None
    keep_verdict(kind, Verdict("it differs", lasting=True))
    verdicts().clear()
    assert verdict_of(kind).why_not == "it differs"


def test_what_may_be_otherwise_next_time_is_not_kept(folder):
    kind = kind_of(folder, {}, {"once": True}, {})
    keep_verdict(kind, Verdict("it failed"))
    assert verdict_of(kind).why_not == "it failed"
    verdicts().clear()
    assert verdict_of(kind) is None


# --- processes -------------------------------------------------------------------------------------------------------


def test_all_that_a_child_started_ends_with_it(start, folder):
    engine = start(folder, grandchild=1000)
    group = engine.child.process.pid
    assert _is_alive(group)
    engine.close()
    assert not _is_alive(group)


def test_a_child_ends_when_its_parent_is_killed(folder):
    program = f"""
import time
from pathlib import Path
from harness_plugins.engines.vllm_engine import Settings, VllmEngine
engine = VllmEngine(Path({str(folder)!r}), Settings({{"dtype": "float32", "grandchild": 1000}}, worker={WORKER!r}))
engine.start()
print(engine.child.process.pid, flush=True)
time.sleep(1000)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        try:
            group = int(parent.stdout.readline())
            assert _is_alive(group)
        finally:
            os.kill(parent.pid, signal.SIGKILL)
    deadline = time.monotonic() + 120  # only a failure takes that long, however busy the machine is
    while _is_alive(group) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _is_alive(group)
