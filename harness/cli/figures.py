"""`harness report` and `harness plot`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.output import point_options, say
from harness.host import PluginHost

if TYPE_CHECKING:
    from harness.fitting.point_source import Source

LAW = click.option(
    "--law",
    help="Law drawn through the points of each task and family (default: sigmoid for scores from 0 to 1 that rise, "
    "power for values that fall, else line).",
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


def _source(
    path: Path, host: PluginHost, metrics: Sequence[str], asked: dict[str, Any], task: str | None = None
) -> Source:
    """Return the points of a store or a table, with the options of points removed from `asked`.

    Without --metric, only the column of a wide table with the name of the task is read. Raises UsageError for --metric
    beside a store.
    """
    from harness.errors import UsageError
    from harness.fitting.point_source import open_asked

    if metrics and path.is_dir():
        raise UsageError(f"{path} is a store, whose tasks have their metrics; --metric is for tables")
    return open_asked(path, asked, host, metrics=metrics, score=task, selects=True)


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
@point_options
@WHERE
@click.option("--title", help="Heading of the page (default: the name of the store or table).")
@click.pass_obj
def report(host: PluginHost, /, points: Path, output: Path, metrics: tuple[str, ...], **asked: Any) -> None:
    """Write one HTML page with the figures of a store or a table.

    POINTS is a store, or a CSV or Parquet table with one row per checkpoint. The page holds its data and scripts and
    opens from disk without a network. Plugins add figures (register_panels).
    """
    from harness.reports.report import write_report

    asked["title"] = asked["title"] or f"Scaling report of {points.name}"
    source = _source(points, host, metrics, asked)
    path = write_report(source.store, output, registries=host, notes=source.notes, **asked)
    say(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")


@click.command("plot")
@click.argument("points", type=click.Path(path_type=Path))
@click.option("--task", help="Task to draw; required if there are several.")
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
    type=click.Choice(["flops", "params", "tokens", "loss"]),
    help="Horizontal axis (default: the first of these that the points have).",
)
@click.option("--linear", is_flag=True, help="Linear horizontal axis (default: logarithmic).")
@METRIC
@point_options
@WHERE
@click.pass_obj
def plot(
    host: PluginHost, /, points: Path, task: str | None, output: Path, scale: str | None, linear: bool,
    metrics: tuple[str, ...], **asked: Any,
) -> None:  # fmt: skip
    """Draw one task: points with error bars, a law with its interval, and held-out points.

    POINTS is a store, a CSV or Parquet table as harness import reads it, or fits that harness fit -o saved.
    """
    from harness.charts import save_chart
    from harness.reports.task_figure import plot_task

    if points.suffix == ".json":
        say(save_chart(_of_fits(points, host, task, linear=linear), output))
        return
    source = _source(points, host, metrics, asked, task)
    for note in source.notes:
        say(note)
    chart = plot_task(source.store, task, x=scale, log_x=not linear, note=say, registries=host, **asked)
    say(save_chart(chart, output))


def _of_fits(path: Path, host: PluginHost, task: str | None, *, linear: bool) -> Any:
    """Return the figure of saved fits."""
    from harness.fitting.fit_figures import fits_chart, fits_of
    from harness.fitting.result import load_fits

    return fits_chart(list(fits_of(load_fits(path, host), task)), log_x=not linear)
