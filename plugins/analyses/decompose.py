"""harness decompose: where accuracy loses its relation to scale, and accuracy predicted from laws of every choice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import harness
from harness import HarnessError, LawError, Measured, Range, Table
from harness.tables import noted
from harness_plugins.analyses.chains import Loss, by_chance, correlations, predictability_lost
from harness_plugins.analyses.choices import Joint, predict_accuracy
from harness_plugins.analyses.items import FEWEST, Items, open_source, over_documents, read_items

if TYPE_CHECKING:
    import click
    import pandas as pd

    from harness import LawFit, PointStore

QUANTILES = (0.1, 0.5, 0.9)


def decompose(
    source: PointStore | pd.DataFrame,
    *,
    correlation: str = "spearman",
    level: float = 0.9,
    bootstrap: int = 1000,
    **chosen: Any,
) -> list[Table]:
    """Return tables of the way from log-probability to accuracy (Schaeffer et al. 2024), for every task and family.

    :param source: a store, or a table of items (see `read_items`, which also documents task, family, where and scale).
    :param correlation: pearson, spearman or kendall: the one that says where predictability is lost.
    :param level: of all intervals. They are over documents, for the checkpoints there are, except those of predictions.

    The tables: `steps` (correlations with log scale at each step), `lost` (the step at which they fall most) and, from
    a store, `joint` (accuracy of the largest size from laws of all choices, against its measurement and a sigmoid).
    """
    every = list(read_items(source, **chosen))
    notes = [f"{i.task}, {i.family}: {len(i.x)} checkpoints; {FEWEST} are needed" for i in every if len(i.x) < FEWEST]
    notes += [
        f"{i.task}, {i.family}: {i.left_out} of {i.left_out + len(i.groups)} documents have no value at some "
        "checkpoint, and are left out"
        for i in every
        if i.left_out
    ]
    kept = [items for items in every if len(items.x) >= FEWEST]
    tables = [_steps(kept, level), _lost(kept, correlation, level, notes)]
    if not isinstance(source, harness.PointStore):
        return tables
    return [*tables, _joint(source, kept, level=level, bootstrap=bootstrap)]


def _steps(every: Sequence[Items], level: float) -> Table:
    rows = []
    for items in every:
        for step in correlations(items):
            means = [over_documents(rho, items.groups, level) for rho in step.rho.values()]
            quantiles = [float(q) for q in np.quantile(step.rho["spearman"], QUANTILES)]
            strong = over_documents(step.strong(), items.groups, level)
            rows.append((items.task, items.family, step.name, *means, *quantiles, strong, step.constant))
    names = ("pearson", "spearman", "kendall", *(f"spearman {q:.0%}" for q in QUANTILES))
    about = (
        f"Correlation of each document's value with log scale: mean over documents with a {level:.0%} interval, and "
        "quantiles; of -brier, so that up is better in every step. Intervals are over documents; the checkpoints are "
        "those there are, and all documents share them."
    )
    constant = "constant: documents with the same value at all checkpoints, which count as 0 here."
    notes = (about, constant)
    columns = ("task", "family", "step", *names, "|spearman| > 0.75", "constant")
    return Table("steps", "From log-probability to accuracy: correlation with scale", columns, tuple(rows), notes)


def _lost(every: Sequence[Items], correlation: str, level: float, notes: Sequence[str]) -> Table:
    found = [(items, predictability_lost(items, correlation=correlation, level=level)) for items in every]
    steps = list(dict.fromkeys(name for _, loss in found for name in loss.falls))
    rows = [
        (
            *(items.task, items.family, len(items.x), items.groups.size, _first(loss)),
            *(loss.falls.get(name) for name in steps),
            *(_said(loss), f"{loss.agree} of {loss.ladders}"),
        )
        for items, loss in found
    ]
    about = (
        f"first: the mean over documents of |rho| ({correlation}) at the first step, as a share of the largest that "
        "the same values would have in any order; then how far it falls on the way to each step (below 0 it rises). "
        "Documents whose value is the same everywhere have none, and are left out there."
    )
    intervals = (
        f"{level:.0%} intervals are over documents, and hold for all steps of a row together (Bonferroni). lost at: "
        "the step of the largest fall, where its interval lies above 0; steps that documents cannot tell from it are "
        "named too. without one run: how many ladders that lack one training run say the same."
    )
    chance = sorted({(len(items.x), by_chance(items.x)[0]) for items in every})
    chances = "By chance |rho| (spearman) has the mean " + ", ".join(f"{p:.2f} at {m} checkpoints" for m, p in chance)
    columns = ("task", "family", "checkpoints", "documents", "first", *steps, "lost at", "without one run")
    said = (about, intervals, f"{chances}.", *notes)
    return Table("lost", "Where the relation to scale is lost", columns, tuple(rows), said)


def _first(loss: Loss) -> float:
    first: float = next(iter(loss.kept.values()))
    return first


def _said(loss: Loss) -> str:
    return " or ".join(loss.at) or "nowhere"


def _joint(store: PointStore, every: Sequence[Items], *, level: float, bootstrap: int) -> Table:
    rows: list[tuple[Any, ...]] = []
    errors: list[list[float]] = []
    notes: list[str] = []
    for items in every:
        try:
            joint = predict_accuracy(items, level=level, bootstrap=bootstrap)
        except HarnessError as error:
            notes.append(f"{items.task}, {items.family}: {error}")
            continue
        sigmoid = _sigmoid(store, items, joint, level=level, bootstrap=bootstrap)
        rows.append(_compared(items, joint, sigmoid))
        if sigmoid:
            values = (joint.predicted.value, joint.gold_only, sigmoid.value, joint.last)
            errors.append([abs(value - joint.measured) for value in values])
    about = (
        "Accuracy of the largest size at its last step, predicted without that size. joint: a power law of -ln p for "
        "every choice; gold only: for the right one, while wrong ones stay as the largest size fitted has them; "
        "sigmoid: harness fit; last: as the largest size fitted."
    )
    columns = ("task", "family", "target", "measured", *WAYS, "inside")
    said = (about, *_errors(rows, errors, level), *notes)
    return Table("joint", "Accuracy of the largest size from laws of all choices", columns, tuple(rows), said)


WAYS = ("joint", "gold only", "sigmoid", "last")


def _errors(rows: Sequence[tuple[Any, ...]], errors: Sequence[Sequence[float]], level: float) -> list[str]:
    """Say how many intervals hold, and how far each way lies off on average."""
    if not errors:
        return []
    means = ", ".join(f"{name} {mean:.3f}" for name, mean in zip(WAYS, np.mean(errors, axis=0), strict=True))
    inside = f"{sum(row[-1] for row in rows)} of {len(rows)} measured lie within the {level:.0%} interval of joint."
    return [f"{inside} Mean absolute error where all four predict ({len(errors)}): {means}."]


def _compared(items: Items, joint: Joint, sigmoid: Range | None) -> tuple[Any, ...]:
    point, n = items.points.iloc[joint.target], len(items.groups)
    error = float(np.sqrt(joint.measured * (1 - joint.measured) / max(n - 1, 1)))
    return (
        items.task,
        items.family,
        f"{point['size']}@{point['step']}",
        Measured(joint.measured, error),
        joint.predicted,
        joint.gold_only,
        sigmoid,
        joint.last,
        joint.inside,
    )


def _sigmoid(store: PointStore, items: Items, joint: Joint, *, level: float, bootstrap: int) -> Range | None:
    """Predict the same checkpoint with the plain law of accuracy; None where it cannot be fitted."""
    points = store.points(items.task, items.family, metrics=["acc"])
    keys = ["checkpoint", "fingerprint", "settings"]
    points = points.merge(items.points[keys], on=keys)
    try:
        found: LawFit = harness.fit(
            points, "sigmoid", value="acc", hold_out="largest", store=store, registries=store.registries,
            level=level, bootstrap=bootstrap,
        )  # fmt: skip
    except LawError:
        return None
    own = found.predict(items.points.iloc[[joint.target]]).iloc[0]
    return Range(float(own["value"]), float(own["low"]), float(own["high"]))


@harness.hookimpl
def register_commands(cli: click.Group) -> None:
    """Add harness decompose."""
    import click

    from harness import row_options
    from harness_plugins.analyses.shapes import CORRELATIONS

    @cli.command("decompose")
    @click.argument("source", type=click.Path(path_type=Path))
    @click.option("--task", help="Task to analyse (default: all).")
    @click.option("--family", help="Family to analyse (default: all).")
    @click.option("--where", help="Expression that selects checkpoints.")
    @click.option("--scale", default="flops", show_default=True, help="Column with the scale of a checkpoint.")
    @click.option(
        "--correlation",
        default="spearman",
        show_default=True,
        type=click.Choice(list(CORRELATIONS)),
        help="Correlation used to find the step.",
    )
    @row_options
    @harness.interval_options
    @harness.table_options
    @click.pass_obj
    def command(
        host: harness.PluginHost, /, source: Path, run: str | None, drop_duplicates: bool, suffix: str | None,
        output: Path | None, **asked: Any,
    ) -> None:  # fmt: skip
        """Find the step from log-probability to accuracy at which correlation with scale drops, and predict accuracy
        from a law for every choice.

        SOURCE is a store, or a CSV or Parquet table with one row per checkpoint and document (doc_id, the scale, and
        any of logp_gold, p_vocab, p_choices, brier, acc).
        """
        opened, notes = open_source(source, host, run=run, drop_duplicates=drop_duplicates)
        harness.print_tables(noted(decompose(opened, **asked), notes), host, suffix=suffix, output=output)
