"""Chat templates: render the conversations of a task in the format of a checkpoint's training text."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

from harness.checkpoints.chat_templates import read_chat_template
from harness.errors import EngineError, HarnessError, TokenError, UsageError
from harness.files import digest_of
from harness.host.origins import PLUGIN_ERRORS, describe
from harness.tasks.conversations import messages_of
from harness.types import Tokenizer

MISTAKES = {"TemplateSyntaxError", "UndefinedError"}  # of jinja2: of the template, whatever the conversation
OWN = "tokenizer"  # the template of each checkpoint's tokenizer


class ChatSettings(TypedDict):
    """Digests of what makes prompts conversations, for the identity of a cell."""

    chat_template: str
    system_prompt: NotRequired[str]


@dataclass(frozen=True)
class Chat:
    """The template that renders conversations: the tokenizer's (OWN), or the text of a file."""

    template: str = OWN
    system_prompt: str = ""
    multiturn: bool = True

    def text_for(self, folder: Path) -> str:
        """Return the template for a checkpoint; raise EngineError if its tokenizer has none."""
        return read_chat_template(folder) if self.template == OWN else self.template

    def settings(self, folder: Path) -> ChatSettings:
        """Return the settings that are part of a cell's identity.

        A template with the current date renders different prompts every day, so the date is included.
        """
        template = self.text_for(folder)
        today = datetime.datetime.now(tz=datetime.UTC).date().isoformat() if "strftime_now" in template else ""
        settings = ChatSettings(chat_template=digest_of([template, self.multiturn, today]))
        if self.system_prompt:
            settings["system_prompt"] = digest_of(self.system_prompt)
        return settings

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
                text = str(apply(messages, template))
            except HarnessError:
                raise
            except PLUGIN_ERRORS as error:  # a template may raise any error
                if type(error).__name__ in MISTAKES:
                    raise TokenError(f"the chat template is invalid: {describe(error)}; correct it") from error
                roles = " ".join(message["role"] for message in messages)
                raise TokenError(
                    f"the chat template refuses a conversation of the roles {roles}: {describe(error)}; leave the "
                    "system prompt or the task's description out, or name another template with --chat-template"
                ) from error
            if any(m["role"] == "system" and m["content"].strip() not in text for m in messages):
                raise TokenError(
                    "the chat template drops the system message; leave the system prompt or the task's description "
                    "out, or name another template with --chat-template"
                )
            return text

        return render


def make_chat(template: str | None, *, system_prompt: str = "", multiturn: bool = True) -> Chat | None:
    """Return the renderer of conversations, or None without a template; raise UsageError for a missing file."""
    if template is None:
        return None
    if template == OWN:
        return Chat(OWN, system_prompt, multiturn)
    file = Path(template)
    if not file.is_file():
        raise UsageError(f"--chat-template {template}: there is no such file; name one, or {OWN}")
    return Chat(file.read_text(encoding="utf-8"), system_prompt, multiturn)
