"""The options of `harness eval` that select where cells are computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict, TypeVar

import click

from harness.cli.output import add_options

C = TypeVar("C", bound=Callable[..., object])

OPTIONS = (
    click.option(
        "--executor", help="Executor that runs the cells in several processes: local, ray, or one of a plugin."
    ),
    click.option(
        "--workers", type=click.IntRange(min=1), help="Number of workers of the executor (default: one per GPU)."
    ),
    click.option("--gpus-per-worker", type=click.IntRange(min=1), help="Number of GPUs of one worker (default: 1)."),
    click.option("--address", help="Address of the Ray cluster (default: a cluster on this machine)."),
    click.option(
        "--shard", metavar="I/N", help="Evaluate part I of N of the checkpoints, for N commands that run side by side."
    ),
)


class ExecutorFlags(TypedDict):
    """The values of the options of executors on the command line."""

    workers: int | None
    gpus_per_worker: int | None
    address: str | None


def executor_options(command: C) -> C:
    """Add the options of executors to a click command."""
    return add_options(command, OPTIONS)


def executor_settings(given: ExecutorFlags) -> dict[str, int | str]:
    """Return the values of these options as the argument `executor_options` of `harness.evaluate`."""
    options = {"workers": given["workers"], "gpus_per_worker": given["gpus_per_worker"], "address": given["address"]}
    return {name: value for name, value in options.items() if value is not None}
