"""Options for prompts that a suite sets for all its tasks, overriding the tasks' own settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TypedDict

from harness.errors import UsageError, choose

PromptOption = str | int | bool | tuple[str, ...] | None


class PromptingOptions(TypedDict, total=False):
    """The argument `prompting` of `harness.evaluate`: how prompts differ from those of the tasks."""

    num_fewshot: int | None
    fewshot_seed: int | None
    include_path: Sequence[str]
    chat_template: str | None
    system_prompt: str
    multiturn: bool


@dataclass(frozen=True)
class Prompting:
    """Number and seed of few-shot examples, folders with further tasks, and how prompts become conversations.

    With `chat`, contexts are lists of messages (`chat_context`), which the template of each checkpoint renders.
    With `multiturn`, few-shot examples are separate turns; otherwise they are part of the single user message.
    """

    num_fewshot: int | None = None
    fewshot_seed: int | None = None
    include_path: tuple[str, ...] = ()
    chat: bool = False
    system_prompt: str = ""
    multiturn: bool = True

    def __post_init__(self) -> None:
        if not self.multiturn and not self.chat:
            raise UsageError(
                "turns of few-shot examples need a chat template; pass --chat-template tokenizer, or a file"
            )
        if self.system_prompt and not self.chat:
            raise UsageError("a system prompt needs a chat template; pass --chat-template tokenizer, or a file")

    @property
    def changes(self) -> dict[str, PromptOption]:
        """Return the options that differ from their defaults."""
        named = {f.name: (getattr(self, f.name), f.default) for f in fields(self)}
        return {name: value for name, (value, default) in named.items() if value != default}


PLAIN = Prompting()  # the tasks' own prompts


def options_for(
    resolve: Callable[..., object], prefix: str, prompting: Prompting, limit: int | None
) -> dict[str, PromptOption]:
    """Return the options that a source takes; raise UsageError where it does not take one that was asked for.

    If a source does not make chat messages, the harness makes them. Only options of few-shot examples and folders are
    therefore refused.
    """
    try:
        parameters = list(inspect.signature(resolve).parameters.values())
    except ValueError:  # a C function, such as a dictionary's look-up, has no signature: it takes no options
        parameters = []
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    taken = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    asked = prompting.changes | ({"limit": limit} if limit else {})
    refused = {name for name in asked if name in {"num_fewshot", "fewshot_seed", "include_path"}} - taken
    if refused and not takes_all:
        raise UsageError(f"tasks of the source {prefix!r} have no option {choose(refused)}; leave it out")
    return asked if takes_all else {name: value for name, value in asked.items() if name in taken}
