"""Evaluate tasks on checkpoints: in this process, with an executor, or a shard of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import UsageError, choose
from harness.evaluation.plan import Plan, cost_table
from harness.evaluation.suite import Progress, Suite, Summary, prepare
from harness.evaluation.sweep import execute, keep_shard, worker_table
from harness.host import default_host
from harness.registries import Registries
from harness.store.cells import Store
from harness.store.folders import expect_usable
from harness.tables import Table
from harness.types import Family, Task


def evaluate(
    families: Sequence[str | Family],
    tasks: Sequence[str | Task],
    store: str | Path,
    *,
    progress: Progress | None = None,
    registries: Registries | None = None,
    executor: str | None = None,
    executor_options: Mapping[str, Any] | None = None,
    shard: str | None = None,
    **settings: Any,
) -> Summary:
    """Score tasks on checkpoints and keep every choice in a store; cells that are there are not done again.

    :param families: FAMILY[:SIZE][@STEPS] by name, family file or checkpoint folder, or `harness.Family` values.
    :param tasks: names, wildcards, prefix:NAME or task folders, or `harness.Task` values.
    :param store: the folder of the store; made if it is not there.
    :param settings: engine, options (a dict for the engine), data, limit, subset (a file of `harness choose`, or its
        Subset values), truncation, rehash; as `harness eval`. For tasks that draw texts, `sampling` is a dict of
        sampler, options (a dict for the sampler), temperature, top_p, seed, keep_texts and allow_code_execution.

    :param executor: name of an executor that runs the cells in several processes; by default they run in this one.
    :param executor_options: options of the executor: workers, gpus_per_worker, address.
    :param shard: I/N to do only part I of N of the checkpoints, when N processes are started by hand.

    Returns a Summary; a checkpoint or task that failed is in `failures`, and the others are done.
    Raises UsageError for names that do not exist, TaskError and FamilyError for files that are wrong, StoreError where
    the store cannot be written; what was written stays.
    """
    expect_usable(Path(store))
    registries = registries or default_host()
    run = registries.executors[executor] if executor else None
    expect_options(run, executor, executor_options or {})
    plan, setup = prepare(families, tasks, registries=registries, **settings)
    if shard:
        keep_shard(plan, shard)
    opened = Store(store, create=True)
    plan.look_into(opened)
    progress = progress or Progress()
    progress.start(plan)
    if run is None:
        return Suite(plan, setup, opened, progress).run()
    others = {"registries": registries, "sampling": settings.get("sampling"), "options": executor_options or {}}
    return execute(plan, setup, opened, progress, executor=run, **others)


def expect_options(executor: Callable[..., object] | None, name: str | None, options: Mapping[str, Any]) -> None:
    """Raise UsageError for options that an executor does not have, or without an executor."""
    if executor is None:
        if options:
            raise UsageError(f"{choose(options)}: expected an executor with them, such as local or ray")
        return
    known = {p.name for p in inspect.signature(executor).parameters.values() if p.kind is p.KEYWORD_ONLY}
    if unknown := set(options) - known:
        raise UsageError(f"executor {name!r} has no option {choose(unknown)}; it has: {choose(known)}")


def plan_tables(
    families: Sequence[str | Family],
    tasks: Sequence[str | Task],
    *,
    registries: Registries,
    executor: str | None = None,
    executor_options: Mapping[str, Any] | None = None,
    shard: str | None = None,
    **settings: Any,
) -> tuple[Plan, list[Table]]:
    """Return what `evaluate` would do with the same arguments, and tables of it; changes nothing on disk."""
    options = dict(executor_options or {})
    expect_options(registries.executors[executor] if executor else None, executor, options)
    plan, _ = prepare(families, tasks, registries=registries, **settings)
    if shard:
        keep_shard(plan, shard)
    tables = [cost_table(plan)]
    if options.get("workers"):
        tables.append(worker_table(plan, options["workers"], "GPU" if options.get("gpus_per_worker") else "CPU"))
    return plan, tables
