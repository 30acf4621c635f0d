"""Workers as processes on this machine: one per visible GPU, or the requested number on a CPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count, takewhile
from multiprocessing.connection import wait
from typing import Any

from harness import UsageError
from harness.executors import Event, Orders, Sweep, WorkerSpec, drive, expect_workers, serve
from harness_plugins.engines.processes import Child, ChildDied, Parent

IS_GPU = re.compile(r"\d+$|GPU-|MIG-")  # a number, or the beginning of an identifier, in CUDA_VISIBLE_DEVICES
COMMAND = (sys.executable, "-m", "harness_plugins.executors.local_pool")


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them, up to the first invalid name."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:  # Slurm writes NoDevFiles where a job has no GPU
        return list(takewhile(IS_GPU.match, (name.strip() for name in named.split(","))))
    try:
        asked = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)  # noqa: S607
    except OSError:
        return []
    lines = (line for line in asked.stdout.splitlines() if line.startswith("GPU "))
    return [str(number) for number, _ in zip(count(), lines)]  # count() has no end


class LocalPool:
    """Child processes, each of which sees only its own GPUs."""

    def __init__(self, spec: WorkerSpec, places: Sequence[Sequence[str]]) -> None:
        self.spec, self.places, self.size = spec, places, len(places)
        self.children: dict[int, Child] = {}

    def start(self, worker: int) -> None:
        """Start a worker's process."""
        environment = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // self.size))} | dict(os.environ)
        if self.places[worker]:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self.places[worker])
        child = self.children[worker] = Child(COMMAND, environment)
        child.send(self.spec)

    def give(self, worker: int, orders: Orders) -> None:
        """Send orders to a worker; if its process has died, `events` reports it."""
        try:
            self.children[worker].send(orders)
        except ChildDied:
            pass

    def events(self) -> Iterator[Event]:
        """Yield the pending messages of all processes."""
        pipes = {child.pipe: worker for worker, child in self.children.items()}
        for pipe in wait(list(pipes)):
            worker = pipes[pipe]
            try:
                event = Event(worker, *self.children[worker].receive())
            except ChildDied as error:
                event = Event(worker, "lost", str(error))
            if event.kind == "lost":
                self.children.pop(worker).stop()
            yield event

    def stop(self) -> None:
        """End all processes at the same time, because each may need some seconds."""
        children = list(self.children.values())
        self.children.clear()
        with ThreadPoolExecutor(len(children) or 1) as pool:
            list(pool.map(Child.stop, children))


def run_local(sweep: Sweep, workers: int | None, gpus_per_worker: int) -> None:
    """Run a sweep with processes on this machine."""
    gpus = visible_gpus()
    groups = [gpus[i : i + gpus_per_worker] for i in range(0, len(gpus) - gpus_per_worker + 1, gpus_per_worker)]
    n = expect_workers(workers, groups)
    if groups and n > len(groups):
        raise UsageError(
            f"--workers {n}: {len(gpus)} visible GPUs suffice for {len(groups)} workers; pass at most that"
        )
    places: Sequence[Sequence[str]] = groups[:n] or [[]] * n
    sweep.device = "GPU" if groups else "CPU"
    drive(sweep, LocalPool(sweep.spec, places))


def main() -> None:
    """Run a worker process."""
    parent = Parent()
    spec: Any = parent.next()
    serve(spec, lambda kind, content: parent.send((kind, content)), parent.next)


if __name__ == "__main__":
    main()
