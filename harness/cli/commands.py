"""The command line: every command parses, calls one documented function, and prints."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.exceptions import Abort, Exit

from harness import distribution
from harness.cli.browse import browse
from harness.cli.figures import plot, report
from harness.cli.output import (
    FORMAT,
    LABEL,
    OUTPUT,
    interval_options,
    open_source,
    point_options,
    print_tables,
    print_text,
    row_options,
    screen_options,
    wide_option,
)
from harness.cli.sampling_options import sampling_options, take_sampling
from harness.errors import HarnessError, PluginError, UsageError
from harness.host import PluginHost, load_plugins
from harness.origins import PLUGIN_ERRORS, describe, is_interrupt, origin_of

if TYPE_CHECKING:
    from harness.fitting.result import LawFit
    from harness.tables import Table


KINDS = (
    "families", "tasks", "laws", "metrics", "checkers", "engines", "samplers", "sources", "executors", "reporters",
    "panels", "forecasters",
)  # fmt: skip
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
INTERRUPTED = 130  # the exit status after Ctrl-C, as of shells


@contextmanager
def _interruptible() -> Iterator[None]:
    """End with the status of shells after Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt as error:
        click.echo("harness: interrupted", err=True)
        raise Exit(INTERRUPTED) from error


class Cli(click.Group):
    """The group of all commands, those of plugins included; errors of ours become one line and an exit status."""

    def main(self, args: Any = None, **extra: Any) -> Any:  # type: ignore[override]  # click's own has one more overload
        """Run a command; exit 1 at an error of ours, 2 at one of usage."""
        args = list(sys.argv[1:] if args is None else args)
        try:
            return super().main(args, **extra)
        except HarnessError as error:
            if "--traceback" in args:
                raise
            click.echo(f"harness: {error}", err=True)
            sys.exit(2 if isinstance(error, UsageError) else 1)
        except OSError as error:
            if "--traceback" in args:
                raise
            click.echo(f"harness: {error.filename or 'a file'}: {error.strerror or error}", err=True)
            sys.exit(1)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Read the arguments of the group; Ctrl-C ends with 130 here too."""
        with _interruptible():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; an error or exit of a plugin's code becomes one line that names plugin and object."""
        with _interruptible():
            try:
                return super().invoke(ctx)
            except (HarnessError, click.ClickException, Exit, Abort, BrokenPipeError):
                raise
            except PLUGIN_ERRORS as error:
                find = ctx.obj.origin_of if ctx.obj else lambda _: None
                if is_interrupt(error):
                    raise KeyboardInterrupt from error
                if isinstance(error, SystemExit) or origin_of(error, find):
                    raise PluginError(describe(error, find)) from error
                raise

    def _host(self, ctx: click.Context) -> PluginHost:
        """Load plugins once, as -p and HARNESS_PLUGINS say, and let them add commands."""
        if ctx.obj is None:
            ctx.obj = load_plugins(ctx.params.get("plugin", ()))
            ctx.obj.add_commands(self)
        host: PluginHost = ctx.obj
        return host

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        self._host(ctx)
        return super().list_commands(ctx)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find a command after the plugins had their say; a plugin that does not load stops all but `plugins`."""
        host = self._host(ctx)
        name, command, rest = super().resolve_command(ctx, args)
        if name != "plugins":
            host.check()
        return name, command, rest


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    """Print the version of the distribution, with its name, and end."""
    if value:
        click.echo(f"harness, version {distribution.version()} ({distribution.name()})")
        ctx.exit()


@click.group("harness", cls=Cli, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "-p",
    "plugin",
    multiple=True,
    is_eager=True,  # known before --help is answered
    metavar="NAME",
    help="Load a plugin (module or file.py); no:NAME disables one.",
)
@click.option("--traceback", is_flag=True, help="Show the traceback of an error.")
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
def main(**_: Any) -> None:
    """Evaluate ladders of language models, store the log-probability of every choice, and fit laws that predict
    larger models.
    """


main.add_command(report)
main.add_command(plot)
main.add_command(browse)


@main.command("eval")
@click.argument("families", nargs=-1, required=True)
@click.option(
    "-t",
    "--tasks",
    required=True,
    help="Tasks, separated by commas: names, wildcards, prefix:NAME, or folders.",
)
@click.option(
    "-o",
    "--store",
    "store",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of the store; created if missing.",
)
@click.option(
    "--engine", help="Engine for the checkpoints (default: vllm if it and a GPU are available, else transformers)."
)
@click.option(
    "-O",
    "--option",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    help="Option of the engine, such as dtype=bfloat16.",
)
@click.option("--data", type=FOLDER, help="Folder with documents that do not ship with their tasks.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="Evaluate the first documents of each group only (stored as a separate task).",
)
@click.option(
    "--subset",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Evaluate the documents selected by harness choose only (stored as a separate task).",
)
@click.option(
    "--max-length",
    type=click.IntRange(min=2),
    help="Maximum length of a sequence in tokens (default: the model's).",
)
@click.option(
    "--truncation",
    default="left",
    show_default=True,
    help="Truncation of long contexts: left (keeps BOS) or lm_eval (drops it).",
)
@click.option("--rehash", is_flag=True, help="Compute the digests of weight files again instead of using the cache.")
@sampling_options
@click.option("--dry-run", is_flag=True, help="Print the numbers of cells, documents, tokens and FLOPs, and stop.")
@click.pass_obj
def evaluate(
    host: PluginHost, /, families: tuple[str, ...], tasks: str, store: Path, dry_run: bool, **settings: Any
) -> None:
    """Evaluate tasks on checkpoints and store the log-probability of every choice.

    FAMILIES are FAMILY[:SIZE][@STEPS]. FAMILY is a name (harness ls families), a family file, or a folder with one
    checkpoint. Sizes may contain wildcards. Steps are a range (100..1600 *2) or `last`. Cells that are already in the
    store are skipped, so the same command resumes a killed run.
    """
    from harness.cli.progress import shown
    from harness.evaluation.suite import evaluate as run

    max_length = settings.pop("max_length")
    settings["options"] = _options(settings["options"]) | ({"max_length": max_length} if max_length else {})
    settings["sampling"] = take_sampling(settings)
    names = [name for name in tasks.split(",") if name]
    if dry_run:
        _dry_run(host, families, names, store, settings)
        return
    with shown() as progress:
        try:
            summary = run(families, names, store, progress=progress, registries=host, **settings)
        except KeyboardInterrupt:
            progress.note("interrupted; the same command goes on with what is missing")
            raise Exit(INTERRUPTED) from None
    summary.check()
    click.echo(f"{summary.written} cells written, {summary.there} were there", err=True)


def _dry_run(
    host: PluginHost, families: tuple[str, ...], tasks: list[str], store: Path, settings: Mapping[str, Any]
) -> None:
    from harness.evaluation.plan import cost_table
    from harness.evaluation.suite import prepare

    plan, _ = prepare(families, tasks, store=store, registries=host, **settings)
    print_tables([cost_table(plan)], host, every_row=True)
    for failure in plan.failures:
        click.echo(f"failed: {failure}", err=True)
    if plan.failures:
        raise Exit(1)


def _options(pairs: Iterable[str]) -> dict[str, Any]:
    """Read NAME=VALUE pairs; values are YAML, so that 3 is a number and true a flag."""
    import yaml

    found = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign:
            raise UsageError(f"{pair!r}: expected NAME=VALUE")
        found[name.replace("-", "_")] = yaml.safe_load(value)
    return found


def _features(pairs: Iterable[str]) -> dict[str, Any]:
    """Read NAME=VALUE pairs of features: numbers, 1e19 among them, or text, such as family=new."""
    found: dict[str, Any] = {}
    for name, value in _options(pairs).items():
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = str(value)
        except TypeError as error:
            raise UsageError(f"--at {name}={value}: expected a number or a text") from error
    return found


@main.command("check")
@click.argument("store", type=FOLDER)
@FORMAT
@click.pass_obj
def check(host: PluginHost, /, store: Path, suffix: str | None) -> None:
    """List damaged, missing and unexpected files of a store.

    The command reads every file and changes nothing. The exit status is 1 if a file is damaged or missing.
    """
    from harness.store.check import findings_table

    table = findings_table(store)
    print_tables([table], host, suffix=suffix, every_row=True)
    if any(kind in {"damaged", "missing"} for kind, *_ in table.rows):
        sys.exit(1)


@main.command("fit")
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
@click.option("--pool", is_flag=True, help="Fit all families together instead of separately.")
@click.option(
    "--option", "law_options", multiple=True, metavar="NAME=VALUE", help="Option of the law (harness ls laws)."
)
@click.option(
    "--objective",
    help="Objective: least_squares, huber, log_least_squares, log_huber, log1p_least_squares, loglog_least_squares, "
    "or binomial (counted successes: columns trials and successes). Default: the law's.",
)
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
def fit(host: PluginHost, /, points: Path, back_test: bool, as_json: bool, output: Path | None, **asked: Any) -> None:
    """Fit a law to points and predict the held-out points.

    POINTS is a store, or a CSV or Parquet table with one row per checkpoint. Every family is fitted separately.
    """
    from harness.fitting.fit import fit_file
    from harness.fitting.result import check_output, save_fits

    asked["law_options"] = _options(asked["law_options"])
    if back_test:
        print_tables(_back_test(host, points, asked), host, suffix="json" if as_json else None, output=output)
        return
    if asked["law"] is None:
        raise UsageError(f"name a law with --law (one of {', '.join(host.laws)}), or rank all of them with --back-test")
    if output:
        check_output(output)
    begun = time.perf_counter()
    fits, errors = fit_file(points, registries=host, **asked)
    seconds = time.perf_counter() - begun
    if output and fits:
        save_fits(fits, output)
    _print_fits(fits, seconds if as_json else None)
    for error in errors:
        click.echo(f"harness: {error}", err=True)
    if errors:
        raise Exit(1)


def _back_test(host: PluginHost, points: Path, asked: dict[str, Any]) -> list[Table]:
    from harness.reports.back_test import back_test_file

    given = [name for name in ("hold_out", "pool") if asked.pop(name)]
    if given:
        raise UsageError(f"--back-test holds out every size in turn; leave out --{given[0].replace('_', '-')}")
    laws = [name for name in (asked.pop("law") or "").split(",") if name]
    found = back_test_file(points, laws=laws, registries=host, **asked)
    return [found.summary(), found.details()]


def _print_fits(fits: list[LawFit], seconds: float | None) -> None:
    """Print fits as a person reads them; with the seconds that all of them took, as JSON."""
    if seconds is not None:
        tables = [{**found.to_json(), "seconds": round(seconds, 3)} for found in fits]
        for table in tables:
            for step in table["steps"]:
                del step["draws"]
        click.echo(json.dumps(tables, indent=1, allow_nan=False))
        return
    if fits:
        print_text("\n\n".join(map(str, fits)))


@main.command("predict")
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
def predict(host: PluginHost, /, fits: Path, optimal: bool, suffix: str | None, **features: Any) -> None:
    """Predict with laws that harness fit -o saved."""
    from harness.fitting.allocations import allocation_table
    from harness.fitting.result import load_fits
    from harness.fitting.summary import prediction_table

    given = {name: features[name] for name in ("params", "tokens", "flops") if features[name] is not None}
    if optimal:
        if set(given) != {"flops"}:
            raise UsageError("--optimal splits a budget: give --flops, and neither --params nor --tokens")
        table = allocation_table(load_fits(fits, host), given["flops"], _features(features["at"]))
        print_tables([table], host, suffix=suffix)
        return
    given |= _features(features["at"])
    print_tables([prediction_table(load_fits(fits, host), given)], host, suffix=suffix)


@main.command("compare")
@click.argument("store", metavar="POINTS", type=click.Path(path_type=Path))
@click.option(
    "--law",
    "laws",
    multiple=True,
    default=("two_step", "sigmoid"),
    show_default=True,
    help="Laws that predict the held-out points.",
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
    host: PluginHost, /, store: Path, suffix: str | None, output: Path | None, expect: Path | None, **asked: Any
) -> None:
    """Compare families: scores, predictions and measurements, compute to reach a score.

    POINTS is a store, or a CSV or Parquet table as harness import reads it.
    """
    from harness.reports.compare import compare as run
    from harness.tables import noted

    asked["metrics"] = _options(asked["metrics"])
    asked["laws"] = [name for names in asked["laws"] for name in names.split(",")]
    source = open_source(store, host, asked)
    tables = noted(run(source.store, where=source.where, **asked), source.notes)
    print_tables(tables, host, suffix=suffix, output=output)
    if expect:
        _expect(tables, expect)


@main.command("diff")
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
    host: PluginHost, /, n: int, fail_above: float | None, suffix: str | None, output: Path | None, **asked: Any
) -> None:
    """Compare the log-probabilities of two stores and list the documents whose answer changes.

    A and B are stores, or one store twice: expressions then choose what is compared, by the columns engine, dtype,
    quantisation, bos, max_length, truncation, settings, family, size, step, task ... Cells are paired where checkpoint
    and prompts are the same to the byte.
    """
    from harness.reports.diff import diff as run

    found = run(registries=host, **asked)
    tables = found.tables(n)
    print_tables(tables, host, suffix=suffix, output=output)
    if fail_above is not None and found.largest > fail_above:
        raise HarnessError(f"a log-probability differs by {found.largest:.4g} nats, more than {fail_above:g}")


def _expect(tables: list[Table], folder: Path) -> None:
    from harness.tables import differences, read_csv

    found = [line for table in tables for line in differences(table, read_csv(folder / f"{table.name}.csv"))]
    for line in found:
        click.echo(f"differs: {line}", err=True)
    if found:
        raise HarnessError(f"{len(found)} cells differ from those in {folder}")
    click.echo(f"All cells equal those in {folder}.")


@main.command("ls")
@click.argument("kind", type=click.Choice(KINDS), metavar="KIND")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@wide_option
@click.pass_obj
def ls(host: PluginHost, /, kind: str, as_json: bool) -> None:
    """List the available objects of a KIND.

    KIND is families, tasks, laws, metrics, checkers, engines, samplers, sources, executors, reporters (formats of
    tables), panels (figures of the report) or forecasters.
    """
    from harness.reports.listings import listing

    table = listing(kind, host)
    if as_json:
        columns, rows = table.flat()
        click.echo(json.dumps([dict(zip(columns, row, strict=True)) for row in rows], indent=1))
        return
    print_tables([table], host, every_row=True)


@main.command("show")
@click.argument("task")
@click.option("--n", default=3, show_default=True, type=click.IntRange(min=1), help="Number of documents to show.")
@click.option("--data", type=FOLDER, help="Folder with documents that do not ship with their tasks.")
@click.pass_obj
def show(host: PluginHost, /, task: str, n: int, data: Path | None) -> None:
    """Print the exact prompts of a task, with the boundary between context and continuation."""
    from harness.reports.listings import prompts
    from harness.tasks.loading import find_task

    click.echo(prompts(find_task(task, host, data), n))


@main.command("plugins")
@click.argument("names", nargs=-1, metavar="[PLUGIN]...")
@click.option("--check", "is_checked", is_flag=True, help="Run the conformance checks on what the plugins register.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@wide_option
@click.pass_context
def plugins(ctx: click.Context, /, names: tuple[str, ...], is_checked: bool, as_json: bool) -> None:
    """List plugins with distribution, version, hooks, load time, and the reason if one does not load.

    With --check, every object of the named plugins (default: all plugins) is checked as `harness.testing` does, and
    the exit status is 1 if a check fails.
    """
    from dataclasses import asdict

    from harness.reports.listings import plugin_table

    host: PluginHost = ctx.obj
    if is_checked:
        host.check()
        _check_plugins(host, names, as_json)
        return
    as_json = as_json or "md" not in host.reporters  # which a broken plugin may have taken away
    infos = [info for info in host.plugins() if not names or info.name in names]
    if as_json:
        click.echo(json.dumps([asdict(info) for info in infos], indent=1))
    else:
        print_tables([plugin_table(host, names)], host, every_row=True)
    if host.errors:
        raise Exit(1)


def _check_plugins(host: PluginHost, names: tuple[str, ...], as_json: bool) -> None:
    from dataclasses import asdict

    from harness.testing.plugins import check_plugins, check_table

    results = []
    for checked in check_plugins(host, names, commands=main):
        click.echo(f"{checked.kind} {checked.name}: {checked.result}", err=True)
        results.append(checked)
    if as_json:
        click.echo(json.dumps([asdict(checked) for checked in results], indent=1))
    else:
        print_tables([check_table(results)], host, every_row=True)
    if any(checked.failures for checked in results):
        raise Exit(1)
