"""Chat templates: render the conversations of a task in the format of a checkpoint's training text."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.checkpoints.chat_templates import read_chat_template
from harness.errors import EngineError, HarnessError, TokenError, UsageError
from harness.files import digest_of
from harness.origins import PLUGIN_ERRORS, describe
from harness.tasks.prompting import messages_of
from harness.types import Tokenizer

OWN = "tokenizer"  # the template of each checkpoint's tokenizer


@dataclass(frozen=True)
class Chat:
    """The template that renders conversations: the tokenizer's (OWN), or the text of a file."""

    template: str = OWN
    system_prompt: str = ""
    multiturn: bool = True

    def text_for(self, folder: Path) -> str:
        """Return the template for a checkpoint; raise EngineError if its tokenizer has none."""
        return read_chat_template(folder) if self.template == OWN else self.template

    def settings(self, folder: Path) -> dict[str, Any]:
        """Return the settings that are part of a cell's identity.

        A template with the current date renders different prompts every day, so the date is included.
        """
        template = self.text_for(folder)
        today = datetime.datetime.now(tz=datetime.UTC).date().isoformat() if "strftime_now" in template else ""
        system = {"system_prompt": digest_of(self.system_prompt)} if self.system_prompt else {}
        return {"chat_template": digest_of([template, self.multiturn, today]), **system}

    def renderer(self, tokenizer: Tokenizer, folder: Path) -> Callable[[str], str]:
        """Return a function that renders a context; raise EngineError if the engine's tokenizer has no templates."""
        apply, template = getattr(tokenizer, "render_chat", None), self.text_for(folder)
        if apply is None:
            raise EngineError(
                "the tokenizer of this engine renders no chat templates; use the engine transformers or vllm"
            )

        def render(context: str) -> str:
            messages = messages_of(context)
            try:
                return str(apply(messages, template))
            except HarnessError:
                raise
            except PLUGIN_ERRORS as error:  # a template may raise any error
                roles = " ".join(message["role"] for message in messages)
                raise TokenError(
                    f"the chat template refuses a conversation of the roles {roles}: {describe(error)}; leave the "
                    "system prompt or the task's description out, or name another template with --chat-template"
                ) from error

        return render


def make_chat(template: str | None, **known: Any) -> Chat | None:
    """Return the renderer of conversations, or None without a template; raise UsageError for a missing file."""
    if template is None:
        return None
    if template == OWN:
        return Chat(OWN, **known)
    file = Path(template)
    if not file.is_file():
        raise UsageError(f"--chat-template {template}: there is no such file; name one, or {OWN}")
    return Chat(file.read_text(encoding="utf-8"), **known)
