"""The options of `harness eval` for tasks whose models write texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

OPTIONS = (
    click.option(
        "--sampler", help="Texts of each document: n (--n, 1 by default), pass_until (--successes, --max-samples)."
    ),
    click.option("--n", type=click.IntRange(min=1), help="Texts to draw of each document."),
    click.option(
        "--successes", type=click.IntRange(min=2), help="Texts of a document that must pass before it is done."
    ),
    click.option("--max-samples", type=click.IntRange(min=2), help="Texts of a document that are drawn at the most."),
    click.option("--temperature", type=click.FloatRange(min=0), help="Of texts; the task's own by default, mostly 0."),
    click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), help="Of texts; the task's own by default."),
    click.option("--seed", type=click.IntRange(min=0), help="Of texts; 0 by default."),
    click.option("--no-texts", is_flag=True, help="Keep what became of texts, and not the texts."),
    click.option("--allow-code-execution", is_flag=True, help="Run the programs that models write."),
)
OF_SAMPLERS = ("n", "successes", "max_samples")
OF_TEXTS = ("sampler", "temperature", "top_p", "seed", "allow_code_execution")


def sampling_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a click command the options that concern texts."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def take_sampling(asked: dict[str, Any]) -> dict[str, Any]:
    """Take these options out of what was asked of a command, as settings of `harness.evaluate`; none where none is."""
    found = {name: value for name in OF_TEXTS if (value := asked.pop(name)) is not None and value is not False}
    options = {name: value for name in OF_SAMPLERS if (value := asked.pop(name)) is not None}
    texts = {"keep_texts": False} if asked.pop("no_texts") else {}
    return found | ({"options": options} if options else {}) | texts
