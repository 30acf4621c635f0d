"""harness predictability: for each task, the step that loses correlation with scale, the noise, and the best law."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import harness
from harness import HarnessError, LawError, Range, StoreError, Table, UsageError
from harness_plugins.analyses.curves import metrics_of
from harness_plugins.analyses.decide import late_runs
from harness_plugins.analyses.decisions import signal_to_noise
from harness_plugins.analyses.document_scores import FEWEST, read_document_scores
from harness_plugins.analyses.predictability import predictability_lost

if TYPE_CHECKING:
    import click
    import pandas as pd

    from harness import BackTest, PointStore

LAWS = ("last", "line", "sigmoid", "power", "two_step")  # default laws of the back-test
BASELINE = "last"


def predictability(
    store: PointStore,
    *,
    task: str | None = None,
    where: str | None = None,
    laws: Sequence[str] = (),
    late: int = 3,
    level: float = 0.9,
    bootstrap: int = 200,
) -> Table:
    """Return one row per task with the obstacles to predicting it from scale.

    :param laws: laws of the back-test (default: those of LAWS that can be fitted).
    :param late: number of last checkpoints per run used to measure the noise of a score.

    Raises UsageError if no task has choices or a metric.
    """
    options = {"level": level, "bootstrap": bootstrap}
    rows: list[tuple[Any, ...]] = []
    notes: list[str] = []
    for name, metric in sorted(metrics_of(store, task, None).items()):
        points = _points(store, name, metric, where)
        tested = list(_tested(store, points, metric, laws, notes, options))
        best = tested[0] if tested else (None, None, None)
        rows.append((name, metric, _lost(store, name, where, level), _noise(points, metric, late, level), *best))
    if not rows:
        raise UsageError(f"{store.path} has no task {task or ''} with a metric")
    columns = ("task", "metric", "lost at", "signal to noise", "best law", "inside", "error")
    title = "Predictability of each task from scale"
    return Table("predictability", title, columns, tuple(rows), (*_about(late, level), *notes))


def _about(late: int, level: float) -> tuple[str, str, str]:
    lost = (
        "lost at: the step from log-probability to accuracy at which documents lose most of their correlation with "
        "scale, and in how many families (harness decompose); - without documents."
    )
    noise = (
        "signal to noise: difference between the largest sizes of families, divided by the variation over the last "
        f"{late} checkpoints of a run, with a {level:.0%} interval (harness decide); ? without several checkpoints."
    )
    law = (
        "best law: lowest mean interval score when every size is predicted from the smaller ones (harness fit "
        f"--back-test). inside: number of its {level:.0%} intervals that covered the measurement. error: its mean "
        f"absolute error, and that of {BASELINE} (no change); a law that is no better than {BASELINE} is useless."
    )
    return lost, noise, law


def _points(store: PointStore, task: str, metric: str, where: str | None) -> pd.DataFrame:
    from harness.points import query, widen

    points = widen(store.points(task, metrics=sorted({metric, *({"logp_gold"} & store.metrics_of(task))})))
    return query(points, where).reset_index(drop=True)


def _lost(store: PointStore, task: str, where: str | None, level: float) -> str:
    """Return the step at which most families lose their correlation with scale."""
    try:
        every = [items for items in read_document_scores(store, task=task, where=where) if len(items.x) >= FEWEST]
    except (UsageError, StoreError):
        return "-"  # a task without choices, or imported without its documents
    steps = Counter(" or ".join(predictability_lost(items, level=level).at) or "nowhere" for items in every)
    return ", ".join(f"{step} ({count} of {len(every)})" for step, count in steps.most_common()) or "-"


def _noise(points: pd.DataFrame, metric: str, late: int, level: float) -> Range | None:
    from harness.points import ends, largest

    finals = points[ends(points) & largest(points)][metric].to_numpy(dtype=np.float64)
    runs = [run[metric].to_numpy(dtype=np.float64) for run in late_runs(points, late)]
    try:
        ratio: Range = signal_to_noise(finals, runs, level=level)
    except LawError:
        return None
    return ratio


def _tested(
    store: PointStore, points: pd.DataFrame, metric: str, laws: Sequence[str], notes: list[str], options: dict[str, Any]
) -> Iterator[tuple[str, str, str]]:
    """Yield the best law of a back-test, its coverage, and its error beside that of the baseline."""
    named = [*dict.fromkeys((*(laws or LAWS), BASELINE))]
    try:
        back_test: BackTest = harness.back_test(points, named, value=metric, registries=store.registries, **options)
    except HarnessError as error:
        notes.append(f"{points['task'].iloc[0]}: {error}")
        return
    rows = back_test.rows[back_test.rows["inside"].notna()]
    tests = rows.groupby("law")["target"].count()
    rows = rows[rows["law"].map(tests) == tests.max()]  # other laws may have failed on hard targets
    scores = rows.groupby("law")["interval_score"].mean().sort_values(kind="stable")
    errors = back_test.rows.groupby("law")["error"].agg(lambda errors: float(errors.abs().mean()))
    for law in scores.index[:1]:
        law_rows = rows[rows["law"] == law]
        covered = f"{int(law_rows['inside'].astype(bool).sum())} of {len(law_rows)}"
        yield str(law), covered, f"{errors[law]:.3g}; {BASELINE} {errors.get(BASELINE, np.nan):.3g}"


@harness.hookimpl
def register_commands(cli: click.Group) -> None:
    """Add harness predictability."""
    import click

    @cli.command("predictability")
    @click.argument("points", type=click.Path(path_type=Path))
    @click.option("--task", help="Task to analyse (default: all).")
    @click.option("--where", metavar="EXPR", help="Expression that selects points.")
    @click.option(
        "--law", "laws", multiple=True, help=f"Law of the back-test; repeatable (default: {', '.join(LAWS)})."
    )
    @click.option(
        "--late",
        default=3,
        show_default=True,
        type=click.IntRange(min=2),
        help="Number of last checkpoints per run used to measure the noise of a score.",
    )
    @harness.point_options
    @harness.interval_options
    @harness.table_options
    @click.pass_obj
    def command(
        host: harness.PluginHost, /, points: Path, suffix: str | None, output: Path | None, **asked: Any
    ) -> None:
        """Show for each task the step that loses correlation with scale, the signal to noise, and the best law.

        POINTS is a store, or a CSV or Parquet table as harness import reads it.
        """
        from harness.points import open_asked
        from harness.tables import noted

        source = open_asked(points, asked, host)
        tables = noted([predictability(source.store, where=source.where, **asked)], source.notes)
        harness.print_tables(tables, host, suffix=suffix, output=output)
