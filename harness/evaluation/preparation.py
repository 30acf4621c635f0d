"""From the arguments of an evaluation to its plan and setup; changes nothing on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

from harness.checkpoints.families import check_features, select
from harness.errors import UsageError, choose
from harness.evaluation.bos_and_truncation import TRUNCATION
from harness.evaluation.chat import Chat, make_chat
from harness.evaluation.default_engine import default_engine
from harness.evaluation.plan import Plan, Setup, check_options, make_plan
from harness.evaluation.sampling import SamplingOptions, make_sampling
from harness.host import default_host
from harness.host.registries import Registries
from harness.store.cells import Store
from harness.store.folders import expect_usable
from harness.store.subsets import Subset, load_subsets, take_all
from harness.tasks.conversations import as_chat
from harness.tasks.finding import find_tasks
from harness.tasks.loading import fingerprinted
from harness.tasks.prompt_options import Prompting, PromptingOptions
from harness.types import Family, Task
from harness.types.json import JsonObject


class PlanOptions(TypedDict, total=False):
    """Keyword arguments that `evaluate` and `prepare` share; documented at `evaluate`."""

    engine: str | None
    options: JsonObject | None
    data: str | Path | None
    limit: int | None
    subset: str | Path | Sequence[Subset] | None
    truncation: str | None
    rehash: bool
    sampling: SamplingOptions | None
    allow_pickle: Sequence[str]
    prompting: PromptingOptions | None
    keep_tokens: bool


def prepare(
    families: Sequence[str | Family],
    tasks: Sequence[str | Task],
    *,
    store: str | Path | None = None,
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
    registries: Registries | None = None,
) -> tuple[Plan, Setup]:
    """Return the plan of `evaluate` with the same arguments; changes nothing on disk.

    With a `store`, the cells that it has are not planned again. Raises StoreError, before weights are read for their
    digests, if no store can be made there.
    """
    registries = registries or default_host()
    chosen = registries.engines[engine or default_engine(registries)]
    greedy = frozenset(name for name in registries.metrics if "greedy" in registries.metrics[name].needs)
    prompt_settings, chat = take_prompting(prompting or PromptingOptions())
    setup = Setup(
        chosen,
        dict(options or {}),
        truncation,
        rehash,
        greedy,
        None,
        tuple(allow_pickle),
        chat,
        keep_tokens=keep_tokens,
    )
    check_options(setup)
    if truncation is not None and truncation not in TRUNCATION:
        raise UsageError(f"truncation {truncation!r}; expected one of {choose(TRUNCATION)}")
    checkpoints = [c for f in families for c in (f.checkpoints if isinstance(f, Family) else select(f, registries))]
    check_features(checkpoints, registries)
    loaded_tasks = _tasks(tasks, registries, Path(data) if data else None, limit, prompt_settings)
    if subset is not None:
        loaded_tasks = take_all(loaded_tasks, load_subsets(subset) if isinstance(subset, (str, Path)) else subset)
    if not checkpoints or not loaded_tasks:
        raise UsageError(
            f"{len(checkpoints)} checkpoints and {len(loaded_tasks)} tasks are named; expected at least one each"
        )
    if store is not None:
        expect_usable(Path(store))
    drawn = [task for task in loaded_tasks if task.generation]
    if drawn:
        setup = replace(setup, sampling=make_sampling(drawn, registries, **(sampling or SamplingOptions())))
    elif sampling:
        raise UsageError(
            f"{choose(sampling)}: the tasks {choose(task.name for task in loaded_tasks)} generate no text; leave it out"
        )
    once = list({(c.label, c.source): c for c in checkpoints}.values())
    plan = make_plan(once, loaded_tasks, setup)
    if store is not None and (Path(store) / "store.json").exists():
        plan.look_into(Store(store, sets_aside=False))
    return plan, setup


def take_prompting(asked: PromptingOptions) -> tuple[Prompting, Chat | None]:
    """Return options for prompts, and how conversations are rendered, from one dict; raise UsageError for others."""
    known = set(PromptingOptions.__annotations__)
    if unknown := set(asked) - known:
        raise UsageError(f"prompting has no option {choose(unknown)}; it has: {choose(known)}")
    template, folders = asked.get("chat_template"), asked.get("include_path", ())
    prompting = Prompting(
        num_fewshot=asked.get("num_fewshot"),
        fewshot_seed=asked.get("fewshot_seed"),
        include_path=(folders,) if isinstance(folders, str) else tuple(folders),
        chat=template is not None,
        system_prompt=asked.get("system_prompt", ""),
        multiturn=asked.get("multiturn", True),
    )
    return prompting, make_chat(template, system_prompt=prompting.system_prompt, multiturn=prompting.multiturn)


def _tasks(
    names: Sequence[str | Task], registries: Registries, data: Path | None, limit: int | None, prompting: Prompting
) -> list[Task]:
    """Return tasks, each once; raise UsageError for an unknown metric."""
    tasks = [
        task
        for item in names
        for task in (
            [as_chat(item, prompting)]
            if isinstance(item, Task)
            else find_tasks([item], registries, data, limit, prompting)
        )
    ]
    for task in tasks:
        if task.metric not in registries.metrics and not task.source:
            hint = registries.metrics.hint(task.metric)
            raise UsageError(f"task {task.name}: there is no metric {task.metric!r}; {hint}")
    return [fingerprinted(task) for task in {task.name: task for task in tasks}.values()]
