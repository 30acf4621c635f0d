"""Value types of the harness: checkpoints, documents, tasks, requests, scores, samples, metrics and checkers."""

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
    """Return the name of a checkpoint on the command line: family:size@step, and #seed unless it is 0."""
    return f"{family}:{size}" + ("" if step is None else f"@{step}") + (f"#{seed}" if seed else "")


@dataclass(frozen=True)
class Checkpoint:
    """One set of weights, with attributes of its training.

    `params` counts all parameters, `params_non_embedding` those outside token and position embeddings (and outside
    an untied output head); `tokens` is training tokens seen; `flops` is total training FLOPs by the
    convention `flops_convention`; `loss` is the training or validation loss in nats per token. Unknown values are None.
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
        """Return the name of the checkpoint on the command line: family:size@step, and #seed unless it is 0."""
        return checkpoint_label(self.family, self.size, self.step, self.seed)


@dataclass(frozen=True)
class Family:
    """Models trained by one recipe: checkpoints ordered by size and step."""

    name: str
    checkpoints: tuple[Checkpoint, ...]
    about: str = ""


@dataclass(frozen=True)
class Doc:
    """One document of a task, as text.

    `contexts` has one shared context or one per choice; so does `continuations`. `choices` are the answers whose
    characters and bytes are counted (without the delimiter); `gold` lists the indices of the correct ones.
    `source` is what the source of the task needs to compute its own metrics; it does not change the fingerprint.
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
    """How a task generates text: its checker, its end, and how tokens are sampled.

    A suite may override `temperature` and `top_p`.
    """

    checker: str
    max_tokens: int
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0


@dataclass(frozen=True)
class Task:
    """A named list of documents, with the way they are scored.

    `kind` is "choice" (two or more choices), "cloze" (one continuation), "text" (one plain text), "generate" (text
    is generated and checked, by `generation`) or "unjudged" (continuations without a known correct one: only the source
    of the task has metrics for them). `metric` is the one shown in tables; `average` is "macro" or "micro" over groups.
    `groups` are "strata" (a fixed set, such as subjects) or "clusters" (a sample, such as passages), which determines
    the standard errors. `truncation` is the task's own ("": the suite's default). `source` names the source of the task
    and what it needs to compute its own metrics (register_sources). `origin` names the dataset of the hub, its commit
    (revision) and licence, if the documents came from there.
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
    origin: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """One context and the continuations to score after it, as token ids; `key` is returned with the result.

    `cell` is equal for the consecutive requests of one cell. An engine batches only within a cell, so that its numbers
    do not depend on the other cells of a run. With `greedy` false, no metric needs to know whether a continuation is
    the most probable one, and an engine may omit it. With `tokens`, the log-probability of each token is wanted, too.
    """

    key: Hashable
    context: tuple[int, ...]
    continuations: tuple[tuple[int, ...], ...]
    cell: Hashable = None
    greedy: bool = True
    tokens: bool = False


@dataclass(frozen=True)
class ChoiceScore:
    """The scores of one request: shapes (K,) for K continuations.

    `logprobs` are nats, summed over the tokens of each continuation; `is_greedy` says whether every token of the
    continuation is the most probable one, or is None if unknown. `tokens` has the log-probabilities of the tokens of
    each continuation, which add up to its `logprobs`, if the request asked for them.
    """

    key: Hashable
    logprobs: Floats
    is_greedy: Bools | None = None
    tokens: tuple[Floats, ...] | None = None


@dataclass(frozen=True)
class SampleRequest:
    """A prompt, as token ids, and how to continue it; `key` is returned with every sample.

    Temperature 0 takes the most probable token. Otherwise one is drawn from the smallest set of tokens whose
    probabilities, the largest first, reach `top_p` (Holtzman et al. 2020). A sample ends before the first of its
    `stop` texts, with EOS, after `max_tokens` tokens, or at the engine's max_length. Sample i of `n` has the seed
    `seed` + i and does not depend on other requests, so that more can be drawn later.
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
    """One generated text: sample `index` of its request.

    `ids` are all sampled tokens, including EOS and those of a stop text; `text` ends before these. `finish` is
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
    """The outcome of checking one sample: "passed", "failed", "timed out" or "crashed", with a short reason.

    "failed" means a wrong answer. Without an answer the outcome is "timed out" or "crashed". A text is "unjudged" if it
    is neither right nor wrong: the source of its task has metrics of its own for it.
    """

    outcome: str
    detail: str = ""

    def __post_init__(self) -> None:
        if self.outcome not in OUTCOMES:
            raise PluginError(f"a checker returned the outcome {self.outcome!r}; expected one of {', '.join(OUTCOMES)}")


@runtime_checkable
class Sampler(Protocol):
    """A rule for the number of samples per document, given the outcomes so far."""

    def more(self, drawn: Ints, passed: Ints) -> Ints:
        """Return the number of further samples of each document (n,), given the numbers drawn and passed.

        0 ends a document. The result must depend on nothing else, so that an interrupted suite can be resumed.
        """
        ...

    @property
    def at_most(self) -> int:
        """The largest number of samples per document."""
        ...


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
    which `Engine.swap` can exchange weights.
    """

    dtype: str
    max_length: int
    load_tokenizer: Callable[[], Tokenizer]
    quantisation: str = "none"
    shape: str = ""


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

    def describe(self) -> Mapping[str, Any]:
        """Return provenance: versions, device, options, and notes on disabled optimisations."""
        ...


class OpenEngine(Protocol):
    """Open an engine for a checkpoint with its files in `folder`."""

    def __call__(self, checkpoint: Checkpoint, folder: Path, **options: Any) -> AbstractContextManager[Engine]:
        """Return a context manager that frees everything at exit."""
        ...


class InspectCheckpoint(Protocol):
    """Determine how an engine will run a checkpoint, without reading its weights."""

    def __call__(self, checkpoint: Checkpoint, folder: Path, **options: Any) -> EngineInfo:
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


@dataclass(frozen=True)
class Metric:
    """A registered metric.

    `fn(scores)` returns values per document, shape (n,), or a pair (numerators, denominators) for a ratio.
    `needs` names what the scores must offer; `aggregate` is "mean", "ratio", "exp_ratio" or a function of the
    per-document columns, whose interval is then bootstrapped over documents. Intervals stay within `bounds`.
    `modules` must be importable.
    """

    name: str
    fn: Callable[[Any], Any]
    needs: tuple[str, ...] = ()
    aggregate: str | Callable[..., Any] = "mean"
    higher_is_better: bool = True
    bounds: tuple[float, float] = (-float("inf"), float("inf"))
    modules: tuple[str, ...] = ()


@dataclass(frozen=True)
class Checker:
    """A registered checker: `check(doc, text)` returns an Outcome, the same for the same text.

    `version` must change whenever an outcome can change; with the name it is part of the identity of a cell of samples.
    With `executes_code`, text is run as a program: only with the user's permission, and after `prepare()`, which
    verifies the sandbox, raises EngineError if it is not safe, and returns notes for the user. `takes` describes an
    argument after a colon (`regex:PATTERN`); `check` is then a function of that argument that returns the check.
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
