"""The command decompose: correlation with scale from log-probability to accuracy, and laws of every choice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import harness
from harness import HarnessError, LawError, Measured, Range, Table
from harness.tables import noted
from harness_plugins.analyses.choice_laws import JointPrediction, predict_accuracy
from harness_plugins.analyses.document_scores import (
    FEWEST,
    DocumentScores,
    open_source,
    over_documents,
    read_document_scores,
)
from harness_plugins.analyses.predictability import (
    PredictabilityLoss,
    correlation_by_chance,
    correlations,
    predictability_lost,
)

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
    """Return tables of the steps from log-probability to accuracy (Schaeffer et al. 2024), for every task and family.

    :param source: a store, or a table of documents; see `read_document_scores` for it and task, family, where, scale.
    :param correlation: pearson, spearman or kendall, used to find the step at which predictability is lost.
    :param level: coverage of all intervals. They are over documents, for fixed checkpoints, except for predictions.

    The tables: `steps` (correlations with log scale at each step), `lost` (the step with the largest decrease) and, for
    a store, `joint` (accuracy of the largest size predicted from laws of all choices, compared with its measurement
    and a sigmoid).
    """
    every = list(read_document_scores(source, **chosen))
    notes = [
        f"{i.task}, {i.family}: {len(i.x)} checkpoints; expected {FEWEST} or more" for i in every if len(i.x) < FEWEST
    ]
    notes += [
        f"{i.task}, {i.family}: {i.left_out} of {i.left_out + len(i.groups)} documents lack a value at some "
        "checkpoint and are excluded"
        for i in every
        if i.left_out
    ]
    usable = [documents for documents in every if len(documents.x) >= FEWEST]
    tables = [_steps(usable, level), _lost(usable, correlation, level, notes)]
    if not isinstance(source, harness.PointStore):
        return tables
    return [*tables, _joint(source, usable, level=level, bootstrap=bootstrap)]


def _steps(every: Sequence[DocumentScores], level: float) -> Table:
    rows = []
    for documents in every:
        for step in correlations(documents):
            means = [over_documents(rho, documents.groups, level) for rho in step.rho.values()]
            quantiles = [float(q) for q in np.quantile(step.rho["spearman"], QUANTILES)]
            strong = over_documents(step.strong(), documents.groups, level)
            rows.append((documents.task, documents.family, step.name, *means, *quantiles, strong, step.constant))
    names = ("pearson", "spearman", "kendall", *(f"spearman {q:.0%}" for q in QUANTILES))
    about = (
        f"Correlation of each document's value with log scale: mean over documents with a {level:.0%} interval, and "
        "quantiles. Brier scores are negated, so that higher is better at every step. Intervals are over documents. "
        "They do not include the sampling of checkpoints, which all documents share."
    )
    constant = "constant: share of documents with the same value at all checkpoints, whose correlation counts as 0."
    notes = (about, constant)
    columns = ("task", "family", "step", *names, "|spearman| > 0.75", "constant")
    return Table("steps", "From log-probability to accuracy: correlation with scale", columns, tuple(rows), notes)


def _lost(every: Sequence[DocumentScores], correlation: str, level: float, notes: Sequence[str]) -> Table:
    losses = [(documents, predictability_lost(documents, correlation=correlation, level=level)) for documents in every]
    steps = list(dict.fromkeys(name for _, loss in losses for name in loss.falls))
    rows = [
        (
            *(documents.task, documents.family, len(documents.x), documents.groups.size, _first(loss)),
            *(loss.falls.get(name) for name in steps),
            *(_steps_lost(loss), f"{loss.agree} of {loss.ladders}"),
        )
        for documents, loss in losses
    ]
    about = (
        f"first: mean over documents of |rho| ({correlation}) at the first step, divided by the largest |rho| that the "
        "same values can have in any order. Columns of steps: decrease of that mean at each step (negative: increase). "
        "Documents with a constant value are excluded from the step."
    )
    intervals = (
        f"{level:.0%} intervals are over documents and simultaneous for all steps of a row (Bonferroni). lost at: the "
        "step of the largest decrease, if its interval is above 0, and steps that do not differ significantly from it. "
        "without one run: number of ladders without one training run that give the same steps."
    )
    chance = sorted({(len(documents.x), correlation_by_chance(documents.x)[0]) for documents in every})
    chances = "The mean |rho| (spearman) by chance is " + ", ".join(f"{p:.2f} at {m} checkpoints" for m, p in chance)
    columns = ("task", "family", "checkpoints", "documents", "first", *steps, "lost at", "without one run")
    all_notes = (about, intervals, f"{chances}.", *notes)
    return Table("lost", "Step at which correlation with scale is lost", columns, tuple(rows), all_notes)


def _first(loss: PredictabilityLoss) -> float:
    first: float = next(iter(loss.relative.values()))
    return first


def _steps_lost(loss: PredictabilityLoss) -> str:
    return " or ".join(loss.at) or "nowhere"


def _joint(store: PointStore, every: Sequence[DocumentScores], *, level: float, bootstrap: int) -> Table:
    rows: list[tuple[Any, ...]] = []
    errors: list[list[float]] = []
    notes: list[str] = []
    for documents in every:
        try:
            joint = predict_accuracy(documents, level=level, bootstrap=bootstrap)
        except HarnessError as error:
            notes.append(f"{documents.task}, {documents.family}: {error}")
            continue
        sigmoid = _sigmoid(store, documents, joint, level=level, bootstrap=bootstrap)
        rows.append(_compared(documents, joint, sigmoid))
        if sigmoid:
            values = (joint.predicted.value, joint.gold_only, sigmoid.value, joint.last)
            errors.append([abs(value - joint.measured) for value in values])
    about = (
        "Accuracy of the largest size at its last step, predicted without that size. joint: a power law of -ln p for "
        "every choice. gold only: for the correct choice, with the wrong ones as at the largest size fitted. sigmoid: "
        "harness fit. last: accuracy of the largest size fitted."
    )
    columns = ("task", "family", "target", "measured", *METHODS, "inside")
    all_notes = (about, *_errors(rows, errors, level), *notes)
    return Table("joint", "Accuracy of the largest size from laws of all choices", columns, tuple(rows), all_notes)


METHODS = ("joint", "gold only", "sigmoid", "last")


def _errors(rows: Sequence[tuple[Any, ...]], errors: Sequence[Sequence[float]], level: float) -> list[str]:
    """Return a note on the coverage of intervals and the mean absolute error of each method."""
    if not errors:
        return []
    means = ", ".join(f"{name} {mean:.3f}" for name, mean in zip(METHODS, np.mean(errors, axis=0), strict=True))
    inside = f"{sum(row[-1] for row in rows)} of {len(rows)} {level:.0%} intervals of joint cover the measurement."
    return [f"{inside} Mean absolute error of the rows with all four predictions ({len(errors)}): {means}."]


def _compared(documents: DocumentScores, joint: JointPrediction, sigmoid: Range | None) -> tuple[Any, ...]:
    point, n = documents.points.iloc[joint.target], len(documents.groups)
    error = float(np.sqrt(joint.measured * (1 - joint.measured) / max(n - 1, 1)))
    return (
        documents.task,
        documents.family,
        f"{point['size']}@{point['step']}",
        Measured(joint.measured, error),
        joint.predicted,
        joint.gold_only,
        sigmoid,
        joint.last,
        joint.inside,
    )


def _sigmoid(
    store: PointStore, documents: DocumentScores, joint: JointPrediction, *, level: float, bootstrap: int
) -> Range | None:
    """Predict the same checkpoint with a sigmoid law of accuracy; None if it cannot be fitted."""
    points = store.points(documents.task, documents.family, metrics=["acc"])
    keys = ["checkpoint", "fingerprint", "settings"]
    points = points.merge(documents.points[keys], on=keys)
    try:
        fit: LawFit = harness.fit(
            points, "sigmoid", value="acc", hold_out="largest", store=store, registries=store.registries,
            level=level, bootstrap=bootstrap,
        )  # fmt: skip
    except LawError:
        return None
    forecast = fit.predict(documents.points.iloc[[joint.target]]).iloc[0]
    return Range(float(forecast["value"]), float(forecast["low"]), float(forecast["high"]))


@harness.hookimpl
def register_commands(cli: click.Group) -> None:
    """Add harness decompose."""
    import click

    from harness import point_options
    from harness_plugins.analyses.correlations import CORRELATIONS

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
    @point_options
    @harness.interval_options
    @harness.table_options
    @click.pass_obj
    def command(
        host: harness.PluginHost, /, source: Path, suffix: str | None, output: Path | None, **asked: Any,
    ) -> None:  # fmt: skip
        """Find the step from log-probability to accuracy at which correlation with scale drops, and predict accuracy
        from a law for every choice.

        SOURCE is a store, or a CSV or Parquet table with one row per checkpoint and document (doc_id, the scale, and
        any of logp_gold, p_vocab, p_choices, brier, acc).
        """
        how = {name: asked.pop(name) for name in ("renames", "label", "run", "drop_duplicates")}
        opened, notes = open_source(source, host, **how)
        harness.print_tables(noted(decompose(opened, **asked), notes), host, suffix=suffix, output=output)
