"""How commands print tables: one option --format, -o to keep them as files, and the options of their intervals.

A command of a plugin prints as ours do:

    @cli.command()
    @click.argument("store")
    @harness.table_options
    @click.pass_obj
    def mine(host, /, store, **output):
        harness.print_tables(tables_of(store), host, **output)

Standard output holds what `answer`, `print_tables` and `print_json` print. In the commands of the harness, and in those
of plugins where --format is none for people, everything else that is printed goes to standard error: a metric or a
library that calls print cannot break JSON that a program reads.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TextIO

import click

from harness.escaping import printable
from harness.registries import Registries
from harness.tables import Table

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


def duplicates_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a click command the option --drop-duplicates."""
    return DROP(command)


def row_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options --run and --drop-duplicates to a click command."""
    return RUN(DROP(command))


def interval_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options --bootstrap (resamples) and --level (of intervals) to a click command."""
    return BOOTSTRAP(LEVEL(command))


def table_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options --format (`suffix`) and -o (`output`) to a click command that prints tables."""
    return FORMAT(OUTPUT(command))


ANSWERS: ContextVar[TextIO | None] = ContextVar("ANSWERS", default=None)  # standard output, while it is diverted


@contextmanager
def diverted() -> Iterator[None]:
    """Send what anything prints, also libraries in C and child processes, to standard error; `answer` excepted."""
    if ANSWERS.get() is not None:
        yield
        return
    with _own_stream(sys.stdout) as stream:
        token = ANSWERS.set(stream)
        try:
            with redirect_stdout(sys.stderr):
                yield
        finally:
            ANSWERS.reset(token)


@contextmanager
def _own_stream(stdout: TextIO) -> Iterator[TextIO]:
    """Yield a stream that writes where standard output did; its file descriptor goes to standard error meanwhile."""
    if stdout is not sys.__stdout__:  # replaced by whoever runs the command in Python
        yield stdout
        return
    stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        with os.fdopen(os.dup(kept), "w", encoding=stdout.encoding, errors=stdout.errors) as stream:
            yield stream
    finally:
        os.dup2(kept, 1)
        os.close(kept)


class Command(click.Command):
    """A command whose standard output is its answer alone."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what plugins print goes to standard error."""
        is_ours = str(getattr(self.callback, "__module__", "")).startswith(("harness.", "harness_plugins."))
        if not is_ours and ctx.params.get("suffix", "md") == "md":
            return super().invoke(ctx)
        with diverted():
            return super().invoke(ctx)


def answer(text: str) -> None:
    """Print text to standard output; what a terminal would obey is written as an escape."""
    click.echo(printable(text, lines=True), file=ANSWERS.get())


def print_json(value: Any) -> None:
    """Print a value as JSON to standard output."""
    answer(json.dumps(value, indent=1, allow_nan=False))


def say(text: object) -> None:
    """Print one line to standard error; what a terminal would obey is written as an escape."""
    click.echo(printable(text), err=True)


def print_tables(tables: Sequence[Table], host: Registries, *, suffix: str = "md", output: Path | None = None) -> None:
    """Print tables in a registered format; write each to the folder `output` as well, as md and csv."""
    answer(host.reporters[suffix](tables))
    if output:
        write_tables(tables, host, output)


def write_tables(tables: Sequence[Table], host: Registries, folder: Path) -> None:
    """Write every table to a folder, as md and csv under its name."""
    folder.mkdir(parents=True, exist_ok=True)
    for table in tables:
        for suffix in ("md", "csv"):
            (folder / f"{table.name}.{suffix}").write_text(host.reporters[suffix]([table]), encoding="utf-8")
