"""Options of `harness eval` for tasks with generated text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

C = TypeVar("C", bound=Callable[..., object])
SamplingValue = str | float | bool | None

OPTIONS = (
    click.option(
        "--sampler", help="Samples per document: n (--n, default 1) or pass_until (--successes, --max-samples)."
    ),
    click.option("--n", type=click.IntRange(min=1), help="Number of samples per document."),
    click.option("--successes", type=click.IntRange(min=2), help="Number of samples per document that must pass."),
    click.option("--max-samples", type=click.IntRange(min=2), help="Maximum number of samples per document."),
    click.option(
        "--temperature", type=click.FloatRange(min=0), help="Sampling temperature (default: the task's, usually 0)."
    ),
    click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), help="Sampling top_p (default: the task's)."),
    click.option("--seed", type=click.IntRange(min=0), help="Seed of sampling (default: 0)."),
    click.option("--no-texts", is_flag=True, help="Store outcomes only, not the generated texts."),
    click.option("--allow-code-execution", is_flag=True, help="Run generated programs, in a sandbox."),
)
OF_SAMPLERS = ("n", "successes", "max_samples")
OF_TEXTS = ("sampler", "temperature", "top_p", "seed", "allow_code_execution")


def sampling_options(command: C) -> C:
    """Add the options for generated text to a click command."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def sampling_settings(given: Mapping[str, SamplingValue]) -> dict[str, Any]:
    """Return the values of these options as the argument `sampling` of `harness.evaluate`."""
    settings: dict[str, Any] = {
        name: value for name in OF_TEXTS if (value := given[name]) is not None and value is not False
    }
    options = {name: given[name] for name in OF_SAMPLERS if given[name] is not None}
    texts = {"keep_texts": False} if given["no_texts"] else {}
    return settings | ({"options": options} if options else {}) | texts
