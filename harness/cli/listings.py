"""Commands that list plugins and what they register: harness ls, harness show, harness plugins."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

import click
from click.exceptions import Exit

from harness.cli.output import FOLDER, answer, print_json, print_tables, say, wide_option
from harness.cli.prompting_options import FewshotFlags, fewshot_options
from harness.host import PluginHost

KINDS = (
    "families", "tasks", "laws", "metrics", "checkers", "engines", "samplers", "sources", "executors", "reporters",
    "panels", "forecasters",
)  # fmt: skip


@click.command("ls")
@click.argument("kind", type=click.Choice(KINDS), metavar="KIND")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@wide_option
@click.pass_obj
def ls(host: PluginHost, /, kind: str, as_json: bool) -> None:
    """List the available objects of a KIND.

    KIND is families, tasks, laws, metrics, checkers, engines, samplers, sources, executors, reporters (formats of
    tables), panels (figures of the report) or forecasters.
    """
    from harness.reports.listings import listing

    table = listing(kind, host)
    if as_json:
        columns, rows = table.flat()
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
        return
    print_tables([table], host, every_row=True)


@click.command("show")
@click.argument("task")
@click.option("--n", default=3, show_default=True, type=click.IntRange(min=1), help="Number of documents to show.")
@click.option("--data", type=FOLDER, help="Folder with documents that do not ship with their tasks.")
@fewshot_options
@click.pass_obj
def show(host: PluginHost, /, task: str, n: int, data: Path | None, **given: Unpack[FewshotFlags]) -> None:
    """Print the exact prompts of a task, with the boundary between context and continuation."""
    from harness.reports.listings import prompts
    from harness.tasks.finding import find_task
    from harness.tasks.prompt_options import Prompting

    answer(prompts(find_task(task, host, data, prompting=Prompting(**given)), n))


@click.command("plugins")
@click.argument("names", nargs=-1, metavar="[PLUGIN]...")
@click.option("--check", "is_checked", is_flag=True, help="Run the conformance checks on what the plugins register.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@wide_option
@click.pass_context
def plugins(ctx: click.Context, /, names: tuple[str, ...], is_checked: bool, as_json: bool) -> None:
    """List plugins with distribution, version, hooks, load time, and the reason if one does not load.

    With --check, every object of the named plugins (default: all plugins) is checked as `harness.testing` does, and
    the exit status is 1 if a check fails.
    """
    from dataclasses import asdict

    from harness.reports.listings import plugin_table

    host: PluginHost = ctx.obj
    if is_checked:
        host.check()
        _check_plugins(ctx, names, as_json)
        return
    as_json = as_json or "md" not in host.reporters  # a plugin that does not load may be the one with the formats
    infos = [info for info in host.plugins() if not names or info.name in names]
    if as_json:
        print_json([asdict(info) for info in infos])
    else:
        print_tables([plugin_table(host, names)], host, every_row=True)
    if host.errors:
        raise Exit(1)


def _check_plugins(ctx: click.Context, names: tuple[str, ...], as_json: bool) -> None:
    from dataclasses import asdict

    from harness.testing.plugins import check_plugins, check_table

    host: PluginHost = ctx.obj
    results = []
    root = ctx.find_root().command
    for checked in check_plugins(host, names, commands=root if isinstance(root, click.Group) else None):
        say(f"{checked.kind} {checked.name}: {checked.result}")
        results.append(checked)
    if as_json:
        print_json([asdict(checked) for checked in results])
    else:
        print_tables([check_table(results)], host, every_row=True)
    if any(checked.failures for checked in results):
        raise Exit(1)
