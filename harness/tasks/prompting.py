"""Options for prompts that a suite sets for all its tasks, overriding the tasks' own settings."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TypedDict

from harness.errors import UsageError, choose
from harness.types import Doc, Task

PromptOption = str | int | bool | tuple[str, ...] | None
Message = Mapping[str, str]  # role and content, as chat templates take them


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


def chat_context(messages: Sequence[Message]) -> str:
    """Return messages as the context of a document: JSON, which `render` of a checkpoint's template reads."""
    return json.dumps(list(messages), ensure_ascii=False)


def messages_of(context: str) -> list[dict[str, str]]:
    """Return the messages of a context that `chat_context` made; raise UsageError for any other text."""
    try:
        found = json.loads(context)
        return [{"role": str(m["role"]), "content": str(m["content"])} for m in found]
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"the context {context[:60]!r} is not a conversation; expected messages in JSON") from error


def as_chat(task: Task, prompting: Prompting) -> Task:
    """Return a task whose contexts become one user message each, after the system prompt; plain texts stay."""
    if not prompting.chat or task.kind == "text":
        return task
    return replace(task, docs=tuple(_as_chat(doc, prompting.system_prompt) for doc in task.docs))


def _as_chat(doc: Doc, system_prompt: str) -> Doc:
    contexts = tuple(chat_context([*opening(system_prompt), turn("user", c)]) for c in doc.contexts)
    return replace(doc, contexts=contexts, continuations=tuple(c.lstrip(" ") for c in doc.continuations))


def turn(role: str, content: str) -> dict[str, str]:
    """Return one message."""
    return {"role": role, "content": content}


def opening(*texts: str) -> list[dict[str, str]]:
    """Return the system message of the texts that are not empty, or no message if all are empty."""
    found = "\n\n".join(text.strip("\n") for text in texts if text)
    return [turn("system", found)] if found else []
