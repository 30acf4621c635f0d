"""Tasks and their documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


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
    and what it needs to compute its own metrics (register_sources), such as the number of sampled texts per document
    (`samples`). `origin` names the dataset of the hub, its commit (revision) and licence, if the documents came from
    there.
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
