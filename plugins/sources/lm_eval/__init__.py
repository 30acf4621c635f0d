"""Every task and group of the installed lm-eval as `lm_eval:NAME`, and results in lm-eval's JSON format.

lm-eval's own code computes prompts, few-shot examples, filters, the results of each document and their aggregation. The
harness's engines answer the requests, and the store keeps every choice and text. lm-eval's metrics are recomputed from
the store, without the model, and named `lm_eval:METRIC` or `lm_eval:METRIC/FILTER`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness
from harness import Outcome, SourceMetric, Task

if TYPE_CHECKING:
    import click


def resolve(
    name: str,
    *,
    limit: int | None = None,
    num_fewshot: int | None = None,
    fewshot_seed: int | None = None,
    include_path: Sequence[str] = (),
    chat: bool = False,
    system_prompt: str = "",
    multiturn: bool = True,
) -> list[Task]:
    """Return the task of a name, YAML file or group, or the tasks of a tag."""
    from harness_plugins.sources.lm_eval.requests import Asked, make_tasks

    asked = Asked(limit, num_fewshot, fewshot_seed, tuple(include_path), chat, system_prompt, multiturn)
    made: list[Task] = make_tasks(name, asked)
    return made


def metrics(task: Task, answers: Any) -> list[SourceMetric]:
    """Return lm-eval's metrics of one cell."""
    from harness_plugins.sources.lm_eval.results import metrics_of

    source_metrics: list[SourceMetric] = metrics_of(task, answers)
    return source_metrics


def groups(group: Mapping[str, Any], parts: Sequence[tuple[Task, Any]]) -> list[SourceMetric]:
    """Return the metrics of a group whose tasks have several kinds, as lm-eval aggregates them."""
    from harness_plugins.sources.lm_eval.results import metrics_of_group

    source_metrics: list[SourceMetric] = metrics_of_group(group, parts)
    return source_metrics


def keep(_: harness.Doc, __: str) -> Outcome:
    """Return "unjudged": lm-eval's filters and metrics judge the stored text later."""
    return Outcome("unjudged")


@harness.hookimpl
def register_sources(register: harness.Register) -> None:
    """Register the prefix; `lm-eval ls tasks` lists the 14,000 names."""
    register("lm_eval", resolve, lambda: (), metrics, groups)


@harness.hookimpl
def register_checkers(register: harness.Register) -> None:
    """Register the checker for tasks whose texts lm-eval judges."""
    register("lm_eval", keep)


@harness.hookimpl
def register_commands(cli: click.Group) -> None:
    """Add `harness export lm-eval`."""
    import click

    @cli.group("export")
    def export() -> None:
        """Write a store in the format of another program."""

    @export.command("lm-eval")
    @click.argument("store", type=click.Path(exists=True, file_okay=False, path_type=Path))
    @click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder of the JSON files.")
    @click.option("--task", help="Task to export (default: all of lm-eval).")
    @click.option(
        "--bootstrap-iters",
        default=100_000,
        show_default=True,
        type=click.IntRange(min=0),
        help="Resamples for the standard errors that lm-eval bootstraps; 0 omits all standard errors.",
    )
    @click.pass_obj
    def lm_eval(host: harness.PluginHost, /, store: Path, output: Path, task: str | None, bootstrap_iters: int) -> None:
        """Write results and samples of the tasks lm_eval:NAME in lm-eval's JSON, one folder per checkpoint."""
        from harness_plugins.sources.lm_eval.export import export_store

        for file in export_store(harness.open_store(store, registries=host), output, task, bootstrap_iters):
            click.echo(file)
