"""Print tables: the option --format, -o to write them to files, and the options of intervals.

On a terminal, tables fit its width (harness/cli/terminal.py); elsewhere they are Markdown.

A plugin's command prints tables in the same way:

    @cli.command()
    @click.argument("store")
    @harness.table_options
    @click.pass_obj
    def mine(host, /, store, **output):
        harness.print_tables(tables_of(store), host, **output)

With --json or --format, only `answer`, `print_tables` and `print_json` write to standard output. All other output goes
to standard error, so a metric or library that calls print cannot damage JSON for another program.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from pathlib import Path
from typing import TextIO, TypeVar

import click

from harness.errors import PluginError, UsageError, choose
from harness.host.registries import Registries
from harness.tables import Table, printable
from harness.types import Json

R = TypeVar("R")
C = TypeVar("C", bound=Callable[..., object])  # a function or a click command

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
INTERRUPTED = 130  # the exit status after Ctrl-C, as in shells
ASKED_WIDE, ASKED_TABLE = "harness.wide", "harness.table"  # keys of --wide and --table in click's context


def _keep(ctx: click.Context, param: click.Parameter, value: object) -> None:
    ctx.meta[ASKED_WIDE if param.name == "wide" else ASKED_TABLE] = value


_SUFFIX = click.option(
    "--format",
    "suffix",
    help="Format: md, csv, json, tex, or one of a plugin (default: a table that fits, on a terminal; else md).",
)
_TABLE = click.option(
    "--table",
    metavar="NAME",
    expose_value=False,
    callback=_keep,
    help="Print this table (default: the first on a terminal; else all).",
)
_WIDE = click.option(
    "--wide",
    is_flag=True,
    expose_value=False,
    callback=_keep,
    help="Print all tables, rows and columns, even if they do not fit the terminal.",
)


def wide_option(command: C) -> C:
    """Add the option --wide, which `print_tables` reads, to a click command."""
    return _WIDE(command)


def screen_options(command: C) -> C:
    """Add the options --table and --wide, which `print_tables` reads, to a click command."""
    return _TABLE(_WIDE(command))


def FORMAT(command: C) -> C:  # noqa: N802  # a decorator beside those below
    """Add the options --format (`suffix`), --table and --wide to a click command."""
    return _SUFFIX(screen_options(command))


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
MAP = click.option(
    "--map", "renames", multiple=True, metavar="THEIRS=OURS", help="Rename or compute a column, as in harness fit."
)
LABEL = click.option("--label", metavar="COLUMN", help="Column with the names of models.")
DROP = click.option("--drop-duplicates", is_flag=True, help="Keep one of several rows that are equal in every column.")


def duplicates_option(command: C) -> C:
    """Add the option --drop-duplicates to a click command."""
    return DROP(command)


def row_options(command: C) -> C:
    """Add the options --run and --drop-duplicates to a click command."""
    return RUN(DROP(command))


def add_options(command: C, options: Sequence[Callable[[C], C]]) -> C:
    """Add options to a click command; --help lists them in this order."""
    for option in reversed(options):
        command = option(command)
    return command


def point_options(command: C) -> C:
    """Add the options --map (`renames`), --label, --run and --drop-duplicates to a click command that reads points."""
    return MAP(LABEL(row_options(command)))


def interval_options(command: C) -> C:
    """Add the options --bootstrap (resamples) and --level (of intervals) to a click command."""
    return BOOTSTRAP(LEVEL(command))


def table_options(command: C) -> C:
    """Add the options --format (`suffix`) and -o (`output`) to a click command that prints tables."""
    return FORMAT(OUTPUT(command))


ANSWERS: ContextVar[TextIO | None] = ContextVar("ANSWERS", default=None)  # standard output, while it is diverted


@contextmanager
def diverted() -> Iterator[None]:
    """Redirect standard output to standard error, also for C libraries and child processes, except for `answer`."""
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
    """Yield a stream to the original standard output, while its file descriptor points to standard error."""
    if stdout is not sys.__stdout__:  # replaced by a caller in Python
        yield stdout
        return
    stdout.flush()
    descriptor = os.dup(1)
    try:
        os.dup2(2, 1)
        with os.fdopen(os.dup(descriptor), "w", encoding=stdout.encoding, errors=stdout.errors) as stream:
            yield stream
    finally:
        os.dup2(descriptor, 1)
        os.close(descriptor)


def answering(command: click.Command, invoke: Callable[[click.Context], R], ctx: click.Context) -> R:
    """Run a command; if its output is for programs, redirect all other output to standard error."""
    is_ours = str(getattr(command.callback, "__module__", "")).startswith(("harness.", "harness_plugins."))
    if ctx.params.get("suffix") is None and not (is_ours and ctx.params.get("as_json")):
        return invoke(ctx)
    with diverted():
        return invoke(ctx)


def answer(text: str) -> None:
    """Print text to standard output; write control characters as escapes."""
    click.echo(printable(text, lines=True), file=ANSWERS.get())


def print_json(value: Json) -> None:
    """Print a value as JSON to standard output."""
    answer(json.dumps(value, indent=1, allow_nan=False))


def say(text: object) -> None:
    """Print one line to standard error; write control characters as escapes."""
    click.echo(printable(text), err=True)


def print_tables(
    tables: Sequence[Table],
    host: Registries,
    *,
    suffix: str | None = None,
    output: Path | None = None,
    every_row: bool = False,
) -> None:
    """Print tables in a registered format; without one, fitted to a terminal, or as Markdown elsewhere.

    Also write each table to the folder `output`, as md and csv. With `every_row`, no rows or notes are left out on a
    small screen. Raises UsageError if --table names none of the tables.
    """
    from harness.cli.terminal import is_terminal, screen, show_tables

    whole, chosen = asked_wide(), _chosen(tables)
    if suffix is None and is_terminal():
        show_tables(chosen, screen(whole=whole), every_row=every_row)
    else:
        answer(_rendered(host, suffix or "md", chosen))
    if output:
        write_tables(tables, host, output)


def print_text(lines: str) -> None:
    """Print a text; on a terminal, wrap lines that are too long and keep their indent."""
    from harness.cli.terminal import is_terminal, screen, show_text

    if is_terminal() and not asked_wide():
        show_text(lines, screen())
    else:
        answer(lines)


def asked_wide() -> bool:
    """Tell whether the running command has the option --wide."""
    ctx = click.get_current_context(silent=True)
    return bool(ctx and ctx.meta.get(ASKED_WIDE))


def _chosen(tables: Sequence[Table]) -> Sequence[Table]:
    """Return the table that --table names, or all tables."""
    ctx = click.get_current_context(silent=True)
    name = ctx.meta.get(ASKED_TABLE) if ctx else None
    if name is None:
        return tables
    chosen = [table for table in tables if table.name == name]
    if not chosen:
        raise UsageError(f"there is no table {name!r}; there are: {choose(table.name for table in tables)}")
    return chosen


def write_tables(tables: Sequence[Table], host: Registries, folder: Path) -> None:
    """Write every table to a folder, as md and csv under its name."""
    folder.mkdir(parents=True, exist_ok=True)
    for table in tables:
        for suffix in ("md", "csv"):
            (folder / f"{table.name}.{suffix}").write_text(_rendered(host, suffix, [table]), encoding="utf-8")


def _rendered(host: Registries, suffix: str, tables: Sequence[Table]) -> str:
    """Return tables in a format; raise PluginError if it gives anything but text."""
    text: object = host.reporters[suffix](list(tables))
    if not isinstance(text, str):
        origin = host.reporters.origin(suffix)
        raise PluginError(f"{origin} returned {text!r}; expected text")
    return text
