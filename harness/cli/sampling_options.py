"""Options of `harness eval` for tasks with generated text."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypedDict, TypeVar

import click

from harness.cli.output import add_options

if TYPE_CHECKING:
    from harness.evaluation.sampling import SamplingOptions

C = TypeVar("C", bound=Callable[..., object])

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


class SamplingFlags(TypedDict):
    """The values of these options on the command line."""

    sampler: str | None
    n: int | None
    successes: int | None
    max_samples: int | None
    temperature: float | None
    top_p: float | None
    seed: int | None
    no_texts: bool
    allow_code_execution: bool


def sampling_options(command: C) -> C:
    """Add the options for generated text to a click command."""
    return add_options(command, OPTIONS)


def sampling_settings(given: SamplingFlags) -> SamplingOptions:
    """Return the values of these options as the argument `sampling` of `harness.evaluate`."""
    settings: SamplingOptions = {}
    if given["sampler"] is not None:
        settings["sampler"] = given["sampler"]
    if given["temperature"] is not None:
        settings["temperature"] = given["temperature"]
    if given["top_p"] is not None:
        settings["top_p"] = given["top_p"]
    if given["seed"] is not None:
        settings["seed"] = given["seed"]
    if given["allow_code_execution"]:
        settings["allow_code_execution"] = True
    if given["no_texts"]:
        settings["keep_texts"] = False
    options = {"n": given["n"], "successes": given["successes"], "max_samples": given["max_samples"]}
    if any(value is not None for value in options.values()):
        settings["options"] = {name: value for name, value in options.items() if value is not None}
    return settings
