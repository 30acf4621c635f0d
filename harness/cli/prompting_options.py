"""Options of `harness eval` for few-shot examples, conversations and folders with tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypedDict, TypeVar

import click

from harness.cli.output import add_options

if TYPE_CHECKING:
    from harness.tasks.prompt_options import PromptingOptions

C = TypeVar("C", bound=Callable[..., object])
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


class FewshotFlags(TypedDict):
    """The values on the command line of the options that need no model."""

    num_fewshot: int | None
    fewshot_seed: int | None
    include_path: tuple[str, ...]


class PromptingFlags(FewshotFlags):
    """The values of all these options on the command line."""

    chat_template: str | None
    system_prompt: str | None
    multiturn: bool | None


def prompting_options(command: C) -> C:
    """Add these options to a click command."""
    return add_options(command, OPTIONS)


def fewshot_options(command: C) -> C:
    """Add the options that need no model to a click command."""
    return add_options(command, OPTIONS[:3])


def prompting_settings(given: PromptingFlags) -> PromptingOptions:
    """Return the values of these options as the argument `prompting` of `harness.evaluate`."""
    settings: PromptingOptions = {}
    if given["num_fewshot"] is not None:
        settings["num_fewshot"] = given["num_fewshot"]
    if given["fewshot_seed"] is not None:
        settings["fewshot_seed"] = given["fewshot_seed"]
    if given["include_path"]:
        settings["include_path"] = given["include_path"]
    if given["chat_template"] is not None:
        settings["chat_template"] = given["chat_template"]
    if given["system_prompt"] is not None:
        settings["system_prompt"] = given["system_prompt"]
    if given["multiturn"] is not None:
        settings["multiturn"] = given["multiturn"]
    return settings
