"""Sampling of the documents of a cell: as many samples as the sampler requests, checked and stored as they arrive.

Documents are independent: the sampler decides on more samples of a document as soon as all its requested samples have
arrived, so that the engine stays busy. The seed of sample i of a document depends on the suite's seed, the document and
i only, and so does its text.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from harness.errors import EngineError, PluginError
from harness.evaluation.sampling import Sampling
from harness.evaluation.scoring import Claim
from harness.evaluation.tokens import EncodedPrompts
from harness.host.distribution import version
from harness.host.origins import PLUGIN_ERRORS, describe, run
from harness.store.cells import Store
from harness.store.sample_cells import Drawn
from harness.types import Engine, Json, Outcome, Sample, SampleRequest
from harness.types.json import JsonObject

PART_ROWS = 50_000  # number of samples after which a part is written
PART_SECONDS = 10.0  # seconds after which a part is written
SEED_BYTES = 6  # of the seed of a document's first sample; the next samples have consecutive seeds


class SampleRange(NamedTuple):
    """Samples first, first + 1 ... first + n - 1 of document number `doc`."""

    doc: int
    first: int
    n: int


class SampleRun:
    """Sampling of one cell. Samples in the store are not drawn again."""

    def __init__(self, claim: Claim, encoded: EncodedPrompts, sampling: Sampling, store: Store) -> None:
        self.claim, self.encoded, self.sampling, self.store = claim, encoded, sampling, store
        self.generation, self.checker = sampling.of(claim.task), sampling.checkers[claim.task.name]
        n = len(claim.task.docs)
        self.asked, self.came, self.passed = (np.zeros(n, dtype=np.int64) for _ in range(3))  # samples of each document
        self.arrived = [0] * n  # of each document, a number whose bit i is set if sample i arrived
        self.open = set(range(n))  # unfinished documents
        self.queue: deque[SampleRange] = deque()  # samples to draw next
        self.rows: list[Drawn] = []
        self.stored, self.written = 0, time.monotonic()
        self.pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="check")
        self.checks: dict[Future[Outcome], tuple[SampleRange, Sample]] = {}
        self._resume()

    def _resume(self) -> None:
        """Load the samples of an earlier run, and queue those that it had requested but not stored."""
        rows = self.store.sample_cells.read(self.claim.cell.name)
        stored: list[set[int]] = [set() for _ in self.came]
        for doc, sample, outcome in zip(*(rows.get(n, ()) for n in ("doc", "sample", "outcome")), strict=True):
            stored[doc].add(int(sample))
            self.passed[doc] += outcome == "passed"
        for doc, samples in enumerate(stored):
            self.came[doc], self.asked[doc] = len(samples), max(samples, default=-1) + 1
            self.queue += [SampleRange(doc, i, 1) for i in range(self.asked[doc]) if i not in samples]
        self.stored = int(self.came.sum())
        self._decide(range(len(self.came)))

    # --- drawing ---------------------------------------------------------------------------------------------------

    def run(self, engine: Engine) -> Iterator[int]:
        """Draw until every document is finished; yield the number of documents finished by each result.

        Raises EngineError if requested samples are missing.
        """
        try:
            while self.open:
                if not self.queue:
                    raise EngineError(
                        f"{self.claim.task.name}: the engine returned no samples for {len(self.open)} documents; "
                        "expected all that were requested"
                    )
                left = len(self.open)
                for sample in engine.generate(self._requests()):
                    self._take(sample)
                    self._keep(enough=PART_ROWS, seconds=PART_SECONDS)
                    yield left - len(self.open)
                    left = len(self.open)
                self._finish_checks(wait=True)
                yield left - len(self.open)
        finally:
            self._finish_checks(wait=True)
            self._keep()
            self.pool.shutdown()

    def _requests(self) -> Iterator[SampleRequest]:
        """Yield the queued requests; the queue may grow while the engine consumes them."""
        while self.queue:
            span, generation = self.queue.popleft(), self.generation
            yield SampleRequest(
                key=span,
                prompt=self.encoded.prompts[span.doc],
                max_tokens=generation.max_tokens,
                n=span.n,
                temperature=generation.temperature,
                top_p=generation.top_p,
                stop=generation.stop,
                seed=self._seed(span.doc) + span.first,
                cell=self.claim.cell.name,
            )

    def _seed(self, doc: int) -> int:
        text = f"{self.sampling.seed} {self.claim.task.docs[doc].doc_id}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:SEED_BYTES], "big")

    def _decide(self, docs: Sequence[int]) -> None:
        """Ask the sampler about documents without pending samples; those that need no more are finished."""
        idle = np.array([doc for doc in docs if self.came[doc] == self.asked[doc]], dtype=np.int64)
        if not len(idle):
            return
        sampling = self.sampling
        try:
            asked = run(sampling.origin, sampling.sampler.more, self.asked[idle], self.passed[idle])
        except PLUGIN_ERRORS as error:  # a plugin may fail in any way
            raise PluginError(describe(error)) from error
        more = np.asarray(asked)
        if more.shape != idle.shape or more.dtype.kind not in "iu" or (more < 0).any():
            raise PluginError(
                f"sampler {sampling.name!r} requests {asked} more samples; expected {len(idle)} non-negative integers"
            )
        more = more.astype(np.int64)
        if (self.asked[idle] + more == 0).any():
            raise PluginError(f"sampler {sampling.name!r} requests no sample of a document; expected 1 or more")
        if (most := int((self.asked[idle] + more).max())) > sampling.sampler.at_most:
            raise PluginError(
                f"sampler {sampling.name!r} requests {most} samples of a document; expected at_most "
                f"{sampling.sampler.at_most}"
            )
        self.queue += [
            SampleRange(int(doc), int(self.asked[doc]), int(n)) for doc, n in zip(idle, more, strict=True) if n
        ]
        self.asked[idle] += more
        self.open -= {int(doc) for doc in idle[more == 0]}

    # --- checking --------------------------------------------------------------------------------------------------

    def _take(self, sample: Sample) -> None:
        """Check a sample; programs run in parallel while more text is generated."""
        span = self._range_of(sample)
        future: Future[Outcome] = Future()
        if self.checker.executes_code:
            future = self.pool.submit(self._check, span.doc, sample.text)
        else:
            future.set_result(self._check(span.doc, sample.text))
        self.checks[future] = (span, sample)
        self._finish_checks(wait=False)

    def _range_of(self, sample: Sample) -> SampleRange:
        """Return the samples that a result belongs to; raise EngineError for one that was not asked for, or twice."""
        if not isinstance(sample, Sample):
            raise EngineError(f"the engine returned {sample!r}; expected a harness.Sample")
        span = sample.key
        if not isinstance(span, SampleRange) or not 0 <= sample.index < span.n:
            raise EngineError(
                f"the engine returned a sample with the key {span!r} and index {sample.index!r}, which was not "
                "asked for"
            )
        bit = 1 << (span.first + sample.index)
        if self.arrived[span.doc] & bit:
            raise EngineError(f"the engine returned sample {sample.index} of the key {span!r} twice")
        self.arrived[span.doc] |= bit
        return span

    def _check(self, doc: int, text: str) -> Outcome:
        document = self.claim.task.docs[doc]
        where = f"checker {self.checker.name!r}, document {document.doc_id}"
        try:
            outcome = self.checker.check(document, text)
        except PLUGIN_ERRORS as error:  # a plugin may fail in any way
            raise PluginError(f"{describe(error)} (document {document.doc_id})") from error
        if not isinstance(outcome, Outcome):
            raise PluginError(f"{where} returned {outcome!r}; expected a harness.Outcome")
        return outcome

    def _finish_checks(self, *, wait: bool) -> None:
        for future in [future for future in self.checks if wait or future.done()]:
            span, sample = self.checks.pop(future)
            outcome = future.result()
            text = sample.text if self.sampling.keep_texts else None
            number, size = span.first + sample.index, len(sample.ids)
            self.rows.append(
                Drawn(span.doc, number, sample.seed, text, size, sample.finish, outcome.outcome, outcome.detail)
            )
            self.came[span.doc] += 1
            self.passed[span.doc] += outcome.outcome == "passed"
            self._decide([span.doc])

    # --- keeping ---------------------------------------------------------------------------------------------------

    def _keep(self, *, enough: int = 1, seconds: float = float("inf")) -> None:
        """Write a part if there are enough new samples, or any after a number of seconds."""
        passed = time.monotonic() - self.written
        if self.rows and (len(self.rows) >= enough or passed > seconds):
            self.store.sample_cells.add(self.claim.cell.name, self.rows)
            self.stored += len(self.rows)
            self.rows, self.written = [], time.monotonic()

    def seal(self, provenance: JsonObject) -> None:
        """Mark the cell as complete."""
        counts: dict[str, Json] = {"rows": self.stored, "truncated": np.flatnonzero(self.encoded.truncated).tolist()}
        self.store.sample_cells.seal(self.claim.cell.name, {**provenance, **counts, "harness": version()})
