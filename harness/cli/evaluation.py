"""Commands that evaluate checkpoints and check a store: harness eval, harness check."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click
from click.exceptions import Exit

from harness.cli.executor_options import ExecutorFlags, executor_options, executor_settings
from harness.cli.named_values import read_options
from harness.cli.output import FOLDER, FORMAT, INTERRUPTED, print_tables, say
from harness.cli.prompting_options import PromptingFlags, prompting_options, prompting_settings
from harness.cli.sampling_options import SamplingFlags, sampling_options, sampling_settings
from harness.host import PluginHost

if TYPE_CHECKING:
    from harness.evaluation.evaluate import EvaluateOptions


class Flags(SamplingFlags, PromptingFlags, ExecutorFlags):
    """Options of `harness eval` for prompts, generated text and executors."""


@click.command("eval")
@click.argument("families", nargs=-1, required=True)
@click.option(
    "-t",
    "--tasks",
    required=True,
    multiple=True,
    help="Tasks, separated by commas: names, wildcards, prefix:NAME, or folders; may be repeated.",
)
@click.option(
    "-o",
    "--store",
    "store",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of the store; created if missing.",
)
@click.option(
    "--engine", help="Engine for the checkpoints (default: vllm if it and a GPU are available, else transformers)."
)
@click.option(
    "-O",
    "--option",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    help="Option of the engine, such as dtype=bfloat16.",
)
@click.option("--data", type=FOLDER, help="Folder with documents that do not ship with their tasks.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="Evaluate the first documents of each group only (stored as a separate task).",
)
@click.option(
    "--subset",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Evaluate the documents selected by harness choose only (stored as a separate task).",
)
@click.option(
    "--max-length",
    type=click.IntRange(min=2),
    help="Maximum length of a sequence in tokens (default: the model's).",
)
@click.option(
    "--truncation",
    help="Truncation of long contexts: left (keeps BOS) or lm_eval (drops it; default: the task's, usually left).",
)
@click.option("--rehash", is_flag=True, help="Compute the digests of weight files again instead of using the cache.")
@click.option(
    "--allow-pickle",
    multiple=True,
    metavar="NAME",
    help="Load pickled weights with this file name or wildcard, such as pytorch_model.bin; a pickle can run code.",
)
@click.option(
    "--keep-tokens",
    is_flag=True,
    help="Also store the id and log-probability of each token of the continuations; --dry-run prints the size.",
)
@prompting_options
@sampling_options
@executor_options
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print the numbers of cells, documents, tokens and FLOPs, with --workers the time of each worker, and stop.",
)
@click.pass_obj
def evaluate(
    host: PluginHost,
    /,
    *,
    families: tuple[str, ...],
    tasks: tuple[str, ...],
    store: Path,
    engine: str | None,
    options: tuple[str, ...],
    data: Path | None,
    limit: int | None,
    subset: Path | None,
    max_length: int | None,
    truncation: str | None,
    rehash: bool,
    allow_pickle: tuple[str, ...],
    keep_tokens: bool,
    dry_run: bool,
    executor: str | None,
    shard: str | None,
    **others: Unpack[Flags],
) -> None:
    """Evaluate tasks on checkpoints and store the log-probability of every choice.

    FAMILIES are FAMILY[:SIZE][@STEPS]. FAMILY is a name (harness ls families), a family file, or a folder with one
    checkpoint. Sizes may contain wildcards. Steps are a range (100..1600 *2) or `last`. Cells that are already in the
    store are skipped, so the same command resumes a killed run.
    """
    from harness.cli.progress import shown
    from harness.evaluation.evaluate import evaluate as run

    names = [name for listed in tasks for name in listed.split(",") if name]
    settings: EvaluateOptions = {
        "engine": engine,
        "options": read_options(options) | ({"max_length": max_length} if max_length else {}),
        "data": data,
        "limit": limit,
        "subset": subset,
        "truncation": truncation,
        "rehash": rehash,
        "allow_pickle": allow_pickle,
        "keep_tokens": keep_tokens,
        "sampling": sampling_settings(others),
        "prompting": prompting_settings(others),
        "executor": executor,
        "executor_options": executor_settings(others),
        "shard": shard,
    }
    if dry_run:
        _dry_run(host, families, names, store, settings)
        return
    with shown() as progress:
        try:
            summary = run(families, names, store, progress=progress, registries=host, **settings)
        except KeyboardInterrupt:
            progress.note("interrupted; the same command computes the missing cells")
            raise Exit(INTERRUPTED) from None
    summary.check()
    say(f"{summary.written} cells written, {summary.already_stored} were already stored")


def _dry_run(
    host: PluginHost, families: tuple[str, ...], tasks: list[str], store: Path, settings: EvaluateOptions
) -> None:
    from harness.evaluation.evaluate import plan_tables

    plan, tables = plan_tables(families, tasks, store=store, registries=host, **settings)
    print_tables(tables, host, every_row=True)
    for failure in plan.failures:
        say(f"failed: {failure}")
    if plan.failures:
        raise Exit(1)


@click.command("check")
@click.argument("store", type=FOLDER)
@FORMAT
@click.pass_obj
def check(host: PluginHost, /, store: Path, suffix: str | None) -> None:
    """List damaged, missing and unexpected files of a store.

    The command reads every file and changes nothing. The exit status is 1 if a file is damaged or missing.
    """
    from harness.store.check import findings_table

    table = findings_table(store)
    print_tables([table], host, suffix=suffix, every_row=True)
    if any(kind in {"damaged", "missing"} for kind, *_ in table.rows):
        raise Exit(1)
