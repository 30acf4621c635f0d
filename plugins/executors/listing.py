"""The built-in executors. Their modules are imported when they run, because importing them takes long."""

from __future__ import annotations

from typing import TYPE_CHECKING

import harness

if TYPE_CHECKING:
    from harness.executors import Sweep


def local(sweep: Sweep, *, workers: int | None = None, gpus_per_worker: int = 1) -> None:
    """Run a sweep with processes on this machine."""
    from harness_plugins.executors.local_pool import run_local

    run_local(sweep, workers, gpus_per_worker)


def ray(sweep: Sweep, *, workers: int | None = None, gpus_per_worker: int = 1, address: str | None = None) -> None:
    """Run a sweep with actors of a Ray cluster; without `address`, start a cluster on this machine."""
    from harness_plugins.executors.ray_pool import run_ray

    run_ray(sweep, workers, gpus_per_worker, address)


@harness.hookimpl
def register_executors(register: harness.Register) -> None:
    """Register the executors."""
    register("local", local)
    register("ray", ray)
