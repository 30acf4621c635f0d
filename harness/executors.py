"""Public names for executors: a sweep, its workers, and the loop that assigns work to them. Re-exports only."""

from harness.evaluation.sweep import Pool, Sweep, drive, expect_workers
from harness.evaluation.workers import Event, Orders, Worker, WorkerSpec, serve

__all__ = [
    "Event",
    "Orders",
    "Pool",
    "Sweep",
    "Worker",
    "WorkerSpec",
    "drive",
    "expect_workers",
    "serve",
]
