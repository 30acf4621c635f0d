"""Commands that list plugins and what they register: harness ls, harness show, harness plugins."""

from __future__ import annotations

import json
from pathlib import Path

import click
from click.exceptions import Exit

from harness.cli.output import FOLDER
from harness.host import PluginHost


@click.command("ls")
@click.argument("kind", type=click.Choice(["families", "tasks", "laws", "metrics", "checkers", "engines"]))
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.pass_obj
def ls(host: PluginHost, /, kind: str, as_json: bool) -> None:
    """List the available families, tasks, laws, metrics, checkers or engines."""
    from harness.reports.listings import listing

    table = listing(kind, host)
    columns, rows = table.flat()
    found = json.dumps([dict(zip(columns, row, strict=True)) for row in rows], indent=1)
    click.echo(found if as_json else host.reporters["md"]([table]))


@click.command("show")
@click.argument("task")
@click.option("--n", default=3, show_default=True, type=click.IntRange(min=1), help="Number of documents to show.")
@click.option("--data", type=FOLDER, help="Folder with documents that do not ship with their tasks.")
@click.pass_obj
def show(host: PluginHost, /, task: str, n: int, data: Path | None) -> None:
    """Print the exact prompts of a task, with the boundary between context and continuation."""
    from harness.reports.listings import prompts
    from harness.tasks.loading import find_task

    click.echo(prompts(find_task(task, host, data), n))


@click.command("plugins")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.pass_obj
def plugins(host: PluginHost, /, as_json: bool) -> None:
    """List all plugins with distribution, version, hooks, and the reason if one does not load."""
    from dataclasses import asdict

    from harness.reports.listings import plugin_table

    as_json = as_json or "md" not in host.reporters  # which a broken plugin may have taken away
    infos = [asdict(info) for info in host.plugins()]
    click.echo(json.dumps(infos, indent=1) if as_json else host.reporters["md"]([plugin_table(host)]))
    if host.errors:
        raise Exit(1)
