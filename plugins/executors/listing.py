"""The executors that ship. What they import takes long, so it is imported when they run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import harness

if TYPE_CHECKING:
    from harness.executors import Sweep


def local(sweep: Sweep, *, workers: int | None = None, gpus_per_worker: int = 1) -> None:
    """Do a sweep with processes of this machine."""
    from harness_plugins.executors.local_pool import run_local

    run_local(sweep, workers, gpus_per_worker)


def ray(sweep: Sweep, *, workers: int | None = None, gpus_per_worker: int = 1, address: str | None = None) -> None:
    """Do a sweep with the actors of a Ray cluster; without `address`, of one that is started here."""
    from harness_plugins.executors.ray_pool import run_ray

    run_ray(sweep, workers, gpus_per_worker, address)


@harness.hookimpl
def register_executors(register: harness.Register) -> None:
    """Register them."""
    register("local", local)
    register("ray", ray)
