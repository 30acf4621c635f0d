"""The options of `harness eval` that select where cells are computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import click

C = TypeVar("C", bound=Callable[..., object])
V = TypeVar("V")

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
OF_EXECUTORS = ("workers", "gpus_per_worker", "address")


def executor_options(command: C) -> C:
    """Add the options of executors to a click command."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def split_executor(given: Mapping[str, V]) -> tuple[dict[str, V], dict[str, V]]:
    """Return the values of the executor options, and of all other options."""
    own = {name: value for name, value in given.items() if name in OF_EXECUTORS and value is not None}
    return own, {name: value for name, value in given.items() if name not in OF_EXECUTORS}
