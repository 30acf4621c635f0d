"""The command `harness forecast`: one calibrated distribution per task and family."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness
from harness import UsageError

if TYPE_CHECKING:
    import click


@contextmanager
def bar() -> Iterator[Any]:
    """Yield a function that shows (name, done, total): a progress bar on a terminal, else one line per call."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda name, done, total: console.print(
            harness.printable(f"{done}/{total} {name}"), highlight=False, markup=False
        )
        return
    with Progress(console=console, transient=True) as shown:
        task = shown.add_task("", total=None)
        yield lambda name, done, total: shown.update(
            task, description=escape(harness.printable(name)), completed=done, total=total
        )


def target(at: str | None, given: dict[str, float]) -> dict[str, float]:
    """Return the features of the model to forecast, or none for --at largest; raise UsageError for a conflict."""
    if at is not None and at != "largest":
        raise UsageError(f"--at {at!r}: expected largest; for another model pass --params and --tokens, or --flops")
    if at and given:
        raise UsageError(f"--at largest forecasts a size of the ladder; omit --{min(given)}")
    if not at and not given:
        raise UsageError("no model to forecast; pass --params and --tokens, --flops, or --at largest")
    if "tokens" in given and "params" not in given:
        raise UsageError("--tokens needs --params")
    return given


def _model_options(command: Any) -> Any:
    """Add the options that select what to forecast to a command."""
    import click

    options = (
        click.option("--task", help="Task to forecast (default: all)."),
        click.option(
            "--family", help="Family to forecast (default: all). Other families are still used to fit the models."
        ),
        click.option("--at", help="largest: hold out the largest size of every family and forecast it."),
        click.option("--params", type=float, help="Parameters of the model to forecast."),
        click.option("--tokens", type=float, help="Training tokens of the model to forecast."),
        click.option("--flops", type=float, help="Training FLOPs of the model to forecast."),
    )
    return harness.add_options(command, options)


def _fit_options(command: Any) -> Any:
    """Add the options of points, laws and intervals to a command."""
    import click

    options = (
        click.option("--metric", help="Metric of a store (default: the task's), or column of a table (default: acc)."),
        click.option("--via", help="Task loss (default: gold_bits_per_byte of a store; none for a table)."),
        click.option(
            "--map",
            "renames",
            multiple=True,
            metavar="THEIRS=OURS",
            help="Rename or compute a column, as in harness fit.",
        ),
        click.option("--label", metavar="COLUMN", help="Column with the names of models."),
        click.option("--where", help="Expression that selects points."),
        click.option("--law", "laws", multiple=True, help="Law to combine with the models; may be repeated."),
        click.option(
            "--of",
            default="documents",
            show_default=True,
            type=click.Choice(["documents", "population"]),
            help="Target of the intervals: the value measured on these documents, or over the population of documents.",
        ),
        click.option(
            "--level",
            default=0.9,
            show_default=True,
            type=click.FloatRange(0.01, 0.98),
            help="Coverage level of the intervals.",
        ),
        click.option("--seed", default=0, show_default=True, help="Seed of the random draws."),
        click.option(
            "--plan", "plans", is_flag=True, help="Also print which run or measurement would narrow the intervals most."
        ),
        click.option("--json", "as_json", is_flag=True, help="Print the forecasts with their quantiles as JSON."),
    )
    return harness.add_options(command, options)


@harness.hookimpl
def register_commands(cli: click.Group) -> None:
    """Add harness forecast."""
    import click

    @cli.command("forecast")
    @click.argument("points", type=click.Path(path_type=Path))
    @_model_options
    @_fit_options
    @harness.table_options
    @click.pass_obj
    def command(
        host: harness.PluginHost,
        /,
        points: Path,
        at: str | None,
        as_json: bool,
        plans: bool,
        suffix: str | None,
        output: Path | None,
        **options: Any,
    ) -> None:
        """Forecast the accuracy of a larger model: one calibrated distribution per task and family.

        POINTS is a store, or a CSV or Parquet table with one row per checkpoint. The forecast combines models and
        laws, weighted by their forecasts of earlier rungs. It abstains if the data do not determine it.
        """
        given = {name: options.pop(name) for name in ("params", "tokens", "flops")}
        wanted = target(at, {name: value for name, value in given.items() if value is not None})
        options["laws"] = list(options["laws"]) or None
        with bar() as report:
            forecasts = harness.forecast_file(points, registries=host, report=report, **{**options, **wanted})
        if as_json:
            harness.print_json(forecasts.to_json())
            return
        tables = [forecasts.table(), *([forecasts.plan()] if plans else [])]
        harness.print_tables(tables, host, suffix=suffix, output=output)
