"""The command `harness forecast`: one calibrated distribution per task and family."""

from __future__ import annotations

import json
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
    """Yield a function that shows (name, done, total): a bar on a terminal, a line each elsewhere."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda name, done, total: console.print(f"{done}/{total} {name}", highlight=False)
        return
    with Progress(console=console, transient=True) as shown:
        task = shown.add_task("", total=None)
        yield lambda name, done, total: shown.update(task, description=name, completed=done, total=total)


def target(at: str | None, given: dict[str, float]) -> dict[str, float]:
    """Return the features of the model to forecast; none for the largest size held out. Raises UsageError."""
    if at is not None and at != "largest":
        raise UsageError(f"--at {at!r}: expected largest; name another model with --params and --tokens, or --flops")
    if at and given:
        raise UsageError(f"--at largest holds out a size of the ladder; leave out --{min(given)}")
    if not at and not given:
        raise UsageError("name the model to forecast: --params and --tokens, --flops, or --at largest")
    if "tokens" in given and "params" not in given:
        raise UsageError("--tokens needs --params beside it")
    return given


@harness.hookimpl
def register_commands(cli: click.Group) -> None:
    """Add harness forecast."""
    import click

    @cli.command("forecast")
    @click.argument("points", type=click.Path(path_type=Path))
    @click.option("--task", help="The one task to forecast; all by default.")
    @click.option("--family", help="The one family to forecast; all sizes of the others are learnt from.")
    @click.option("--at", help="`largest` holds out the largest size of every family and forecasts it.")
    @click.option("--params", type=float, help="Parameters of the model to forecast.")
    @click.option("--tokens", type=float, help="Training tokens of the model to forecast.")
    @click.option("--flops", type=float, help="Training FLOPs of the model to forecast.")
    @click.option("--metric", help="Metric of a store (the task's own by default), or column of a table (acc).")
    @click.option("--via", help="Task loss: gold_bits_per_byte of a store; a column of a table (none by default).")
    @click.option("--map", "renames", multiple=True, metavar="THEIRS=OURS", help="As in harness fit.")
    @click.option("--where", help="Expression over columns; other points are left out.")
    @click.option("--law", "laws", multiple=True, help="Law that takes part beside the models; may be repeated.")
    @click.option(
        "--of",
        default="documents",
        show_default=True,
        type=click.Choice(["documents", "population"]),
        help="What intervals are for: the value measured on these documents, or on all documents like them.",
    )
    @click.option(
        "--level", default=0.9, show_default=True, type=click.FloatRange(0.01, 0.98), help="Level of intervals."
    )
    @click.option("--seed", default=0, show_default=True, help="Seed of the draws.")
    @click.option("--json", "as_json", is_flag=True, help="Print everything, quantiles included, as JSON.")
    @harness.table_options
    @click.pass_obj
    def command(
        host: harness.PluginHost,
        /,
        points: Path,
        at: str | None,
        as_json: bool,
        suffix: str | None,
        output: Path | None,
        **asked: Any,
    ) -> None:
        """Forecast the accuracy of a larger model on every task, with one calibrated distribution each.

        POINTS is a store, or a CSV or Parquet table with a row per checkpoint. The forecast is composed of models and
        laws by how their forecasts of earlier rungs did, and abstains where it cannot say anything.
        """
        given = {name: asked.pop(name) for name in ("params", "tokens", "flops")}
        wanted = target(at, {name: own for name, own in given.items() if own is not None})
        asked["laws"] = list(asked["laws"]) or None
        with bar() as report:
            found = harness.forecast_file(points, registries=host, report=report, **{**asked, **wanted})
        if as_json:
            click.echo(json.dumps(found.to_json(), indent=1, allow_nan=False))
            return
        harness.print_tables([found.table()], host, suffix=suffix, output=output)
