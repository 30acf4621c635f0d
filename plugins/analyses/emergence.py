"""Emergence: accuracy that is flat and then rises, compared with the underlying log-probabilities.

Accuracy counts a document only if its correct choice has the largest probability, so accuracy can be flat while the
probability of the correct choice rises (Schaeffer et al. 2023). This module measures which share of the total rise of a
continuous metric precedes the first significant rise of accuracy, and the smallest rise that the documents can detect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness import Floats, Range, Table
from harness_plugins.analyses.curves import REPLICATES, Curve
from harness_plugins.analyses.multiple_tests import CORRECTIONS

if TYPE_CHECKING:
    from harness import PointStore

CELL = ["checkpoint", "fingerprint", "settings"]
LINEAR = ("p_choices", "brier", "logp_gold")  # continuous metrics: two compare the choices, one does not


@dataclass(frozen=True)
class Emergence:
    """The first run with accuracy significantly above the smallest run, and the rise of other metrics before it.

    `turn` is the number of that run, or None. `resolution` is the smallest rise of accuracy that is detectable there.
    `before` has, per metric, the share of its total rise that precedes the turn. `p` is the p-value of no rise before
    the turn. Both are empty if the turn is the second run.
    """

    curve: Curve
    turn: int | None
    resolution: float
    before: dict[str, Range]
    p: dict[str, float]

    def verdict(self, p: dict[str, float], alpha: float) -> str:
        """Return the verdict, from p-values corrected for the number of tests."""
        if self.turn is None:
            return "no rise"
        if not self.before:
            return "rises at once"
        risen = [name for name in LINEAR if p.get(name, 1.0) < alpha]
        if {"p_choices", "brier"} & set(risen):
            return "hidden by accuracy"
        return "log-probability first" if risen else "nothing before"


def emergence(curve: Curve, draws: dict[str, Floats], values: dict[str, Floats], *, level: float = 0.9) -> Emergence:
    """Find the first significant rise of accuracy, and the rise of other metrics before it.

    :param curve: the accuracies (M,) of runs, ordered by scale.
    :param draws: each metric, including the curve's, in the same resamples of the documents (R, M); higher is better.
    :param values: each metric on all documents (M,).

    A rise is significant at `level`, one-sided, corrected for the number of runs (Bonferroni).
    """
    from scipy.stats import norm

    acc, drawn_acc, m = values[curve.metric], draws[curve.metric], len(curve.x)
    errors = (drawn_acc - drawn_acc[:, :1]).std(axis=0, ddof=1)
    needed = float(norm.isf((1 - level) / max(m - 1, 1))) * errors
    clear = np.flatnonzero((acc - acc[0] > needed) & (acc > acc[0]))
    turn = int(clear[0]) if len(clear) else None
    resolution = float(needed[turn or m - 1])
    if turn is None or turn < 2:
        return Emergence(curve, turn, resolution, {}, {})
    before, p = {}, {}
    for name in (name for name in LINEAR if name in draws):
        measured, drawn = values[name], draws[name]
        risen, error = measured[turn - 1] - measured[0], float((drawn[:, turn - 1] - drawn[:, 0]).std(ddof=1))
        p[name] = float(norm.sf(risen / error)) if error else float(risen <= 0)
        before[name] = _share(measured, drawn, turn, level)
    return Emergence(curve, turn, resolution, before, p)


def _share(measured: Floats, drawn: Floats, turn: int, level: float) -> Range:
    """Return the share of the total rise before the turn; NaN ends if the total rise is not positive in all draws."""
    whole = drawn[:, -1] - drawn[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        value = (measured[turn - 1] - measured[0]) / (measured[-1] - measured[0])
        shares = (drawn[:, turn - 1] - drawn[:, 0]) / whole
    low, high = np.quantile(shares, [(1 - level) / 2, (1 + level) / 2]) if (whole > 0).all() else (np.nan, np.nan)
    return Range(float(value), float(low), float(high))


def emergence_table(store: PointStore, curves: Sequence[Curve], *, level: float, correction: str) -> Table:
    """Return the table of all curves of an accuracy (acc, acc_char, acc_byte ...) in a store."""
    measured = [curve for curve in curves if curve.points["checkpoint"].notna().all()]
    accuracies = [curve for curve in measured if curve.metric.startswith("acc") and len(curve.x) > 2]
    rises = [_of_store(store, curve, level) for curve in accuracies]
    keys = [(i, name) for i, rise in enumerate(rises) for name in rise.p]
    corrected = CORRECTIONS[correction](np.array([rises[i].p[name] for i, name in keys]))
    p: list[dict[str, float]] = [{} for _ in rises]
    for (i, name), value in zip(keys, corrected, strict=True):
        p[i][name] = float(value)
    rows = tuple(_row(rise, p_values, 1 - level) for rise, p_values in zip(rises, p, strict=True))
    about = (
        "turn: the first size with accuracy significantly above that of the smallest. seen: the smallest rise that is "
        "detectable with this number of documents. Other columns: share of a metric's total rise before the turn, with "
        f"{level:.0%} intervals over documents."
    )
    verdicts = (
        f"hidden by accuracy: p_choices or brier rose before the turn (at {1 - level:.0%}, {len(keys)} tests, "
        f"{correction}). log-probability first: only ln p of the correct choice rose, which also rises as the model "
        "learns the answer format. nothing before: no significant rise of the three. The turn may differ for another "
        "run."
    )
    columns = ("task", "family", "turn", "seen", *LINEAR, "what came first")
    return Table(
        "emergence", "Sudden rises of accuracy, and continuous metrics before them", columns, rows, (about, verdicts)
    )


def _row(rise: Emergence, p: dict[str, float], alpha: float) -> tuple[Any, ...]:
    turn = "-" if rise.turn is None else str(rise.curve.points["size"].iloc[rise.turn])
    shares = (rise.before.get(name) for name in LINEAR)
    return (rise.curve.task, rise.curve.family, turn, rise.resolution, *shares, rise.verdict(p, alpha))


def _of_store(store: PointStore, curve: Curve, level: float) -> Emergence:
    """Compute the continuous metrics of a curve's runs, in common resamples of documents."""
    from harness.points import CellId, applicable

    cells = curve.points[CELL]
    metrics = applicable(store.load_any(CellId(*cells.iloc[0])), store.registries)
    known = [metric for metric in metrics if metric.name in {curve.metric, *LINEAR}]
    names = [metric.name for metric in known]
    drawn = store.replicates(curve.points, names, REPLICATES, np.random.default_rng(0))
    points = store.points(curve.task, curve.family, metrics=names).set_index(["metric", *CELL])["value"]
    values = {}
    for metric in known:
        sign = 1.0 if metric.higher_is_better else -1.0
        ordered = points.loc[metric.name].loc[list(cells.itertuples(index=False, name=None))]
        values[metric.name], drawn[metric.name] = sign * ordered.to_numpy(), sign * drawn[metric.name]
    return emergence(curve, drawn, values, level=level)
