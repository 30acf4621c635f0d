"""Prompts as conversations: messages with a role and a content, in the JSON that contexts of documents hold."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from harness.errors import UsageError
from harness.tasks.prompt_options import Prompting
from harness.types import Doc, Task

Message = Mapping[str, str]  # role and content, as chat templates take them


def chat_context(messages: Sequence[Message]) -> str:
    """Return messages as the context of a document: JSON, which `render` of a checkpoint's template reads."""
    return json.dumps(list(messages), ensure_ascii=False)


def messages_of(context: str) -> list[dict[str, str]]:
    """Return the messages of a context that `chat_context` made; raise UsageError for any other text."""
    try:
        messages = json.loads(context)
        return [{"role": str(m["role"]), "content": str(m["content"])} for m in messages]
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
    content = "\n\n".join(text.strip("\n") for text in texts if text)
    return [turn("system", content)] if content else []
