"""`harness report` and `harness plot`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import click

from harness.cli.output import LABEL, MAP, say
from harness.host import PluginHost

if TYPE_CHECKING:
    import pandas as pd

    from harness.store.points import PointStore

LAW = click.option(
    "--law", default="sigmoid", show_default=True, help="Law drawn through the points of each task and family."
)
HOLD_OUT = click.option(
    "--hold-out",
    default="largest",
    show_default=True,
    help="Points to hold out from the fit: largest, or an expression.",
)


METRIC = click.option(
    "--metric", "metrics", multiple=True, metavar="COLUMN", help="Column of scores of a table; may be repeated."
)
WHERE = click.option("--where", metavar="EXPR", help="Expression that selects points.")


class Rows(TypedDict):
    """Options that say which points are drawn, and how their columns are named."""

    renames: tuple[str, ...]
    label: str | None
    where: str | None


class Drawn(Rows):
    """Options of every figure."""

    law: str
    hold_out: str


class Page(Drawn):
    """Options of the report."""

    title: str | None


def _source(
    path: Path, host: PluginHost, metrics: Sequence[str], asked: Drawn, task: str | None = None
) -> PointStore | pd.DataFrame:
    """Return a store, or the long points of a table.

    Without --metric, the column of a wide table with the name of the task is its score. Raises UsageError for --metric
    beside a store.
    """
    from harness.errors import UsageError
    from harness.fitting.columns import labelled, query, renamed
    from harness.fitting.point_source import open_points
    from harness.fitting.published import Reading
    from harness.fitting.wide_points import is_long
    from harness.reports.table_points import table_points
    from harness.store.point_files import read_table

    renames, label, where = asked["renames"], asked["label"], asked["where"]
    if not path.is_dir():
        read, _ = read_table(path)
        if task in read.columns and not is_long(read):
            metrics = metrics or [str(task)]
        table = renamed(read, labelled(renames, label))
        return table_points(query(table, where) if where else table, metrics)
    if metrics:
        raise UsageError(f"{path} is a store, whose tasks have their metrics; --metric is for tables")
    return open_points(path, Reading(renames=renames, label=label, where=where, selects=True), registries=host).store


@click.command("report")
@click.argument("points", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("report.html"),
    show_default=True,
    help="File to write.",
)
@LAW
@HOLD_OUT
@METRIC
@MAP
@LABEL
@WHERE
@click.option("--title", help="Heading of the page (default: the name of the store or table).")
@click.pass_obj
def report(host: PluginHost, /, points: Path, output: Path, metrics: tuple[str, ...], **asked: Unpack[Page]) -> None:
    """Write one HTML page with the figures of a store or a table.

    POINTS is a store, or a CSV or Parquet table with one row per checkpoint. The page holds its data and scripts and
    opens from disk without a network. Plugins add figures (register_panels).
    """
    from harness.reports.report import write_report

    source, title = _source(points, host, metrics, asked), asked["title"] or f"Scaling report of {points.name}"
    path = write_report(source, output, title=title, law=asked["law"], hold_out=asked["hold_out"], registries=host)
    say(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")


@click.command("plot")
@click.argument("points", type=click.Path(path_type=Path))
@click.option("--task", required=True, help="Task to draw; in a table without tasks, the column of scores.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("figure.svg"),
    show_default=True,
    help="File to write: .svg, .png, .pdf, .html or .json.",
)
@LAW
@HOLD_OUT
@click.option(
    "--x",
    "scale",
    default="flops",
    show_default=True,
    type=click.Choice(["flops", "params", "tokens", "loss"]),
    help="Horizontal axis.",
)
@click.option("--linear", is_flag=True, help="Linear horizontal axis (default: logarithmic).")
@METRIC
@MAP
@LABEL
@WHERE
@click.pass_obj
def plot(
    host: PluginHost, /, points: Path, task: str, output: Path, scale: str, linear: bool, metrics: tuple[str, ...],
    **asked: Unpack[Drawn],
) -> None:  # fmt: skip
    """Draw one task: points with error bars, a law with its interval, and held-out points.

    POINTS is a store, or a CSV or Parquet table with one row per checkpoint.
    """
    from harness.reports.charts import save_chart
    from harness.reports.report import plot_task

    source = _source(points, host, metrics, asked, task)
    chart = plot_task(
        source, task, x=scale, law=asked["law"], hold_out=asked["hold_out"], log_x=not linear, registries=host
    )
    say(save_chart(chart, output))
