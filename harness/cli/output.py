"""How commands print tables: one option --format, -o to keep them as files, and the options of their intervals.

A command of a plugin prints as ours do:

    @cli.command()
    @click.argument("store")
    @harness.table_options
    @click.pass_obj
    def mine(host, /, store, **output):
        harness.print_tables(tables_of(store), host, **output)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import click

from harness.registries import Registries
from harness.tables import Table

C = TypeVar("C", bound=Callable[..., object])  # a function or a click command

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
INTERRUPTED = 130  # the exit status after Ctrl-C, as in shells
FORMAT = click.option(
    "--format", "suffix", default="md", show_default=True, help="Format: md, csv, json, tex, or one of a plugin."
)
OUTPUT = click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Folder for the tables, written as md and csv."
)
BOOTSTRAP = click.option(
    "--bootstrap", default=1000, show_default=True, type=click.IntRange(min=10), help="Number of resamples."
)
LEVEL = click.option(
    "--level",
    default=0.9,
    show_default=True,
    type=click.FloatRange(0.01, 0.999),
    help="Coverage level of the intervals.",
)

RUN = click.option("--run", metavar="COLUMN", help="Column that identifies the runs of a table (default: run).")
DROP = click.option("--drop-duplicates", is_flag=True, help="Keep one of several rows that are equal in every column.")


def duplicates_option(command: C) -> C:
    """Give a click command the option --drop-duplicates."""
    return DROP(command)


def row_options(command: C) -> C:
    """Add the options --run and --drop-duplicates to a click command."""
    return RUN(DROP(command))


def interval_options(command: C) -> C:
    """Add the options --bootstrap (resamples) and --level (of intervals) to a click command."""
    return BOOTSTRAP(LEVEL(command))


def table_options(command: C) -> C:
    """Add the options --format (`suffix`) and -o (`output`) to a click command that prints tables."""
    return FORMAT(OUTPUT(command))


def print_tables(tables: Sequence[Table], host: Registries, *, suffix: str = "md", output: Path | None = None) -> None:
    """Print tables in a registered format; write each to the folder `output` as well, as md and csv."""
    click.echo(host.reporters[suffix](tables))
    if output:
        write_tables(tables, host, output)


def write_tables(tables: Sequence[Table], host: Registries, folder: Path) -> None:
    """Write every table to a folder, as md and csv under its name."""
    folder.mkdir(parents=True, exist_ok=True)
    for table in tables:
        for suffix in ("md", "csv"):
            (folder / f"{table.name}.{suffix}").write_text(host.reporters[suffix]([table]), encoding="utf-8")
