"""Options of `harness eval` for few-shot examples, conversations and folders with tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

C = TypeVar("C", bound=Callable[..., Any])
OPTIONS = (
    click.option(
        "--num-fewshot", type=click.IntRange(min=0), help="Number of few-shot examples (default: the task's)."
    ),
    click.option("--fewshot-seed", type=click.IntRange(min=0), help="Seed of few-shot examples (default: the task's)."),
    click.option(
        "--include-path",
        multiple=True,
        type=click.Path(exists=True, file_okay=False),
        help="Folder with further task files, for tasks lm_eval:NAME; may be repeated.",
    ),
    click.option(
        "--chat-template",
        metavar="tokenizer|FILE",
        help="Render prompts as conversations, with the template of each tokenizer or of a file.",
    ),
    click.option("--system-prompt", help="System message of every conversation."),
    click.option(
        "--fewshot-as-multiturn/--no-fewshot-as-multiturn",
        "multiturn",
        default=None,
        help="Render few-shot examples as turns of the conversation (default), or within one user message.",
    ),
)
NAMES = ("num_fewshot", "fewshot_seed", "include_path", "chat_template", "system_prompt", "multiturn")


def prompting_options(command: C) -> C:
    """Add these options to a click command."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def prompting_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of these options as the argument `prompting` of `harness.evaluate`."""
    return {name: value for name in NAMES if (value := given[name]) is not None and value != ()}
