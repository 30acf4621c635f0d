"""Commands that compare families and stores: harness compare, harness diff."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.named_values import read_options
from harness.cli.output import FORMAT, OUTPUT, answer, point_options, print_tables, say
from harness.errors import HarnessError
from harness.host import PluginHost

if TYPE_CHECKING:
    from harness.tables import Table


@click.command("compare")
@click.argument("points", type=click.Path(path_type=Path))
@click.option(
    "--law",
    "laws",
    multiple=True,
    help="Laws that predict the held-out points (default: no law; harness forecast predicts the largest sizes).",
)
@click.option(
    "--reach", default="sigmoid", show_default=True, help="Law of FLOPs used to find the compute that reaches a score."
)
@click.option("--score", type=float, help="Score to reach (default: half-way from chance to 1).")
@click.option("--hold-out", default="largest", show_default=True, help="Held-out points, as in harness fit.")
@click.option("--where", help="Expression that selects points.")
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="TASK=METRIC",
    help="Metric of a task (default: the task's).",
)
@click.option("--mix-engines", is_flag=True, help="Allow scores of different engines in one table.")
@point_options
@FORMAT
@OUTPUT
@click.option(
    "--expect",
    type=click.Path(path_type=Path),
    help="Compare with the tables in this folder and print every difference.",
)
@click.pass_obj
def compare(
    host: PluginHost,
    /,
    *,
    points: Path,
    laws: tuple[str, ...],
    reach: str,
    score: float | None,
    hold_out: str,
    metrics: tuple[str, ...],
    mix_engines: bool,
    suffix: str | None,
    output: Path | None,
    expect: Path | None,
    **asked: Any,
) -> None:
    """Compare families: scores, predictions and measurements, compute to reach a score.

    POINTS is a store, or a CSV or Parquet table as harness import reads it.
    """
    from harness.fitting.point_source import open_asked
    from harness.reports.compare import compare as tables_of
    from harness.tables import noted

    source = open_asked(points, asked, host)
    compared = tables_of(
        source.store,
        where=source.where,
        metrics={task: str(metric) for task, metric in read_options(metrics).items()},
        mix_engines=mix_engines,
        laws=[name for names in laws for name in names.split(",")] or None,
        reach=reach,
        hold_out=hold_out,
        score=score,
    )
    tables = noted(compared, source.notes)
    print_tables(tables, host, suffix=suffix, output=output)
    if expect:
        _expect(tables, expect)


@click.command("diff")
@click.argument("a", metavar="A", type=click.Path(path_type=Path))
@click.argument("b", metavar="B", type=click.Path(path_type=Path))
@click.option("--a", "of_a", metavar="EXPR", help="Expression that selects cells of A, such as \"dtype == 'float32'\".")
@click.option("--b", "of_b", metavar="EXPR", help="Expression that selects cells of B.")
@click.option("--where", metavar="EXPR", help="Expression that selects cells of both.")
@click.option("--task", help="Task to compare (default: all).")
@click.option("--n", default=20, show_default=True, type=click.IntRange(min=0), help="Number of documents to show.")
@click.option(
    "--fail-above", metavar="NATS", type=float, help="Exit with status 1 if a log-probability differs by more."
)
@FORMAT
@OUTPUT
@click.pass_obj
def diff(
    host: PluginHost,
    /,
    *,
    a: Path,
    b: Path,
    of_a: str | None,
    of_b: str | None,
    where: str | None,
    task: str | None,
    n: int,
    fail_above: float | None,
    suffix: str | None,
    output: Path | None,
) -> None:
    """Compare the log-probabilities of two stores and list the documents whose answer changes.

    A and B are stores, or the same store twice. Expressions select the cells to compare, by the columns engine, dtype,
    quantisation, bos, max_length, truncation, settings, family, size, step, task ... Cells with identical
    checkpoint and prompts are paired.
    """
    from harness.reports.diff import diff as run

    difference = run(a, b, of_a=of_a, of_b=of_b, where=where, task=task, registries=host)
    tables = difference.tables(n)
    print_tables(tables, host, suffix=suffix, output=output)
    if fail_above is not None and difference.largest > fail_above:
        raise HarnessError(f"a log-probability differs by {difference.largest:.4g} nats, more than {fail_above:g}")


def _expect(tables: list[Table], folder: Path) -> None:
    from harness.tables import differences, read_csv

    lines = [line for table in tables for line in differences(table, read_csv(folder / f"{table.name}.csv"))]
    for line in lines:
        say(f"differs: {line}")
    if lines:
        raise HarnessError(f"{len(lines)} cells differ from those in {folder}")
    answer(f"All cells equal those in {folder}.")
