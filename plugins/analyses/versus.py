"""harness versus: compare two checkpoints on the same documents, task by task, with p-values corrected over tasks.

Imported points have no documents. They are compared by their standard errors, as if documents were independent; that is
conservative for the same documents, whose errors are alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import harness
from harness import Table, UsageError
from harness.errors import choose, suggest
from harness_plugins.analyses.checkpoint_tests import Duel, compared
from harness_plugins.analyses.multiple_tests import CORRECTIONS

if TYPE_CHECKING:
    import click
    import pandas as pd

    from harness import PointStore

SMALLEST = 1e-9  # smaller p-values are shown as below this
EXPRESSION = frozenset("=<>'\"")  # characters that mark an expression; names of checkpoints do not contain them


def versus(
    store: PointStore,
    a: str,
    b: str,
    *,
    task: str | None = None,
    where: str | None = None,
    level: float = 0.95,
    correction: str = "holm",
) -> Table:
    """Return one row per task that both checkpoints have scored: the paired difference and its test.

    :param store: a store, or a table that answers as one does (`harness.points.open_points`).
    :param a: a checkpoint: FAMILY:SIZE (its last step), FAMILY:SIZE@STEP, a label, or an expression over columns; `b`
        likewise.
    :param where: an expression that selects checkpoints first.
    :param correction: holm (family-wise) or bh (false discovery rate), over tasks.

    Accuracies are tested with McNemar's exact test on the documents on which the two differ. Other metrics, and tasks
    with clustered documents, are tested with Student's t of the paired difference, imported points by their standard
    errors. Raises UsageError if a name selects no checkpoint or several, and if the checkpoints share no task.
    """
    frame = _candidates(store, task, where)
    first, second = (_chosen(frame, name, side) for name, side in ((a, "A"), (b, "B")))
    shared = [key for key in first if key in second]
    if not shared:
        raise UsageError(f"{a} and {b} share no task; A has {choose(_tasks(first))}, B has {choose(_tasks(second))}")
    comparisons = (compared(store, first[key], second[key]) for key in shared)
    duels = sorted((duel for duel in comparisons if duel), key=lambda duel: duel.task)
    if not duels:
        raise UsageError(f"{a} and {b} share no task whose metric has a value for each document")
    return _table(duels, (a, b), level, correction)


def _tasks(rows: dict[str, Any]) -> set[str]:
    return {str(row["task"]) for row in rows.values()}


def _candidates(store: PointStore, task: str | None, where: str | None) -> pd.DataFrame:
    """Return one row per checkpoint and task: cells with documents (column cell), and imported points of shown metrics.

    Rows with the same `fingerprint` are compared: the one of a task's prompts, or the task and metric of points.
    """
    import pandas as pd

    from harness.points import checkpoint_columns, label, query

    cells = [cell for cell in store.selected(task) if not store.is_sampled(cell.id)]
    rows = [{**checkpoint_columns(cell), "label": cell.checkpoint.label, "cell": cell} for cell in cells]
    metrics = store.tasks(task)
    points = (
        store.points(task, metrics=sorted(set(metrics.values()))) if not store.without_cells.empty else pd.DataFrame()
    )
    if len(points):
        points = points[points["checkpoint"].isna() & (points["metric"] == points["task"].map(metrics))]
        keys = points["task"].astype(str) + ", " + points["metric"].astype(str)
        named = [label(row) for _, row in points.iterrows()]
        points = points.assign(label=named, fingerprint=keys, cell=None)
    frame = pd.concat([pd.DataFrame(rows), points], ignore_index=True) if rows else points.reset_index(drop=True)
    selected = query(frame, where)
    if selected.empty:
        reason = f"{where!r} selects 0 of {len(frame)} checkpoints and tasks" if where else "no checkpoint has a score"
        raise UsageError(reason)
    return selected


def _chosen(frame: pd.DataFrame, name: str, side: str) -> dict[str, Any]:
    """Return the rows of one checkpoint by the fingerprint of their task."""
    from harness.points import query

    plain = frame.drop(columns="cell")
    selected = query(plain, name) if EXPRESSION & set(name) else _named(plain, name)
    labels = set(selected["label"])
    if not labels:
        raise UsageError(f"{side}: {name} selects no checkpoint; {suggest(name, _names(frame))}")
    if len(labels) > 1:
        raise UsageError(f"{side}: {name} selects {choose(labels)}; name one of them")
    twice = selected[selected.duplicated("fingerprint")]
    if len(twice):
        raise UsageError(
            f"{side}: {name} has {twice['task'].iloc[0]} more than once; choose by an expression over engine, dtype or "
            "settings"
        )
    return {str(row["fingerprint"]): row for _, row in frame.loc[selected.index].iterrows()}


def _names(frame: pd.DataFrame) -> set[str]:
    """Return the names of checkpoints without their steps."""
    return set(frame["label"].str.split("@").str[0]) | set(_sized(frame))


def _sized(frame: pd.DataFrame) -> pd.Series[str]:
    """Return FAMILY:SIZE of every row, which is not the label where a table names its models."""
    return frame["family"].astype(str) + ":" + frame["size"].astype(str)


def _named(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the rows of a label or FAMILY:SIZE; without a step, those of the last step."""
    from harness.points import ends

    sized, step = _sized(frame), frame["step"].map(lambda step: f"@{step:.0f}")
    for names in (frame["label"], sized + step):
        if (names == name).any():
            return frame[names == name]
    for names in (frame["label"].str.split("@").str[0], sized):
        last = frame[names == name]
        if len(last):
            return last[ends(last, "task")]
    return frame.iloc[:0]


def _table(duels: Sequence[Duel], names: tuple[str, str], level: float, correction: str) -> Table:
    p_values = np.array([duel.p for duel in duels])
    known = np.isfinite(p_values)
    adjusted = np.full(len(duels), np.nan)
    adjusted[known] = CORRECTIONS[correction](p_values[known]) if known.any() else np.nan
    rows = tuple(_row(duel, float(p), 1 - level) for duel, p in zip(duels, adjusted, strict=True))
    without = all(duel.test == "z" for duel in duels)
    about = f"A is {names[0]}, B is {names[1]}" + (
        ". B - A ± standard error."
        if without
        else ", on the same documents. B - A ± standard error of paired documents. only A, only B: documents that only "
        "one of them has right."
    )
    n_better = sum(str(row[-1]).endswith("better") for row in rows)
    tests = (
        f"p corrected over {int(known.sum())} tasks ({correction}): {n_better} differ at {1 - level:.0%}. McNemar: "
        "exact test of documents that only one has right; t: Student's t of the paired difference (other metrics, "
        "groups, clusters)."
    )
    z = "z: imported points, whose documents are unknown, by their standard errors as if independent: conservative."
    notes = (about, tests, *([z] if any(duel.test == "z" for duel in duels) else []))
    columns = ("task", "metric", "A", "B", "B - A", "only A", "only B", "test", "p", "p corrected", "verdict")
    return Table("versus", "Two checkpoints, document by document", columns, rows, notes)


def _row(duel: Duel, p: float, alpha: float) -> tuple[Any, ...]:
    undecided = "not significant" if np.isfinite(p) else "error unknown"
    verdict = undecided if not p < alpha else "B better" if duel.is_b_better else "A better"
    wins = duel.wins or (None, None)
    return (
        duel.task,
        duel.metric,
        duel.a,
        duel.b,
        duel.difference,
        *wins,
        duel.test,
        _shown(duel.p),
        _shown(p),
        verdict,
    )


def _shown(p: float) -> float | str | None:
    return (p if np.isfinite(p) else None) if not p < SMALLEST else f"<{SMALLEST:g}"


@harness.hookimpl
def register_commands(cli: click.Group) -> None:
    """Add harness versus."""
    import click

    @cli.command("versus")
    @click.argument("points", type=click.Path(path_type=Path))
    @click.argument("a")
    @click.argument("b")
    @click.option("--task", help="Task to test (default: all).")
    @click.option(
        "--level",
        default=0.95,
        show_default=True,
        type=click.FloatRange(0.01, 0.999),
        help="Confidence level of the verdicts.",
    )
    @click.option(
        "--correction",
        default="holm",
        show_default=True,
        type=click.Choice(list(CORRECTIONS)),
        help="Correction for multiple tasks: holm (family-wise error rate) or bh (false discovery rate).",
    )
    @click.option("--where", metavar="EXPR", help="Expression that selects checkpoints before they are compared.")
    @harness.point_options
    @harness.table_options
    @click.pass_obj
    def command(
        host: harness.PluginHost, /, points: Path, a: str, b: str, suffix: str | None, output: Path | None, **asked: Any
    ) -> None:
        """Test whether two checkpoints differ, document by document, with a correction over tasks.

        POINTS is a store, or a CSV or Parquet table as harness import reads it. A and B are FAMILY:SIZE (its last
        step), FAMILY:SIZE@STEP, a name (--label), or an expression over columns of checkpoints, such as "family ==
        'aster' and size == 'w64l2' and step == 100".
        """
        from harness.points import open_asked
        from harness.tables import noted

        source = open_asked(points, asked, host)
        tables = noted([versus(source.store, a, b, where=source.where, **asked)], source.notes)
        harness.print_tables(tables, host, suffix=suffix, output=output)
