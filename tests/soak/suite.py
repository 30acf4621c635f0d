"""A small suite: two checkpoints, a task of choices and one of drawn texts, on an engine that fails when told to."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import harness
from harness import Checkpoint, ChoiceScore, Doc, Family, Generation, Outcome, Task
from harness.host import load_plugins
from harness.store.cells import Store
from harness.tasks.loading import fingerprint
from harness.testing import FakeEngine, inspect_fake

PACE = 0.002  # seconds of a request, so that a fault finds the suite under way
FAILURES = ("raises", "exits", "dies", "not a number", "forgets", "out of memory", "wrong key", "checker")


class Engine(FakeEngine):
    """The fake engine, a little slower, that fails at request `at` as `failure` says."""

    def __init__(self, known: Checkpoint, failure: str, at: int) -> None:
        super().__init__(known.label, [known.label])
        self.failure, self.left = failure, at

    def score(self, requests: Any) -> Iterator[ChoiceScore]:
        """Score requests."""
        for score in super().score(requests):
            time.sleep(PACE)
            self.left -= 1
            yield from self._fail(score) if self.left == 0 else (score,)

    def generate(self, requests: Any) -> Iterator[Any]:
        """Draw samples."""
        for sample in super().generate(requests):
            time.sleep(PACE)
            self.left -= 1
            if self.left == 0:
                list(self._fail(ChoiceScore(0, np.zeros(1), None)))
            yield sample

    def _fail(self, score: ChoiceScore) -> Iterator[ChoiceScore]:
        if self.failure == "raises":
            raise RuntimeError("the device is gone")
        if self.failure == "exits":
            raise SystemExit(3)
        if self.failure == "dies":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.failure == "out of memory":
            raise harness.OutOfMemory("one sequence does not fit")
        if self.failure == "not a number":
            yield ChoiceScore(score.key, score.logprobs * np.nan, score.is_greedy)
        elif self.failure == "wrong key":
            yield ChoiceScore((99, 99), score.logprobs, score.is_greedy)
        elif self.failure != "forgets":
            yield score


def host(failure: str = "", at: int = 0) -> harness.PluginHost:
    """Return a host with the engine and a checker."""
    calls = Counter[str]()

    def check(doc: Doc, text: str) -> Outcome:
        """Pass texts with an early vowel."""
        calls["checked"] += 1
        if failure == "checker" and calls["checked"] == at:
            raise ValueError("the checker cannot")
        return Outcome("passed" if set(text[:4]) & set("aeiou") else "failed")

    @contextmanager
    def open_engine(known: Checkpoint, folder: Path) -> Iterator[Engine]:
        yield Engine(known, failure, at)

    class Plugin:
        @staticmethod
        @harness.hookimpl
        def register_engines(register: harness.Register) -> None:
            register("fake", open_engine, inspect_fake)

        @staticmethod
        @harness.hookimpl
        def register_checkers(register: harness.Register) -> None:
            register("vowel", check)

    found = load_plugins()
    found.add(Plugin, "soak")
    return found


def make_models(folder: Path) -> Family:
    """Return a family of two checkpoints with files of their own, made where they are missing."""
    known = []
    for step in (1, 2):
        source = folder / str(step)
        if not source.exists():
            source.mkdir(parents=True)
            (source / "config.json").write_text(json.dumps({"step": step}))
            header = json.dumps({"__metadata__": {"step": str(step)}}).encode()
            (source / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
        known.append(Checkpoint("fam", "s", step, 0, str(source), params=10, tokens=5.0))
    return Family("fam", tuple(known))


def tasks() -> list[Task]:
    """Return a task of choices and one of texts."""
    docs = tuple(Doc(str(i), (f"q {i}",), (" yes", " no"), ("yes", "no"), (i % 2,)) for i in range(6))
    drawn = Generation("vowel", max_tokens=6, temperature=1.0)
    return [
        Task("one", "choice", docs, fingerprint("choice", False, docs)),
        Task("two", "choice", docs[:5], fingerprint("choice", False, docs[:5])),
        Task(
            "texts", "generate", docs[:4], fingerprint("generate", False, docs[:4], drawn), metric="pass_rate",
            generation=drawn,
        ),
    ]  # fmt: skip


def evaluate(store: Path, models: Path, failure: str = "", at: int = 0) -> dict[str, Any]:
    """Run the suite; return what was written, and what failed."""
    sampling = {"sampler": "n", "options": {"n": 4}}
    settings: dict[str, Any] = {"engine": "fake", "registries": host(failure, at), "sampling": sampling}
    with mock.patch("harness.evaluation.sample_runs.PART_SECONDS", 0.01):
        summary = harness.evaluate([make_models(models)], tasks(), store, **settings)
    return {"written": summary.written, "failures": [str(one) for one in summary.failures]}


def content(store: Path) -> dict[str, Any]:
    """Return every row of every whole cell as text, and how often each row is there."""
    found = harness.open_store(store, registries=host())
    cells = {cell.task for cell in found.cells()}
    frames = [found.scores(task) for task in sorted(cells - {"texts"})]
    frames += [found.samples("texts")] if "texts" in cells else []
    rows = Counter(line for frame in frames for line in frame.to_csv(index=False, header=False).splitlines())
    return {"rows": dict(rows), "cells": len(Store(store).cell_names())}
