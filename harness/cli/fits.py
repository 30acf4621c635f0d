"""Commands that fit laws and predict with them: harness fit, harness predict."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import click
from click.exceptions import Exit

from harness.cli.named_values import read_features, read_options
from harness.cli.output import (
    FORMAT,
    LABEL,
    interval_options,
    print_json,
    print_tables,
    print_text,
    row_options,
    say,
    screen_options,
)
from harness.errors import UsageError
from harness.host import PluginHost

if TYPE_CHECKING:
    from harness.fitting.fit_files import PointsFile
    from harness.fitting.options import Options
    from harness.fitting.result import LawFit
    from harness.tables import Table
    from harness.types import Json


class FileArguments(TypedDict):
    """Arguments that a fit and a back-test of a file share."""

    via: str | None
    where: str | None
    law_options: dict[str, Json]
    options: Options


@click.command("fit")
@click.argument("points", type=click.Path(path_type=Path))
@click.option("--law", help="Name of the law (harness ls laws); a back-test accepts several, separated by commas.")
@click.option("--task", help="Task to fit; required if the store has several, except in a back-test.")
@click.option("--metric", help="Metric to fit (default: the task's).")
@click.option("--value", help="Column to fit, in a table without metrics.")
@click.option("--via", help="Intermediate column of a two-step law: logp_gold (default), loss, or a metric.")
@click.option(
    "--map",
    "renames",
    multiple=True,
    metavar="THEIRS=OURS",
    help="Rename a column of a table, or compute it from columns, including those mapped before: n_params=params, "
    "'tokens_b * 1e9=tokens'.",
)
@click.option("--params-column", help="Column to use as params, such as params_non_embedding.")
@row_options
@LABEL
@click.option("--where", help="Expression over columns that selects rows and points.")
@click.option(
    "--hold-out",
    help="Points to predict instead of fit: an expression, largest, or a share (the points with the most FLOPs).",
)
@click.option(
    "--back-test",
    "back_test",
    is_flag=True,
    help="Predict every size from the smaller ones with every applicable law, and rank the laws.",
)
@click.option(
    "--earlier/--no-earlier",
    default=True,
    help="Also predict earlier sizes from smaller ones, and print the coverage of their intervals (default: yes).",
)
@click.option("--pool", is_flag=True, help="Fit all families together instead of separately.")
@click.option(
    "--option", "law_options", multiple=True, metavar="NAME=VALUE", help="Option of the law (harness ls laws)."
)
@click.option(
    "--objective",
    help="Objective: least_squares, huber, log_least_squares, log_huber, log1p_least_squares, loglog_least_squares, "
    "or binomial (counted successes: columns trials and successes). Default: the law's.",
)
@click.option("--step1-objective", help="Objective of the first step of a two-step law (default: the law's).")
@click.option(
    "--step1-where",
    help="Points of the first step of a two-step law: an expression, or ends (the last checkpoint of every run).",
)
@click.option("--step2-where", help="Points of its second step, likewise (default: all).")
@click.option(
    "--resample",
    help="Units to resample: runs, checkpoints, seeds, documents or joint (runs and documents). Default: "
    "joint for a store, else runs.",
)
@interval_options
@click.option(
    "--starts",
    default="32",
    show_default=True,
    help="Number of starting points of the optimiser, or `published`: those of the law's source.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of starting points and resamples.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@screen_options
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="File for the fits, to be used by harness predict."
)
@click.pass_obj
def fit(
    host: PluginHost,
    /,
    *,
    points: Path,
    law: str | None,
    task: str | None,
    metric: str | None,
    value: str | None,
    via: str | None,
    renames: tuple[str, ...],
    params_column: str | None,
    run: str | None,
    drop_duplicates: bool,
    label: str | None,
    where: str | None,
    hold_out: str | None,
    back_test: bool,
    earlier: bool,
    pool: bool,
    law_options: tuple[str, ...],
    objective: str | None,
    step1_objective: str | None,
    step1_where: str | None,
    step2_where: str | None,
    resample: str | None,
    bootstrap: int,
    level: float,
    starts: str,
    seed: int,
    as_json: bool,
    output: Path | None,
) -> None:
    """Fit a law to points and predict the held-out points.

    POINTS is a store, or a CSV or Parquet table with one row per checkpoint. Every family is fitted separately.
    """
    from harness.fitting.fit_files import PointsFile
    from harness.fitting.options import Options

    source = PointsFile(points, task, metric, value, renames, params_column, run, drop_duplicates, label)
    steps = (step1_where, step2_where, step1_objective)
    options = Options(objective, resample, bootstrap, level, starts, seed, *steps)
    asked: FileArguments = {"via": via, "where": where, "law_options": read_options(law_options), "options": options}
    if back_test:
        if hold_out or pool:
            given = "hold-out" if hold_out else "pool"
            raise UsageError(f"--back-test holds out every size in turn; leave out --{given}")
        if options.of_steps:
            raise UsageError("--back-test fits every law to all rows; leave out --step1-where, --step2-where and so on")
        laws = [name for name in (law or "").split(",") if name]
        print_tables(_back_test(host, source, laws, asked), host, suffix="json" if as_json else None, output=output)
        return
    if law is None:
        raise UsageError(f"name a law with --law (one of {', '.join(host.laws)}), or rank all of them with --back-test")
    _fit(host, source, law, asked, hold_out=hold_out, pool=pool, earlier=earlier, as_json=as_json, output=output)


def _back_test(host: PluginHost, source: PointsFile, laws: list[str], asked: FileArguments) -> list[Table]:
    from harness.reports.back_test_files import back_test_file

    result = back_test_file(source, laws, registries=host, **asked)
    return [result.summary(), result.details()]


def _fit(
    host: PluginHost,
    source: PointsFile,
    law: str,
    asked: FileArguments,
    *,
    hold_out: str | None,
    pool: bool,
    earlier: bool,
    as_json: bool,
    output: Path | None,
) -> None:
    """Fit a law, save the fits, print them, and exit with status 1 if a family could not be fitted."""
    from harness.fitting.fit_files import fit_file
    from harness.fitting.result import check_output, save_fits

    if output:
        check_output(output)
    begun = time.perf_counter()
    fits, errors = fit_file(source, law, hold_out=hold_out, pool=pool, earlier=earlier, registries=host, **asked)
    seconds = time.perf_counter() - begun
    if output and fits:
        save_fits(fits, output)
    _print_fits(fits, seconds if as_json else None)
    for error in errors:
        say(f"harness: {error}")
    if errors:
        raise Exit(1)


def _print_fits(fits: list[LawFit], seconds: float | None) -> None:
    """Print fits as text, or as JSON if `seconds` (their total time) is given."""
    if seconds is not None:
        print_json([{**law_fit.to_json(draws=False), "seconds": round(seconds, 3)} for law_fit in fits])
        return
    if fits:
        print_text("\n\n".join(map(str, fits)))


@click.command("predict")
@click.argument("fits", type=click.Path(path_type=Path))
@click.option("--params", type=float, help="Parameters of the model to predict, including embeddings.")
@click.option("--tokens", type=float, help="Training tokens.")
@click.option("--flops", type=float, help="Training FLOPs (default: 6 x params x tokens).")
@click.option("--at", multiple=True, metavar="NAME=VALUE", help="Value of another feature of the law.")
@click.option(
    "--optimal", is_flag=True, help="Print the params and tokens with the smallest loss at --flops, with intervals."
)
@FORMAT
@click.pass_obj
def predict(
    host: PluginHost,
    /,
    *,
    fits: Path,
    params: float | None,
    tokens: float | None,
    flops: float | None,
    at: tuple[str, ...],
    optimal: bool,
    suffix: str | None,
) -> None:
    """Predict with laws that harness fit -o saved."""
    import numpy as np

    from harness.fitting.allocations import allocation_table
    from harness.fitting.columns import expect_one_model
    from harness.fitting.result import load_fits
    from harness.fitting.summary import prediction_table

    counts = {"params": params, "tokens": tokens, "flops": flops}
    given = {name: count for name, count in counts.items() if count is not None}
    others = read_features(at)
    if optimal:
        if set(given) != {"flops"}:
            raise UsageError("--optimal splits a budget: give --flops, and neither --params nor --tokens")
        table = allocation_table(load_fits(fits, host), given["flops"], others)
    else:
        expect_one_model(**{name: np.array([given.get(name, np.nan)]) for name in counts})
        table = prediction_table(load_fits(fits, host), {**given, **others})
    print_tables([table], host, suffix=suffix)
