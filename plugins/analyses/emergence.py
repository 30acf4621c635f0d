"""Emergence: an accuracy that stays flat and then rises, beside what its log-probabilities do meanwhile.

Accuracy counts a document only once its right choice is ahead of all others, so it can stay flat while the right choice
gains (Schaeffer et al. 2023). Whether it did is a question of numbers: how much of the whole rise of a linear metric
lies before the accuracy leaves its floor, and whether so many documents would have shown an earlier rise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness import Floats, Range, Table
from harness_plugins.analyses.curves import REPLICATES, Curve
from harness_plugins.analyses.shapes import CORRECTIONS

if TYPE_CHECKING:
    from harness import PointStore

CELL = ["checkpoint", "fingerprint", "settings"]
LINEAR = ("p_choices", "brier", "logp_gold")  # beside accuracy: two that weigh the choices, one that does not


@dataclass(frozen=True)
class Emergence:
    """Where accuracy first stands clearly above the smallest run, and how far other metrics had come one run before.

    `turn` is the number of that run, or None; `resolution` the smallest rise of accuracy that would have been seen
    there. `before` holds, for each metric, the share of its whole rise that lies before the turn, and `p` the p that
    it had not risen at all by then; both are empty where the turn is the second run.
    """

    curve: Curve
    turn: int | None
    resolution: float
    before: dict[str, Range]
    p: dict[str, float]

    def verdict(self, p: dict[str, float], alpha: float) -> str:
        """Say what came first, from p-values that are corrected for the number of tests."""
        if self.turn is None:
            return "no rise"
        if not self.before:
            return "rises at once"
        risen = [name for name in LINEAR if p.get(name, 1.0) < alpha]
        if {"p_choices", "brier"} & set(risen):
            return "hidden by accuracy"
        return "log-probability first" if risen else "nothing before"


def emergence(curve: Curve, draws: dict[str, Floats], values: dict[str, Floats], *, level: float = 0.9) -> Emergence:
    """Find where accuracy leaves its floor, and what other metrics did before.

    :param curve: the accuracies (M,) of runs, ordered by scale.
    :param draws: each metric, the curve's own among them, in the same resamples of the documents (R, M), higher being
        better; `values` (M,) on all documents.

    A rise counts where it is clear at `level`, one-sided, over the runs that may be the first (Bonferroni).
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
        own, drawn = values[name], draws[name]
        risen, error = own[turn - 1] - own[0], float((drawn[:, turn - 1] - drawn[:, 0]).std(ddof=1))
        p[name] = float(norm.sf(risen / error)) if error else float(risen <= 0)
        before[name] = _share(own, drawn, turn, level)
    return Emergence(curve, turn, resolution, before, p)


def _share(own: Floats, drawn: Floats, turn: int, level: float) -> Range:
    """Return the share of the whole rise that lies before the turn; its ends are open where the rise is not clear."""
    whole = drawn[:, -1] - drawn[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        value = (own[turn - 1] - own[0]) / (own[-1] - own[0])
        shares = (drawn[:, turn - 1] - drawn[:, 0]) / whole
    low, high = np.quantile(shares, [(1 - level) / 2, (1 + level) / 2]) if (whole > 0).all() else (np.nan, np.nan)
    return Range(float(value), float(low), float(high))


def emergence_table(store: PointStore, curves: Sequence[Curve], *, level: float, correction: str) -> Table:
    """Return the table of all curves of an accuracy (acc, acc_char, acc_byte ...) in a store."""
    found = [_of_store(store, curve, level) for curve in curves if curve.metric.startswith("acc") and len(curve.x) > 2]
    keys = [(i, name) for i, one in enumerate(found) for name in one.p]
    corrected = CORRECTIONS[correction](np.array([found[i].p[name] for i, name in keys]))
    p: list[dict[str, float]] = [{} for _ in found]
    for (i, name), value in zip(keys, corrected, strict=True):
        p[i][name] = float(value)
    rows = tuple(_row(one, own, 1 - level) for one, own in zip(found, p, strict=True))
    about = (
        "turn: the first size whose accuracy stands clearly above the smallest's; seen: the smallest rise that so many "
        f"documents would have shown. The others: the share of a metric's whole rise that lies before the turn, with "
        f"{level:.0%} intervals over documents."
    )
    said = (
        f"hidden by accuracy: p_choices or brier rose before (at {1 - level:.0%}, {len(keys)} tests, {correction}); "
        "log-probability first: only ln p of the right choice, which the form of the answer raises too; nothing "
        "before: none of the three, as far as these documents tell. Another run may turn elsewhere."
    )
    columns = ("task", "family", "turn", "seen", *LINEAR, "what came first")
    return Table("emergence", "Is a sudden rise one of accuracy alone?", columns, rows, (about, said))


def _row(one: Emergence, p: dict[str, float], alpha: float) -> tuple[Any, ...]:
    turn = "-" if one.turn is None else str(one.curve.points["size"].iloc[one.turn])
    shares = (one.before.get(name) for name in LINEAR)
    return (one.curve.task, one.curve.family, turn, one.resolution, *shares, one.verdict(p, alpha))


def _of_store(store: PointStore, curve: Curve, level: float) -> Emergence:
    """Compute the other metrics of a curve's runs, in resamples that all share."""
    from harness.points import CellId, applicable

    cells = curve.points[CELL]
    there = applicable(store.load_any(CellId(*cells.iloc[0])), store.registries)
    known = [metric for metric in there if metric.name in {curve.metric, *LINEAR}]
    names = [metric.name for metric in known]
    drawn = store.replicates(curve.points, names, REPLICATES, np.random.default_rng(0))
    points = store.points(curve.task, curve.family, metrics=names).set_index(["metric", *CELL])["value"]
    values = {}
    for metric in known:
        sign = 1.0 if metric.higher_is_better else -1.0
        own = points.loc[metric.name].loc[list(cells.itertuples(index=False, name=None))]
        values[metric.name], drawn[metric.name] = sign * own.to_numpy(), sign * drawn[metric.name]
    return emergence(curve, drawn, values, level=level)
