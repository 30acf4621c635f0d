"""The contract of engines and their tokenizers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from harness.types.checkpoints import Checkpoint
from harness.types.json import Json, JsonObject
from harness.types.requests import ChoiceScore, Request, Sample, SampleRequest


class Tokenizer(Protocol):
    """The tokenizer interface that evaluation/tokens.py needs; token ids are non-negative integers."""

    bos_id: int | None
    eos_id: int | None
    prefix_ids: tuple[int, ...]  # tokens it adds before every text by default

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode texts without any special token."""
        ...


@dataclass(frozen=True)
class EngineInfo:
    """The attributes of a checkpoint that an engine determines without reading weights.

    `dtype`, `quantisation` and `max_length` (tokens of the longest scored sequence) are part of the identity of
    every cell; `load_tokenizer` is called only to tokenise prompts. `shape` is equal for checkpoints between
    which `Engine.swap` can exchange weights. `vocabulary` is the number of tokens that the model knows, which the
    tokenizer may exceed as long as no prompt has such a token; None if unknown.
    """

    dtype: str
    max_length: int
    load_tokenizer: Callable[[], Tokenizer]
    quantisation: str = "none"
    shape: str = ""
    vocabulary: int | None = None


@runtime_checkable
class Engine(Protocol):
    """A loaded checkpoint that returns log-probabilities and generated text (see register_engines)."""

    def score(self, requests: Iterable[Request]) -> Iterator[ChoiceScore]:
        """Score requests, consumed as capacity allows; results may be in any order."""
        ...

    def generate(self, requests: Iterable[SampleRequest]) -> Iterator[Sample]:
        """Generate the samples of requests, consumed as capacity allows; samples may be in any order."""
        ...

    def swap(self, checkpoint: Checkpoint, folder: Path) -> None:
        """Serve other weights of the same shape from now on."""
        ...

    def prefetch(self, checkpoint: Checkpoint, folder: Path) -> None:
        """Prepare for the next swap, to `checkpoint`; may start to read its weights."""
        ...

    def describe(self) -> JsonObject:
        """Return provenance: versions, device, options, and notes on disabled optimisations."""
        ...


class OpenEngine(Protocol):
    """Open an engine for a checkpoint with its files in `folder`."""

    def __call__(self, checkpoint: Checkpoint, folder: Path, **options: Json) -> AbstractContextManager[Engine]:
        """Return a context manager that frees everything at exit."""
        ...


class InspectCheckpoint(Protocol):
    """Determine how an engine will run a checkpoint, without reading its weights."""

    def __call__(self, checkpoint: Checkpoint, folder: Path, **options: Json) -> EngineInfo:
        """Resolve dtype, max_length and the tokenizer."""
        ...


@dataclass(frozen=True)
class EngineType:
    """A registered engine: its name, and functions that inspect a checkpoint and open it.

    `preferred()` returns whether it is the default engine on this machine. `modules` must be importable; `install()`
    returns the command that installs them. `adapters` says that the engine serves `Checkpoint.adapter`, `tokens` that
    it returns the log-probabilities of single tokens.
    """

    name: str
    open_engine: OpenEngine
    inspect: InspectCheckpoint
    preferred: Callable[[], bool] = bool
    modules: tuple[str, ...] = ()
    install: Callable[[], str] | None = None
    adapters: bool = False
    tokens: bool = False
