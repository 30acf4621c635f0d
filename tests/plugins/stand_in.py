"""A worker as the vLLM engine starts it, with an engine that needs no model: for what concerns processes alone.

The folder of a checkpoint may hold a file `mishaps`, a line each, which happen once and in their order: `start KIND`,
or `result N KIND` before the N-th result of a process; KIND is kill, memory, request or exit. A file `swaps` says what
a swap does: right (the default), nothing, half (wrong weights), or refuse; a file `unchecked`, why it is not verified.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path

from harness import Request
from harness.testing.fake_engine import FakeEngine
from harness_plugins.engines.processes import Parent
from harness_plugins.engines.vllm_asks import Answer
from harness_plugins.engines.vllm_worker import Worker

AT_ONCE = 2048  # more than the engine sends at a time, as on large GPUs


CORE = {
    "core_full": "ValueError: Free memory on device cuda:0 (9/79 GiB) on startup is less than desired.",
    "core_out": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
    "core_cache": "ValueError: No available memory for the cache blocks. Try increasing gpu_memory_utilization.",
}


class Standin:
    """Scores as the fake engine does; token ids must be below 257."""

    def __init__(self, folder: str, options: dict) -> None:
        self.folder, self.options, self.results = Path(folder), options, 0
        self.fake = FakeEngine(self.folder.name)
        self.held: list = []
        self.engine = self  # has engine_core.shutdown()
        self.engine_core = self
        if "grandchild" in options:
            subprocess.Popen(["sleep", str(options["grandchild"])])
        if "unheard_of" in options:
            raise TypeError("got an unexpected keyword argument 'unheard_of'")
        self.mishap("start")

    def shutdown(self) -> None:
        pass

    def mishap(self, *when: str) -> None:
        path = self.folder / "mishaps"
        lines = path.read_text().splitlines() if path.exists() else []
        *on, kind = lines[0].split() if lines else [""]
        if tuple(on) != when:
            return
        path.write_text("\n".join(lines[1:]))
        print(f"about to {kind}", flush=True)
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "exit":
            sys.exit(7)
        if kind in CORE:  # as on a GPU, where the engine core is another process
            print(f"(EngineCore pid=7) ERROR 11-22 10:00:00 [core.py:1510] {CORE[kind]}", flush=True)
            raise RuntimeError("Engine core initialization failed. See root cause above.")
        raise {"memory": RuntimeError("CUDA out of memory."), "request": ValueError("the prompt is odd")}[kind]

    def count(self) -> None:
        self.results += 1
        self.mishap("result", str(self.results))

    def taken(self, requests):
        """Yield requests; none before there are many, or no more have come, as vLLM answers in batches."""
        for request in chain(requests, [None]):
            if request is not None:
                self.held.append(request)
            while self.held and (request is None or len(self.held) >= AT_ONCE):
                yield self.held.pop(0)

    def score(self, requests):
        for asked in self.taken(requests):
            self.count()
            (score,) = self.fake.score([Request(asked.number, asked.context, asked.continuations)])
            yield asked.number, Answer(0, score.logprobs.tolist(), score.is_greedy.tolist())

    def generate(self, requests):
        for request in self.taken(requests):
            for sample in self.fake.generate([request]):
                self.count()
                yield request.key, sample.index, sample.text, sample.ids, sample.finish

    def canary(self) -> list[float]:
        (score,) = self.fake.score([Request(0, (1, 2, 3), ((4,), (5, 6)))])
        return score.logprobs.tolist()

    def swap(self, folder: str) -> tuple[list[float], str]:
        how = self.folder / "swaps"
        kind = how.read_text() if how.exists() else "right"
        if kind == "refuse":
            raise RuntimeError("no such method: reload_weights")
        name = {"right": Path(folder).name, "nothing": self.fake.seed, "half": f"half of {folder}"}[kind]
        self.folder, self.fake = Path(folder), replace(self.fake, seed=name)
        is_right = kind == "right"
        return self.canary(), "" if is_right else "the weights in use differ from the checkpoint in lm_head.weight"

    def describe(self) -> dict:
        about = {"vllm": "none", "device": str(self.options.get("device")), "notes": [], "canary": self.canary()}
        unchecked = self.folder / "unchecked"
        return about | {"unchecked": unchecked.read_text() if unchecked.exists() else ""}


class StandinWorker(Worker):
    def _open(self, folder: str, options: dict, rows: bool) -> None:
        self.vllm = Standin(folder, options)
        self.parent.send(("opened", self.vllm.describe()))


if __name__ == "__main__":
    StandinWorker(Parent()).run()
