"""`harness report` and `harness plot`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from harness.cli.output import open_source, point_options
from harness.host import PluginHost

LAW = click.option(
    "--law", default="sigmoid", show_default=True, help="Law drawn through the points of each task and family."
)
HOLD_OUT = click.option(
    "--hold-out",
    default="largest",
    show_default=True,
    help="Points that the law does not see: largest, or an expression.",
)
WHERE = click.option("--where", metavar="EXPR", help="Expression that selects points.")


@click.command("report")
@click.argument("store", metavar="POINTS", type=click.Path(path_type=Path))
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
@WHERE
@point_options
@click.option("--title", help="Heading of the page (default: the name of the store).")
@click.pass_obj
def report(
    host: PluginHost, /, store: Path, output: Path, law: str, hold_out: str, title: str | None, **asked: Any
) -> None:
    """Write one HTML page with the figures of a store.

    The page holds its data and scripts and opens from disk without a network. Plugins add figures (register_panels).
    """
    from harness.reports.report import write_report

    source = open_source(store, host, asked)
    path = write_report(source.store, output, law=law, hold_out=hold_out, title=title, where=source.where)
    click.echo(f"{path} ({path.stat().st_size / 1e6:.1f} MB)", err=True)


@click.command("plot")
@click.argument("store", metavar="POINTS", type=click.Path(path_type=Path))
@click.option("--task", required=True, help="Task to draw.")
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
@WHERE
@point_options
@click.pass_obj
def plot(
    host: PluginHost,
    /,
    store: Path,
    task: str,
    output: Path,
    law: str,
    hold_out: str,
    scale: str,
    linear: bool,
    **asked: Any,
) -> None:
    """Draw one task: points with error bars, a law with its interval, and held-out points."""
    from harness.charts import save_chart
    from harness.reports.report import plot_task

    source = open_source(store, host, asked)
    drawn: dict[str, Any] = {"law": law, "hold_out": hold_out, "x": scale, "log_x": not linear, "where": source.where}
    chart = plot_task(source.store, task, **drawn)
    click.echo(str(save_chart(chart, output)), err=True)
