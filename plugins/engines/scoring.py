"""Score requests with forward passes: windows, runs with a common prefix, batches, halved when memory runs out.

A batch is read after the next one has started, so that the device computes while the host packs and writes.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import compress, groupby
from typing import Any

import numpy as np

from harness import ChoiceScore, EngineError, OutOfMemory, Request
from harness.engines import common_prefix
from harness.types import Floats
from harness_plugins.engines.forwards import Answer, Row, rows_of
from harness_plugins.engines.memory import ran_out
from harness_plugins.engines.packing import Batch, Run, extent, grow, pack, path, runs
from harness_plugins.engines.sharing import Sharing, real_tree_differs

WINDOW = 256  # least requests per window
BATCHES = {"cpu": 0, "cuda": 4}  # batches that a window fills; a CPU computes one after the other
CACHED = {"cpu": 4, "cuda": 2}  # cached tokens that count as one of a batch; a CPU copies a prefix once
Launched = Callable[[], Iterable[ChoiceScore]]  # waits for a batch in progress and returns its scores


@dataclass
class Scorer:
    """Score with one module: its forward passes, limits, and verified optimisations."""

    batch_tokens: int = 1
    batches: int = 0  # batches that a window fills
    cached: int = 2  # tokens of a row and its prefix that count as one token of a batch
    scored: int = 1  # scored tokens of a batch
    row: int = 1  # tokens of a row that several trees are packed in
    rope_switch: int = 0  # tokens above which rotary frequencies change for a whole batch
    selects: int = 0  # tokens that sparse attention selects; in longer rows the padding decides ties
    forwards: Any = None
    sharing: Any = field(default_factory=Sharing)
    notes: list[str] = field(default_factory=list)
    # with and without prefix: longest verified tree, path and prefix
    proven: dict[bool, tuple[int, int, int]] = field(default_factory=dict)

    def note(self, note: str) -> None:
        """Add a note, once."""
        self.notes += [note] if note not in self.notes else []

    def score(self, requests: Iterable[Request]) -> Iterator[ChoiceScore]:
        """Score requests window by window, never across cells; common prefixes are computed once."""
        for _, cell in groupby(requests, key=lambda request: request.cell):
            yield from one_behind(self._launched(cell))

    def _launched(self, cell: Iterable[Request]) -> Iterator[Launched]:
        for window in windows(cell, lambda: self.batches * self.batch_tokens):
            short = [extent(request) <= self.sharing.reach for request in window]
            packed = list(compress(window, short))
            for run in runs(packed) if self.sharing.prefixes else [Run(packed)]:
                yield from self._launch_run(run) if self._is_proven(run) else self._launch_plain(run.requests)
            yield from self._launch_plain(
                [request for request, is_short in zip(window, short, strict=True) if not is_short]
            )

    def _is_proven(self, run: Run) -> bool:
        """Return whether trees as long as those of a run are exact; the longest one is compared with separate rows."""
        for i, length in enumerate((extent, path)):
            longest = max(run.requests, key=length, default=None)
            known = self.proven.get(bool(run.shared), (0, 0, 0))
            if longest is None:
                continue
            sizes = (extent(longest), path(longest), len(run.shared))
            if sizes[i] <= known[i] and sizes[2] <= known[2]:
                continue
            if why_not := real_tree_differs(self.forwards, longest, run.shared, self._row(run)):
                self.sharing = replace(self.sharing, reach=min(known[i], self.sharing.reach))
                self.note(f"trees of {length(longest)} tokens are not shared: {why_not}")
                return False
            self.proven[bool(run.shared)] = (max(sizes[0], known[0]), max(sizes[1], known[1]), max(sizes[2], known[2]))
        return True

    def _row(self, run: Run) -> int:
        """Return the tokens per row after the prefix of a run; a sliding window may count tokens of the row."""
        row: int = min(self.row, self.sharing.reach - len(run.shared))
        return row

    def _launch_run(self, run: Run) -> Iterator[Launched]:
        """Start to score the trees of a run after their common prefix, longest first."""
        trees = [grow(request, len(run.shared)) for request in run.requests]
        trees.sort(key=lambda tree: len(tree.ids), reverse=True)
        row = self._row(run)
        read = self.row / max(self.row, (len(run.shared) + self.row) / self.cached)  # every row has a copy of the cache
        while trees:
            batch = pack(trees, row, int(self.batch_tokens * read), self.scored)
            alone = batch.ids.size if len(batch.trees) == 1 else 0
            try:
                answer = self._or_halve(partial(self.forwards.packed, batch, run.shared), alone)
            except OutOfMemory:  # the separate rows of a tree need less memory
                trees = trees[1:]
                too_large = batch.trees[0].request
            else:
                too_large = None
            if too_large:  # outside of `except`, where the error would keep the tensors of the failed pass
                yield from self._launch_plain([too_large])
            elif answer:
                trees = trees[len(batch.trees) :]
                yield partial(_scores, batch, answer)

    def _launch_plain(self, requests: Sequence[Request]) -> Iterator[Launched]:
        """Start to score every choice as a separate row, longest first."""
        rows = rows_of(requests)
        most = max((row.n_scored for row in rows), default=1)
        gathered = Gathered(requests)
        while rows:
            batch = rows[: max(1, min(self.batch_tokens // len(rows[0].ids), self.scored // most))]
            if len(batch[0].ids) - 1 > min(self.rope_switch, self.selects):
                batch = self._as_if_alone(batch)
            alone = len(batch[0].ids) if len(batch) == 1 else 0
            answer = self._or_halve(partial(self.forwards.plain, batch), alone)
            if answer:
                rows = rows[len(batch) :]
                yield partial(gathered.add, batch, answer)

    def _as_if_alone(self, batch: Sequence[Row]) -> Sequence[Row]:
        """Return the first rows of a batch, for which frequencies and selected tokens are as if they were alone."""
        longest = shortest = len(batch[0].ids)
        if longest - 1 > self.rope_switch:
            self.forwards.forget_length()
            shortest = longest if self.forwards.rope_grows else self.rope_switch + 2
        if longest - 1 > self.selects:
            shortest = longest
        return [row for row in batch if len(row.ids) >= shortest]

    def _or_halve(self, forward: Callable[[], Answer], alone: int) -> Answer | None:
        """Run a forward pass; when memory runs out, halve the budget for the rest of the run and return None.

        `alone` is the length of a sequence that is alone in its batch, which a smaller budget does not help, or 0.
        """
        try:
            return forward()
        except EngineError:
            raise
        except (RuntimeError, MemoryError, IndexError) as error:
            if not ran_out(error):
                raise EngineError(f"the forward pass failed: {error}") from error
            self.forwards.prefix.forget()
            gc.collect()
            if alone:
                raise OutOfMemory(f"one sequence of {alone} tokens does not fit into memory") from error
            self.batch_tokens = max(self.batch_tokens // 2, 1)
        self.notes.append(f"out of memory: batches of {self.batch_tokens} tokens from now on")
        return None


@dataclass
class Gathered:
    """Collect (log-probability, greedy, tokens) of rows by request and choice, until requests are complete."""

    requests: Sequence[Request]
    incomplete: dict[int, dict[int, tuple[float, bool, Floats | None]]] = field(default_factory=dict)

    def add(self, rows: Sequence[Row], answer: Answer) -> Iterator[ChoiceScore]:
        """Read a batch; yield the scores of complete requests."""
        keeps = any(self.requests[row.request].tokens for row in rows)
        tokens = answer.tokens() if keeps else [None] * len(rows)
        for row, score in zip(rows, zip(*answer.read(), tokens, strict=True), strict=True):
            request, scores = self.requests[row.request], self.incomplete.setdefault(row.request, {})
            scores[row.choice] = score
            if len(scores) == len(request.continuations):
                logprobs, greedy, token_logprobs = zip(*(scores[k] for k in range(len(scores))), strict=True)
                del self.incomplete[row.request]
                yield ChoiceScore(
                    request.key, np.array(logprobs), np.array(greedy), token_logprobs if request.tokens else None
                )


def windows(requests: Iterable[Request], tokens: Callable[[], int]) -> Iterator[list[Request]]:
    """Yield lists of requests to sort and batch together: at least WINDOW, and until they have `tokens()` tokens."""
    window: list[Request] = []
    before: tuple[int, ...] = ()  # previous context; a common prefix is read once
    read = 0
    for request in requests:
        window.append(request)
        read += extent(request) - common_prefix(before, request.context)
        before = request.context
        if len(window) >= WINDOW and read >= tokens():
            yield window
            window, before, read = [], (), 0
    if window:
        yield window


def one_behind(launched: Iterable[Launched]) -> Iterator[ChoiceScore]:
    """Yield the scores of each batch after the next one has started."""
    before: Launched | None = None
    for batch in launched:
        if before:
            yield from before()
        before = batch
    if before:
        yield from before()


def _scores(batch: Batch, answer: Answer) -> Iterator[ChoiceScore]:
    logprobs, greedy = answer.read()
    tokens = answer.tokens() if any(tree.request.tokens for tree in batch.trees) else []
    for request, choices in batch.slices():
        token_scores = tuple(tokens[choices]) if request.tokens else None
        yield ChoiceScore(request.key, logprobs[choices], greedy[choices], token_scores)
