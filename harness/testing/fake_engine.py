"""An engine without a model that fulfils the contract of engines; part of `harness.testing`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from harness.errors import EngineError
from harness.types import Checkpoint, ChoiceScore, EngineInfo, Floats, Request, Sample, SampleRequest
from harness.types.json import JsonObject

BYTES = 256


class ByteTokenizer:
    """Every byte is a token; 256 is BOS and EOS."""

    bos_id: int | None = BYTES
    eos_id: int | None = BYTES
    prefix_ids: tuple[int, ...] = (BYTES,)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode texts without special tokens."""
        return [list(text.encode()) for text in texts]


@dataclass
class FakeEngine:
    """An engine without a model: log-probabilities of 257 tokens from a digest of the checkpoint and the last token.

    The results are deterministic and differ between checkpoints. They do not depend on order or batch, and the
    probabilities at each position sum to 1.
    """

    seed: str
    served: list[str] = field(default_factory=list)
    max_length: int = 256

    def score(self, requests: Iterable[Request]) -> Iterator[ChoiceScore]:
        """Score requests one by one."""
        for request in requests:
            scored = [self._continuation(request.context[-1], c) for c in request.continuations]
            tokens = tuple(logprobs for logprobs, _ in scored)
            sums, greedy = np.array([logprobs.sum() for logprobs in tokens]), np.array([g for _, g in scored])
            yield ChoiceScore(request.key, sums, greedy, tokens if request.tokens else None)

    def _continuation(self, before: int, ids: Sequence[int]) -> tuple[Floats, bool]:
        rows = [(self.table(previous), token) for previous, token in zip((before, *ids), ids, strict=False)]
        return np.array([row[token] for row, token in rows]), all(int(np.argmax(row)) == token for row, token in rows)

    def table(self, previous: int) -> Floats:
        """Return the log-probabilities (257,) of the token after `previous`."""
        digest = hashlib.sha256(f"{self.seed} {previous}".encode()).digest()
        logits = np.random.default_rng(list(digest)).normal(size=BYTES + 1)
        return np.asarray(logits - np.log(np.exp(logits).sum()))

    def generate(self, requests: Iterable[SampleRequest]) -> Iterator[Sample]:
        """Draw samples one by one."""
        for request in requests:
            if len(request.prompt) >= self.max_length:
                raise EngineError(
                    f"the prompt {request.key!r} has {len(request.prompt)} tokens; max_length is {self.max_length}"
                )
            yield from (self._sample(request, index) for index in range(request.n))

    def _sample(self, request: SampleRequest, index: int) -> Sample:
        rng, ids, text = np.random.default_rng(request.seed + index), list[int](), ""
        for _ in range(min(request.max_tokens, self.max_length - len(request.prompt))):
            ids.append(self._draw((*request.prompt, *ids)[-1], request, rng.random()))
            text = bytes(i for i in ids if i != BYTES).decode("latin-1")
            ends = [text.index(stop) for stop in request.stop if stop in text]
            if ends or ids[-1] == BYTES:
                text = text[: min(ends, default=len(text))]
                return Sample(request.key, index, request.seed + index, text, tuple(ids), "stop")
        return Sample(request.key, index, request.seed + index, text, tuple(ids), "length")

    def _draw(self, previous: int, request: SampleRequest, uniform: float) -> int:
        logprobs = self.table(previous)
        if request.temperature == 0:
            return int(logprobs.argmax())
        p = np.exp((logprobs - logprobs.max()) / request.temperature)
        p /= p.sum()
        order = np.argsort(-p, kind="stable")
        p[order[np.cumsum(p[order]) - p[order] >= request.top_p]] = 0
        return int(np.searchsorted(p.cumsum(), uniform * p.sum(), side="right"))

    def swap(self, checkpoint: Checkpoint, folder: Path) -> None:  # noqa: ARG002  # the contract of engines
        """Serve another checkpoint."""
        self.seed = checkpoint.label
        self.served.append(checkpoint.label)

    def prefetch(self, checkpoint: Checkpoint, folder: Path) -> None:
        """Do nothing: there are no files to read ahead."""

    def describe(self) -> JsonObject:
        """Return provenance."""
        return {"engine": "fake"}


def inspect_fake(checkpoint: Checkpoint, folder: Path, *, max_length: int = 256) -> EngineInfo:  # noqa: ARG001  # the contract of engines
    """Return the fake engine's information about any checkpoint."""
    return EngineInfo("float64", max_length, ByteTokenizer, shape="fake")


@contextmanager
def open_fake(checkpoint: Checkpoint, folder: Path, *, max_length: int = 256) -> Iterator[FakeEngine]:  # noqa: ARG001  # the contract of engines
    """Open the fake engine."""
    yield FakeEngine(checkpoint.label, [checkpoint.label], max_length)
