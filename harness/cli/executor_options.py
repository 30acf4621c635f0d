"""The options of `harness eval` that say where cells are computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

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


def executor_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of executors to a click command."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def take_executor(asked: dict[str, Any]) -> dict[str, Any]:
    """Remove these options from the arguments of a command and return them as settings of `harness.evaluate`."""
    options = {name: value for name in OF_EXECUTORS if (value := asked.pop(name)) is not None}
    return {"executor": asked.pop("executor"), "shard": asked.pop("shard"), "executor_options": options}
