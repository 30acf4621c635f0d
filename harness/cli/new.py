"""`harness new`: write a small working plugin to start from."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.skeletons import KINDS, PARTS, write_skeleton
from harness.errors import UsageError
from harness.host import PluginHost

REGISTRIES = {"family": "families", "figure": "panels"}


@click.command("new")
@click.argument("kind", type=click.Choice(list(KINDS)), metavar="KIND")
@click.argument("name")
@click.option(
    "-o", "--output", type=click.Path(file_okay=False, path_type=Path), default=".", help="Folder to write NAME to."
)
@click.option(
    "--source",
    default="",
    metavar="PATTERN",
    help="For a family: existing folders, such as 'checkpoints/{size}/step-{step}', whose sizes and steps are read.",
)
@click.option("--tokens-per-step", type=click.IntRange(min=1), help="For a family: training tokens per step.")
@click.pass_context
def new(
    context: click.Context, /, kind: str, name: str, output: Path, source: str, tokens_per_step: int | None
) -> None:
    """Write a small working plugin NAME: pyproject.toml, a module, a test with the conformance check, a README.

    KIND is law, metric, task, source, family, engine, checker, sampler, forecaster, reporter (a format of tables),
    figure (of the report), command, or plugin (a law, a metric, a task, an engine, a command and a figure).
    """
    _check_free(context, kind, name)
    for path in write_skeleton(kind, name, output, source=source, tokens_per_step=tokens_per_step):
        click.echo(path)
    click.echo(f"\nNext: pip install -e {output / name} && harness plugins {name} --check", err=True)


def _check_free(context: click.Context, kind: str, name: str) -> None:
    """Raise UsageError for the name of a plugin, or of an object of this kind, that is already registered."""
    host: PluginHost = context.obj
    if name in host.candidates:
        raise UsageError(f"there already is a plugin {name!r}; choose another name")
    for part in PARTS if kind == "plugin" else (kind,):
        owners = host.commands if part == "command" else host.owners(REGISTRIES.get(part, f"{part}s"))
        command = name.replace("_", "-")
        if name in owners:
            raise UsageError(f"there already is a {part} {name!r}, of plugin {owners[name]!r}; choose another name")
        if part == "command" and command in getattr(context.find_root().command, "commands", {}):
            raise UsageError(f"there already is a command {command!r}; choose another name")
