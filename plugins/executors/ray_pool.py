"""Workers as actors of a Ray cluster: one per GPU or group of GPUs, on any node.

If a worker or its node dies, a new actor on the remaining nodes replaces it. An actor that Ray cannot place yet waits
while the others continue. All nodes need the same environment, and the store and checkpoints under the same paths.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

from harness import SuiteError, UsageError
from harness.engines import how_to_install
from harness.errors import HarnessError, StoreError
from harness.executors import Event, Orders, Sweep, Worker, WorkerSpec, drive, expect_workers

ENDS = {"done", "fatal"}  # the last event of an order
ANSWERS = 30.0  # seconds in which a cluster accepts a connection
PAUSE = 1.0  # seconds between queries of Ray


class RayWorker:
    """The actor. It receives orders one by one, and yields events."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.said: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self.spec = spec
        self.worker: Worker | None = None

    def ready(self) -> Iterator[tuple[str, Any]]:
        """Start the worker, and report that it is ready or why it is lost."""
        try:
            self.worker = Worker(self.spec, lambda kind, content: self.said.put((kind, content)))
        except HarnessError as error:
            yield "lost", str(error)
        else:
            yield "ready", None

    def do(self, orders: Orders) -> Iterator[tuple[str, Any]]:
        """Carry out orders in a thread, and yield its events."""
        thread = threading.Thread(target=self._do, args=(orders,), daemon=True)
        thread.start()
        while True:
            kind, content = self.said.get()
            if kind == "died":
                raise RuntimeError(content)  # another actor computes the rest
            yield kind, content
            if kind in ENDS:
                return

    def _do(self, orders: Orders) -> None:
        try:
            if self.worker is not None:
                self.worker.do(orders)
        except StoreError as error:
            self.said.put(("fatal", str(error)))
        except BaseException as error:  # without an event, the sweep would wait forever
            self.said.put(("died", f"{type(error).__name__}: {error}"))
        else:
            self.said.put(("done", None))


class RayPool:
    """Actors of one cluster."""

    def __init__(self, spec: WorkerSpec, size: int, resources: dict[str, float]) -> None:
        import ray

        self.ray, self.size, self.spec = ray, size, ray.put(spec)
        self.kind = ray.remote(**resources, max_restarts=0)(RayWorker)
        self.actors: dict[int, Any] = {}
        self.streams: dict[int, Any] = {}  # streams of events, by worker

    def start(self, worker: int) -> None:
        """Request an actor from Ray."""
        self.actors[worker] = actor = self.kind.remote(self.spec)
        self.streams[worker] = actor.ready.options(num_returns="streaming").remote()

    def give(self, worker: int, orders: Orders) -> None:
        """Send orders to an actor."""
        self.streams[worker] = self.actors[worker].do.options(num_returns="streaming").remote(orders)

    def events(self) -> Iterator[Event]:
        """Yield the next event of every actor that has one."""
        streams = dict(self.streams)
        said, _ = self.ray.wait(list(streams.values()), num_returns=1, timeout=PAUSE)
        for worker, stream in streams.items():
            if stream in said:
                yield from self._next(worker, stream)

    def _next(self, worker: int, stream: Any) -> Iterator[Event]:
        try:
            event = Event(worker, *self.ray.get(next(stream)))
        except StopIteration:
            if self.streams.get(worker) is stream:
                del self.streams[worker]
            return
        except self.ray.exceptions.RayError as error:
            event = Event(worker, "lost", str(error).strip())
        if event.kind == "lost":
            del self.streams[worker]
            self.ray.kill(self.actors.pop(worker))
        yield event

    def stop(self) -> None:
        """End all actors."""
        for actor in self.actors.values():
            self.ray.kill(actor)
        self.actors.clear()


def _connect(ray: Any, address: str | None) -> None:
    """Connect to a cluster; without `address`, start one. Raises UsageError if none answers.

    Ray itself tries to connect for minutes, and then ends the process.
    """
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    try:
        if port.isdecimal():
            socket.create_connection((host, int(port)), timeout=ANSWERS).close()
        ray.init(address=address, log_to_driver=False, include_dashboard=False if address is None else None)
    except (OSError, OverflowError) as error:  # a ConnectionError of Ray is an OSError
        raise UsageError(
            f"no Ray cluster answers at --address {address} ({error}); start one with ray start --head, or leave "
            "--address out to start one on this machine"
        ) from error


def run_ray(sweep: Sweep, workers: int | None, gpus_per_worker: int, address: str | None) -> None:
    """Run a sweep with actors of a cluster; without `address`, start a cluster on this machine."""
    try:
        import ray
    except ImportError as error:
        raise UsageError(f"the executor ray needs Ray, not installed here: {how_to_install('ray')}") from error
    started = not ray.is_initialized()
    if started:
        _connect(ray, address)
    try:
        gpus = int(ray.cluster_resources().get("GPU", 0)) // gpus_per_worker
        n = expect_workers(workers, range(gpus))
        resources: dict[str, float] = {"num_cpus": 1, "num_gpus": gpus_per_worker} if gpus else {"num_cpus": 1}
        if not gpus and ray.cluster_resources().get("CPU", 0) < 1:
            raise SuiteError(f"the Ray cluster {address or 'of this machine'} has neither GPU nor CPU")
        sweep.device = "GPU" if gpus else "CPU"
        drive(sweep, RayPool(sweep.spec, n, resources))
    finally:
        if started:
            ray.shutdown()
