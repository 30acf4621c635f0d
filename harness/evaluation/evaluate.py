"""Evaluate tasks on checkpoints: in this process, with an executor, or a shard of them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Unpack

from harness.errors import UsageError, choose
from harness.evaluation.costs import cost_table
from harness.evaluation.estimates import keep_shard, worker_table
from harness.evaluation.plan import Plan
from harness.evaluation.preparation import PlanOptions, prepare
from harness.evaluation.sampling import SamplingOptions
from harness.evaluation.suite import Progress, Suite, Summary
from harness.evaluation.sweep import Executor, run_with_executor
from harness.host import default_host
from harness.host.registries import Registries
from harness.store.cells import Store
from harness.store.folders import expect_usable
from harness.store.subsets import Subset
from harness.tables import Table
from harness.tasks.prompt_options import PromptingOptions
from harness.types import Family, Task
from harness.types.json import JsonObject


class EvaluateOptions(PlanOptions, total=False):
    """Keyword arguments that say where cells are computed, too; documented at `evaluate`."""

    executor: str | None
    executor_options: JsonObject | None
    shard: str | None


def evaluate(
    families: Sequence[str | Family],
    tasks: Sequence[str | Task],
    store: str | Path,
    *,
    engine: str | None = None,
    options: JsonObject | None = None,
    data: str | Path | None = None,
    limit: int | None = None,
    subset: str | Path | Sequence[Subset] | None = None,
    truncation: str | None = None,
    rehash: bool = False,
    sampling: SamplingOptions | None = None,
    allow_pickle: Sequence[str] = (),
    prompting: PromptingOptions | None = None,
    keep_tokens: bool = False,
    executor: str | None = None,
    executor_options: JsonObject | None = None,
    shard: str | None = None,
    progress: Progress | None = None,
    registries: Registries | None = None,
) -> Summary:
    """Score tasks on checkpoints and store the scores of every choice; stored cells are not computed again.

    :param families: FAMILY[:SIZE][@STEPS] by name, family file or checkpoint folder, or `harness.Family` values.
    :param tasks: names, wildcards, prefix:NAME or task folders, or `harness.Task` values.
    :param store: the folder of the store; created if it does not exist.
    :param engine: name of the engine (default: vllm if it and a GPU are available, else transformers).
    :param options: options of the engine, such as {"dtype": "bfloat16"}.
    :param data: folder with documents that do not ship with their tasks.
    :param limit: evaluate the first documents of each group only (stored as a separate task).
    :param subset: a file of `harness choose`, or its Subset values: evaluate these documents only.
    :param truncation: of long contexts: left (keeps BOS) or lm_eval (drops it; default: the task's, usually left).
    :param rehash: compute the digests of weight files again instead of using the cache.
    :param allow_pickle: names or wildcards of pickled weights that may be loaded; a pickle can run code.
    :param sampling: for tasks with generated text: sampler, options (a dict for the sampler), temperature, top_p, seed,
        keep_texts and allow_code_execution.
    :param prompting: num_fewshot, fewshot_seed, include_path (folders with further task files of a source),
        chat_template ("tokenizer", or a file), system_prompt and multiturn.
    :param keep_tokens: also store the id and log-probability of each token of the continuations (`store.tokens`).
    :param executor: name of an executor, which runs the cells in several processes (default: this process).
    :param executor_options: options of the executor: workers, gpus_per_worker, address.
    :param shard: I/N to evaluate part I of N of the checkpoints, where N processes share the work.
    :param progress: receives events of the run.

    Returns a Summary; failed checkpoints and tasks are in `failures`, the others are complete. Raises UsageError for
    unknown names, TaskError and FamilyError for invalid files, and StoreError if the store cannot be written.
    """
    expect_usable(Path(store))
    registries = registries or default_host()
    run = find_executor(executor, executor_options or {}, registries)
    plan, setup = prepare(
        families,
        tasks,
        engine=engine,
        options=options,
        data=data,
        limit=limit,
        subset=subset,
        truncation=truncation,
        rehash=rehash,
        sampling=sampling,
        allow_pickle=allow_pickle,
        prompting=prompting,
        keep_tokens=keep_tokens,
        registries=registries,
    )
    if shard:
        keep_shard(plan, shard)
    opened = Store(store, create=True)
    plan.look_into(opened)
    progress = progress or Progress()
    progress.start(plan)
    if run is None:
        return Suite(plan, setup, opened, progress).run()
    return run_with_executor(run, plan, setup, opened, progress, registries=registries, sampling=sampling)


def find_executor(name: str | None, options: JsonObject, registries: Registries) -> Executor | None:
    """Return an executor with its options, None without a name; raise UsageError for options that it does not have."""
    if name is None:
        if options:
            raise UsageError(f"{choose(options)}: expected an executor with them, such as local or ray")
        return None
    executor = registries.executors[name]
    known = {p.name for p in inspect.signature(executor).parameters.values() if p.kind is p.KEYWORD_ONLY}
    if unknown := set(options) - known:
        raise UsageError(f"executor {name!r} has no option {choose(unknown)}; it has: {choose(known)}")
    return partial(executor, **options)


def plan_tables(
    families: Sequence[str | Family],
    tasks: Sequence[str | Task],
    *,
    registries: Registries,
    executor: str | None = None,
    executor_options: JsonObject | None = None,
    shard: str | None = None,
    store: Path | None = None,
    **arguments: Unpack[PlanOptions],
) -> tuple[Plan, list[Table]]:
    """Return what `evaluate` would do with the same arguments, and tables of it; changes nothing on disk."""
    executor_options = executor_options or {}
    if executor:
        find_executor(executor, executor_options, registries)
    plan, _ = prepare(families, tasks, store=store, registries=registries, **arguments)
    if shard:
        keep_shard(plan, shard)
    tables = [cost_table(plan)]
    workers = executor_options.get("workers")
    if isinstance(workers, int) and workers:
        tables.append(worker_table(plan, workers, "GPU" if executor_options.get("gpus_per_worker") else "CPU"))
    return plan, tables
