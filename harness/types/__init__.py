"""The words of the harness as values: what flows between families, tasks, engines, records, metrics and laws."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from harness.errors import EngineError, PluginError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def checkpoint_label(family: object, size: object, step: object = None, seed: object = None) -> str:
    """Return family:size@step, as the command line names a checkpoint, and #seed where it is not 0."""
    return f"{family}:{size}" + ("" if step is None else f"@{step}") + (f"#{seed}" if seed else "")


@dataclass(frozen=True)
class Checkpoint:
    """One set of weights and what is known of their training.

    `params` counts all parameters, `params_non_embedding` those outside token and position embeddings (and outside
    an untied output head); `tokens` is training tokens seen; `flops` is total training FLOPs, counted as
    `flops_convention` says; `loss` is the training or validation loss in nats per token. Unknown values are None.
    `adapter` is the folder of an adapter (LoRA), whose base model is `source`.
    """

    family: str
    size: str
    step: int | None
    seed: int
    source: str  # a folder, or hub:org/name@revision
    bos: str = "auto"
    params: int | None = None
    params_non_embedding: int | None = None
    tokens: float | None = None
    flops: float | None = None
    flops_convention: str = "6ND"
    loss: float | None = None
    annealed: bool | None = None
    adapter: str = ""
    features: Mapping[str, float] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Name the checkpoint as the command line does: family:size@step, and #seed where it is not 0."""
        return checkpoint_label(self.family, self.size, self.step, self.seed)


@dataclass(frozen=True)
class Family:
    """Models trained by one recipe, as a list of checkpoints from small to large and from early to late."""

    name: str
    checkpoints: tuple[Checkpoint, ...]
    about: str = ""


@dataclass(frozen=True)
class Doc:
    """One document of a task, as text.

    `contexts` holds one shared context or one a choice; `continuations` likewise. `choices` are the answers as
    they are counted in characters and bytes (without the delimiter); `gold` lists the indices of the correct ones.
    `source` is what the source of the task keeps to compute its own metrics; it does not change the fingerprint.
    """

    doc_id: str
    contexts: tuple[str, ...]
    continuations: tuple[str, ...]
    choices: tuple[str, ...]
    gold: tuple[int, ...]
    group: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)

    def prompt(self, choice: int) -> tuple[str, str]:
        """Return (context, continuation) of one choice."""
        context = self.contexts[choice if len(self.contexts) > 1 else 0]
        return context, self.continuations[choice if len(self.continuations) > 1 else 0]


@dataclass(frozen=True)
class Generation:
    """How a task draws texts: who says whether one passes, where it ends, and how tokens are chosen.

    `temperature` and `top_p` are the task's own, which a suite may replace.
    """

    checker: str
    max_tokens: int
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0


@dataclass(frozen=True)
class Task:
    """A named list of documents and how they are scored.

    `kind` is "choice" (two or more choices), "cloze" (one continuation), "text" (one plain text), "generate" (texts
    are drawn and checked, as `generation` says) or "unjudged" (continuations of which none is known to be correct: only
    the source of the task has metrics for them). `metric` is the one shown in tables; `average` is "macro" or "micro"
    over groups. `groups` are "strata" (all there are: subjects, paradigms) or "clusters" (a sample of what there might
    be: passages), which decides the standard errors. `truncation` is the task's own ("": that of the suite's default);
    `source` names the source of the task and what it keeps to compute its own metrics (register_sources).
    """

    name: str
    kind: str
    docs: tuple[Doc, ...]
    fingerprint: str
    unconditional: bool = False
    metric: str = "acc"
    average: str = "macro"
    about: str = ""
    generation: Generation | None = None
    groups: str = "strata"
    truncation: str = ""
    source: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """One context and the continuations to score behind it, as token ids; `key` comes back with the result.

    `cell` is equal for the requests of one cell, which come one after the other. An engine batches only within a
    cell, so that its numbers do not depend on which other cells happen to be computed in the same run. Where `greedy`
    is false, no metric asks whether a continuation is the most probable one, and an engine need not look.
    """

    key: Hashable
    context: tuple[int, ...]
    continuations: tuple[tuple[int, ...], ...]
    cell: Hashable = None
    greedy: bool = True


@dataclass(frozen=True)
class ChoiceScore:
    """What an engine says of one request: shapes (K,) for K continuations.

    `logprobs` are nats, summed over the tokens of each continuation; `is_greedy` says whether every token of the
    continuation is the most probable one, or is None where the engine did not look.
    """

    key: Hashable
    logprobs: Floats
    is_greedy: Bools | None = None


@dataclass(frozen=True)
class SampleRequest:
    """A prompt, as token ids, and how to go on behind it; `key` comes back with every sample.

    Temperature 0 takes the most probable token. Otherwise one is drawn from the smallest set of tokens whose
    probabilities, the largest first, reach `top_p` (Holtzman et al. 2020). A sample ends before the first of its
    `stop` texts, with EOS, after `max_tokens` tokens, or where the engine's max_length is full. Sample i of `n` is
    drawn with the seed `seed` + i, and is the same whatever else is asked: more can be drawn later.
    """

    key: Hashable
    prompt: tuple[int, ...]
    max_tokens: int
    n: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0
    cell: Hashable = None

    def __post_init__(self) -> None:
        possible = {
            "prompt": len(self.prompt) > 0,
            "max_tokens": self.max_tokens >= 1,
            "n": self.n >= 1,
            "temperature": 0 <= self.temperature < float("inf"),
            "top_p": 0 < self.top_p <= 1,
            "stop": all(self.stop),
            "seed": self.seed >= 0,
        }
        wrong = [f"{name}={getattr(self, name)!r}" for name, is_possible in possible.items() if not is_possible]
        if wrong:
            raise EngineError(
                f"{self.key!r} cannot be sampled with {', '.join(wrong)}; expected a prompt, max_tokens >= 1, n >= 1, "
                "temperature >= 0, 0 < top_p <= 1, seed >= 0 and no empty stop text"
            )


@dataclass(frozen=True)
class Sample:
    """One text that a model wrote behind a prompt: number `index` of its request.

    `ids` are all tokens that were drawn, EOS and those of a stop text included; `text` ends before them. `finish` is
    "stop" (EOS or a stop text) or "length".
    """

    key: Hashable
    index: int
    seed: int
    text: str
    ids: tuple[int, ...]
    finish: str


OUTCOMES = ("passed", "failed", "timed out", "crashed", "unjudged")
PASS_AT = (10, 100)  # the k of pass@k: samples of every document that metrics may need


@dataclass(frozen=True)
class Outcome:
    """What a checker says of one sample: "passed", "failed", "timed out" or "crashed", and in a few words why.

    A wrong answer has failed; one that has not come in time, or that ended by itself before it came, has not. A text is
    "unjudged" where it is neither right nor wrong: the source of its task has metrics of its own for it.
    """

    outcome: str
    detail: str = ""

    def __post_init__(self) -> None:
        if self.outcome not in OUTCOMES:
            raise PluginError(f"a checker says {self.outcome!r}; expected one of {', '.join(OUTCOMES)}")


@runtime_checkable
class Sampler(Protocol):
    """A rule that says how many samples to draw of each document, by what came back so far."""

    def more(self, drawn: Ints, passed: Ints) -> Ints:
        """Return how many more samples to draw of each document now, (n,), of which so many were drawn and passed.

        0 ends a document. It must not depend on anything else, so that a suite can be killed and go on.
        """
        ...

    @property
    def at_most(self) -> int:
        """The most samples that a document may need."""
        ...


class Tokenizer(Protocol):
    """What tokens.py needs of a tokenizer; token ids are non-negative integers."""

    bos_id: int | None
    eos_id: int | None
    prefix_ids: tuple[int, ...]  # what it puts before every text by itself

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode texts without any special token."""
        ...


@dataclass(frozen=True)
class EngineInfo:
    """What an engine knows of a checkpoint before it reads any weights.

    `dtype`, `quantisation` and `max_length` (tokens of the longest scored sequence) are part of the identity of
    every cell; `load_tokenizer` is called only where prompts are turned into tokens. `shape` is equal for
    checkpoints between which `Engine.swap` may be asked to exchange weights.
    """

    dtype: str
    max_length: int
    load_tokenizer: Callable[[], Tokenizer]
    quantisation: str = "none"
    shape: str = ""


@runtime_checkable
class Engine(Protocol):
    """A checkpoint that can be asked for log-probabilities and texts (register_engines says how to provide one)."""

    def score(self, requests: Iterable[Request]) -> Iterator[ChoiceScore]:
        """Score requests, pulled when there is room for them; results may come in any order."""
        ...

    def generate(self, requests: Iterable[SampleRequest]) -> Iterator[Sample]:
        """Draw the samples of requests, pulled when there is room for them; they may come in any order."""
        ...

    def swap(self, checkpoint: Checkpoint, folder: Path) -> None:
        """Serve other weights of the same shape from now on."""
        ...

    def prefetch(self, checkpoint: Checkpoint, folder: Path) -> None:
        """Take the hint that `checkpoint` will be swapped in next; may start to read its weights."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """Return provenance: versions, device, options, notes on paths taken."""
        ...


class OpenEngine(Protocol):
    """Open an engine for a checkpoint whose files lie in `folder`."""

    def __call__(self, checkpoint: Checkpoint, folder: Path, **options: Any) -> AbstractContextManager[Engine]:
        """Return a context manager that frees everything at exit."""
        ...


class InspectCheckpoint(Protocol):
    """Say what an engine will do with a checkpoint, without reading its weights."""

    def __call__(self, checkpoint: Checkpoint, folder: Path, **options: Any) -> EngineInfo:
        """Resolve dtype, max_length and the tokenizer."""
        ...


@dataclass(frozen=True)
class EngineType:
    """An engine as registered: its name, how to look before opening, how to open.

    `preferred()` says whether it is the one to use on this machine where the user names none. `modules` must be
    importable, and `install()` returns the command that makes them so. `adapters` says that the engine serves
    `Checkpoint.adapter`.
    """

    name: str
    open_engine: OpenEngine
    inspect: InspectCheckpoint
    preferred: Callable[[], bool] = bool
    modules: tuple[str, ...] = ()
    install: Callable[[], str] | None = None
    adapters: bool = False


@dataclass(frozen=True)
class Metric:
    """A metric as registered.

    `fn(scores)` returns values per document, shape (n,), or a pair (numerators, denominators) for a ratio.
    `needs` names what the scores must offer; `aggregate` is "mean", "ratio", "exp_ratio" or a function of the
    per-document columns, whose interval is then bootstrapped over documents. Intervals stay within `bounds`.
    """

    name: str
    fn: Callable[[Any], Any]
    needs: tuple[str, ...] = ()
    aggregate: str | Callable[..., Any] = "mean"
    higher_is_better: bool = True
    bounds: tuple[float, float] = (-float("inf"), float("inf"))


@dataclass(frozen=True)
class Checker:
    """A checker as registered: `check(doc, text)` returns an Outcome, the same for the same text.

    `version` changes whenever an outcome may: with the name it is part of what a cell of samples is. Where
    `executes_code`, texts are run as programs: only with the user's word, and after `prepare()`, which verifies that
    this can do no harm, raises EngineError where it could, and returns what a user should know. Where `takes` says
    what is needed behind a colon (`regex:PATTERN`), `check` is a function of that, which returns the check.
    """

    name: str
    check: Callable[..., Any]
    version: str = "1"
    executes_code: bool = False
    prepare: Callable[[], Sequence[str]] | None = None
    takes: str = ""


@dataclass(frozen=True)
class SourceMetric:
    """A metric that the source of a task computes from the answers of one cell.

    `stderr` is the source's own; NaN where it states none. `values` (n,) has a number for each document, or is None
    where the metric has no value for a single document.
    """

    name: str
    value: float
    stderr: float
    n: int
    higher_is_better: bool = True
    values: Floats | None = None
