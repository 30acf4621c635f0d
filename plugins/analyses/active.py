"""The commands choose, estimate and subsets: estimate a task from few documents (Kossen et al. 2021, Active Testing).

The scores of small checkpoints determine which documents are selected. The LURE estimator removes the bias of that
selection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import harness
from harness import Range, Table, UsageError
from harness_plugins.analyses import selection
from harness_plugins.analyses.document_pools import best, is_mean, read_pools, strata_of, values_of
from harness_plugins.analyses.selection import METHODS, Selection
from harness_plugins.analyses.subset_errors import SIZES, measure_subsets

if TYPE_CHECKING:
    import click

    from harness import PointStore, Subset
    from harness_plugins.analyses.document_pools import Pool

UNIFORM = 0.2


def choose(
    store: PointStore,
    n: int,
    *,
    by: str = "loss",
    task: str | None = None,
    metric: str | None = None,
    where: str | None = None,
    rungs: int = 1,
    strata: str | None = None,
    uniform: float = UNIFORM,
    seed: int = 0,
) -> list[Subset]:
    """Select n documents of every task of a store, to be scored by a checkpoint that the store does not have yet.

    :param by: selection method: loss (in proportion to the predicted loss), disagreement (in proportion to the standard
        deviation of the loss over small checkpoints), random, or strata.
    :param where: an expression that selects the small checkpoints used.
    :param rungs: the number of largest sizes per family used, each with its last checkpoint.
    :param strata: group or an attribute of documents (default: quintiles of the predicted loss).
    :param uniform: the share of uniform selection, which bounds the weight of a document.

    Raises UsageError for an unknown method, for `strata` with another method, for a task with fewer documents, and for
    a metric that is not a mean over documents.
    """
    if by not in METHODS:
        raise UsageError(f"unknown selection method {by!r}; expected one of: {', '.join(METHODS)}")
    if strata is not None and by != "strata":
        raise UsageError(f"--strata {strata} needs --by strata; found --by {by}")
    pools = list(read_pools(store, task, metric))
    rng = np.random.default_rng(seed)
    subsets = []
    for pool in pools:
        if n > len(pool.doc_ids):
            raise UsageError(f"{pool.task} has {len(pool.doc_ids)} documents, fewer than --n {n}; lower --n")
        predicted = pool.predicted_losses(pool.largest(where, rungs))
        numbers, names = strata_of(store, pool, predicted, strata) if by == "strata" else (None, [])
        drawn = selection.select(predicted, by, n, strata=numbers, uniform=uniform, count=1, rng=rng)
        subsets.append(_subset(pool, drawn, names, by=by, seed=seed))
    return subsets


def _subset(pool: Pool, drawn: Selection, names: Sequence[str], *, by: str, seed: int) -> Subset:
    documents = drawn.documents[0]
    return harness.Subset(
        task=pool.task,
        fingerprint=pool.fingerprint,
        n_items=len(pool.doc_ids),
        by=by,
        metric=pool.metric,
        seed=seed,
        doc_ids=tuple(pool.doc_ids[i] for i in documents),
        q=tuple(map(float, drawn.q[0])),
        weights=tuple(map(float, pool.weights[documents])),
        strata=() if drawn.strata is None else tuple(names[i] for i in drawn.strata),
    )


def estimate(
    store: PointStore, subsets: Sequence[Subset], *, metric: str | None = None, level: float = 0.95
) -> list[Table]:
    """Estimate whole tasks from scored subsets: one row per subset and checkpoint.

    The row also has the value on the whole task if the store has it. Raises UsageError if no checkpoint has scored a
    subset, and for a metric that is not a mean over documents.
    """
    cells = store.cells()
    rows = [row for subset in subsets for row in _estimates(store, cells, subset, metric or subset.metric, level)]
    if not rows:
        names = ",".join(subset.task for subset in subsets)
        raise UsageError(
            f"no checkpoint in {store.path} has scored these subsets; run harness eval FAMILY --tasks {names} "
            f"--subset FILE -o {store.path}"
        )
    columns = ("task", "metric", "family", "size", "step", "by", "documents", "of", "estimate", "all", "off by")
    about = (
        f"estimate: unbiased estimate of the mean over all documents, with its {level:.0%} interval. all: the measured "
        "mean, if the store has it. Its own standard error (the documents are a sample, too) is not included."
    )
    rows.sort(key=lambda row: [str(value) for value in row[:8]])
    return [Table("estimates", "Whole tasks from subsets", columns, tuple(rows), (about,))]


def _estimates(store: PointStore, cells: Sequence[Any], subset: Subset, metric: str, level: float) -> list[Any]:
    rows, stored = [], {cell.id for cell in cells}
    for cell in cells:
        if cell.task != subset.name:
            continue
        scores = store.load_any(cell.id)
        if not is_mean(store, metric, scores):
            raise UsageError(f"{metric} of {subset.task} is not a mean over documents; a subset cannot estimate it")
        value = _estimate(store, subset, scores, metric=metric, level=level)
        whole = replace(cell.id, fingerprint=subset.fingerprint)
        measured = _measured(store, whole, metric) if whole in stored else None
        checkpoint = cell.checkpoint
        rows.append(
            (
                *(
                    subset.task,
                    metric,
                    checkpoint.family,
                    checkpoint.size,
                    checkpoint.step,
                    subset.by,
                    len(subset.q),
                    subset.n_items,
                ),
                *(value, measured, None if measured is None else value.value - measured),
            )
        )
    return rows


def _measured(store: PointStore, cell: Any, metric: str) -> float:
    from harness.points import evaluate

    average = store.task_meta[cell.fingerprint]["average"]
    return evaluate(store.registries.metrics[metric], store.load_any(cell), average).value


def _estimate(store: PointStore, subset: Subset, scores: Any, *, metric: str, level: float) -> Range:
    place = {str(doc): i for i, doc in enumerate(scores.doc_ids)}
    values = values_of(store, metric, scores)[[place[doc] for doc in subset.doc_ids]]
    rises = store.registries.metrics[metric].higher_is_better
    top = best(values, rises)
    losses = np.asarray(subset.weights) * (top - values if rises else values)
    interval = selection.estimate(losses[None], _selection(subset), subset.n_items, by=subset.by, level=level)
    value, low, high = (float(end[0]) for end in interval)
    return Range(top - value, top - high, top - low) if rises else Range(value, low, high)


def _selection(subset: Subset) -> Selection:
    """Return the selection of a subset; 1 / q of the first document of a stratum is the size of that stratum."""
    documents, q = np.arange(len(subset.q))[None], np.asarray(subset.q)[None]
    if not subset.strata:
        return Selection(documents, q)
    _, first, strata = np.unique(subset.strata, return_index=True, return_inverse=True)
    return Selection(documents, q, strata, np.rint(1 / q[0, first]).astype(np.int64))


@harness.hookimpl
def register_commands(cli: click.Group) -> None:
    """Add harness choose, estimate and subsets."""
    for add in (_add_choose, _add_estimate, _add_subsets):
        add(cli)


def _selection_options(command: Any) -> Any:
    """Add the argument STORE and the options of the selection of documents to a command."""
    import click

    options = (
        click.argument("store", type=click.Path(path_type=Path)),
        click.option("--task", help="Task whose documents are chosen (default: all)."),
        click.option("--metric", help="Metric to estimate, a mean over documents (default: the task's)."),
        click.option(
            "--where", metavar="EXPR", help="Expression that selects the checkpoints used to choose documents."
        ),
        click.option(
            "--rungs",
            default=1,
            show_default=True,
            type=click.IntRange(min=1),
            help="Number of largest sizes per family used to choose documents.",
        ),
        click.option(
            "--strata", metavar="COLUMN", help="Strata: group or an attribute (default: fifths of the predicted loss)."
        ),
        click.option(
            "--uniform",
            default=UNIFORM,
            show_default=True,
            type=click.FloatRange(0.01, 1),
            help="Share of uniform selection, which bounds the weight of a document.",
        ),
        click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Seed of the selection."),
    )
    return harness.add_options(command, options)


def _level(command: Any) -> Any:
    import click

    of = click.FloatRange(0.01, 0.999)
    return click.option("--level", default=0.95, show_default=True, type=of, help="Coverage level of the intervals.")(
        command
    )


def _add_choose(cli: click.Group) -> None:
    import click

    @cli.command("choose")
    @_selection_options
    @click.option("--n", required=True, type=click.IntRange(min=2), help="Number of documents to choose per task.")
    @click.option("--by", default="loss", show_default=True, type=click.Choice(METHODS), help="Selection method.")
    @click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="File of the subsets.")
    @click.pass_obj
    def command(host: harness.PluginHost, /, store: Path, n: int, output: Path, **options: Any) -> None:
        """Choose documents to run on a large checkpoint from the scores of small checkpoints in STORE."""
        subsets = choose(harness.open_store(store, registries=host), n, **options)
        harness.save_subsets(subsets, output)
        for subset in subsets:
            click.echo(f"{harness.printable(subset.name)}: {n} of {subset.n_items} documents", err=True)


def _add_estimate(cli: click.Group) -> None:
    import click

    @cli.command("estimate")
    @click.argument("store", type=click.Path(path_type=Path))
    @click.argument("subsets", type=click.Path(path_type=Path))
    @click.option("--metric", help="Metric to estimate, a mean over documents (default: that of harness choose).")
    @_level
    @harness.table_options
    @click.pass_obj
    def command(
        host: harness.PluginHost, /, store: Path, subsets: Path, suffix: str | None, output: Path | None, **options: Any
    ) -> None:
        """Estimate whole tasks from the SUBSETS (of harness choose) that checkpoints of STORE scored."""
        tables = estimate(harness.open_store(store, registries=host), harness.load_subsets(subsets), **options)
        harness.print_tables(tables, host, suffix=suffix, output=output)


def _add_subsets(cli: click.Group) -> None:
    import click

    @cli.command("subsets")
    @_selection_options
    @click.option(
        "--n",
        "sizes",
        multiple=True,
        type=click.IntRange(min=2),
        default=SIZES,
        show_default=True,
        help="Numbers of documents to choose.",
    )
    @click.option(
        "--target",
        metavar="EXPR",
        help="Expression that selects the checkpoints to estimate (default: the largest of each family).",
    )
    @click.option(
        "--draws",
        default=400,
        show_default=True,
        type=click.IntRange(min=10),
        help="Number of subsets per selection method and size.",
    )
    @_level
    @harness.table_options
    @click.pass_obj
    def command(
        host: harness.PluginHost, /, store: Path, suffix: str | None, output: Path | None, **options: Any
    ) -> None:
        """Measure the error of estimating a task from a subset, per selection method."""
        tables = measure_subsets(harness.open_store(store, registries=host), **options)
        harness.print_tables(tables, host, suffix=suffix, output=output)
