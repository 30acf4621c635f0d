"""What the authors of executors use: a sweep, workers, and the loop that gives them work. Re-exports only."""

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
