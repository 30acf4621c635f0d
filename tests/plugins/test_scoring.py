"""Windows and batches of the transformers engine: what is computed together, and when it is waited for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from harness import Request
from harness.checkpoints.families import locate, select
from harness.host import PluginHost
from harness_plugins.engines.forwards import Answer, Forwards
from harness_plugins.engines.memory import ReadAhead, read_through
from harness_plugins.engines.scoring import WINDOW, windows
from harness_plugins.engines.transformers import open_engine


def requests(n: int, shared: int = 0) -> list[Request]:
    rng = np.random.default_rng(0)

    def ids(size: int) -> tuple[int, ...]:
        return tuple(rng.integers(1, 1000, size=size).tolist())

    block = ids(shared)
    return [Request(i, block + ids(3 + i % 5), (ids(1), ids(2 + i % 3))) for i in range(n)]


def sizes(asked: list[Request], tokens: int) -> list[int]:
    split = list(windows(iter(asked), lambda: tokens))
    assert [request for window in split for request in window] == asked
    return [len(window) for window in split]


def test_a_window_has_tokens_for_several_batches_of_a_device():
    """A GPU reads 65,536 tokens at a time, and 256 documents of ARC have a fifth of them."""
    asked = requests(1000)
    assert sizes(asked, 0) == [WINDOW, WINDOW, WINDOW, 1000 - 3 * WINDOW]
    assert sizes(asked, 10**6) == [1000]
    few = sizes(asked, 4000)
    assert WINDOW < few[0] < 1000


def test_tokens_that_neighbours_share_do_not_fill_a_window():
    asked, block = requests(1000), requests(1000, shared=300)
    assert abs(sizes(block, 4000)[0] - sizes(asked, 4000)[0]) < 60


@dataclass(frozen=True)
class Watched(Answer):
    """An answer that tells when it is waited for."""

    events: list[str]

    def read(self):
        self.events.append("read")
        return super().read()


class Telling(Forwards):
    """Passes that tell when they start."""

    def __init__(self, model, device):
        super().__init__(model, device)
        self.events: list[str] = []

    def packed(self, batch, shared):
        self.events.append("start")
        return Watched(**vars(super().packed(batch, shared)), events=self.events)

    def plain(self, rows):
        self.events.append("start")
        return Watched(**vars(super().plain(rows)), events=self.events)


@pytest.mark.parametrize("share", [True, False])
def test_a_batch_is_waited_for_after_the_next_one_has_started_across_windows_too(host: PluginHost, share):
    checkpoint, folder = locate(select("aster:w32l2@1600", host)[0])
    asked = requests(2 * WINDOW + 20)
    with open_engine(checkpoint, folder, share=share) as engine:
        expected = {score.key: score for score in engine.score(asked)}
        engine.scorer.forwards = telling = Telling(engine.model, "cpu")
        engine.scorer.batch_tokens = 512
        scores = {score.key: score for score in engine.score(asked)}
    started, *middle, last = telling.events
    assert (started, last) == ("start", "read")
    assert len(middle) >= 6
    assert middle == ["start", "read"] * (len(middle) // 2)
    assert scores.keys() == expected.keys()
    for key, score in scores.items():
        assert score.logprobs == pytest.approx(expected[key].logprobs, abs=2e-5)
        assert score.is_greedy.tolist() == expected[key].is_greedy.tolist()


def test_the_arrays_of_a_batch_are_transferred_as_one(host: PluginHost):
    checkpoint, folder = locate(select("aster:w32l2@1600", host)[0])
    arrays = [np.arange(6).reshape(2, 3), [7, 8], np.arange(0), np.int64([[9]])]
    with open_engine(checkpoint, folder) as engine:
        tensors = engine.scorer.forwards._upload(*arrays)
    assert [tensor.tolist() for tensor in tensors] == [np.asarray(array).tolist() for array in arrays]
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == 1


# --- files that are read ahead ---------------------------------------------------------------------------------------


def bytes_read() -> int:
    """Return the bytes that this process has read so far; those of mapped files are not among them."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("rchar"))


def test_weights_that_are_read_ahead_are_read_and_not_only_mapped(host: PluginHost):
    """safetensors maps a file, so that the disk was read when the weights were copied, after the last score."""
    first, second = (locate(select(f"aster:w64l2@{step}", host)[0]) for step in (100, 1600))
    size = (second[1] / "model.safetensors").stat().st_size
    with open_engine(*first) as engine:
        before = bytes_read()
        engine.prefetch(*second)
        engine.ahead[1].result()
        assert bytes_read() - before >= size


def test_files_for_another_process_are_read_in_the_background(tmp_path):
    files = [tmp_path / "a", tmp_path / "b"]
    for file in files:
        file.write_bytes(bytes(2**20))
    before, ahead = bytes_read(), ReadAhead()
    ahead.read([*files, tmp_path / "absent"])
    ahead.thread.join()
    assert bytes_read() - before >= 2**21
    ahead.read(files)
    ahead.stop()
    assert ahead.thread is None


def test_what_nobody_waits_for_is_read_no_further(tmp_path):
    (tmp_path / "a").write_bytes(bytes(2**20))
    before = bytes_read()
    read_through(tmp_path / "a", lambda: True)
    assert bytes_read() - before < 2**20
