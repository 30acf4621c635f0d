"""Compute at which a law reaches a score, or equals another law, and compute-equivalent gains, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from harness.errors import LawError
from harness.tables import Range
from harness.types import Floats

GRID = 2000  # steps of log compute in the search for crossings
EQUAL = 1e-12  # difference below which two laws count as equal
REACH = 100.0  # factor beyond the fitted compute up to which crossings are searched


class Curve(Protocol):
    """A fitted curve with resamples: a `LawFit`, or an analysis of a plugin with the same attributes."""

    @property
    def law(self) -> str:
        """The name of the law."""
        ...

    @property
    def features(self) -> tuple[str, ...]:
        """The features of the law."""
        ...

    @property
    def domain(self) -> Mapping[str, tuple[float, float]]:
        """The fitted range of each feature."""
        ...

    @property
    def level(self) -> float:
        """The coverage level of its intervals."""
        ...

    def curve(self, x: Mapping[str, Floats]) -> Floats:
        """Return the best curve (n,) at features (n,)."""
        ...

    def draws(self, x: Mapping[str, Floats]) -> Floats:
        """Return the curve of every resample (R, n)."""
        ...


def reach(fit: Curve, score: float, *, rises: bool = True) -> tuple[Range | None, str]:
    """Return the training FLOPs at which a law reaches a score, and a remark; with `rises`, higher is better."""
    low, high = _budgets(fit)
    sign = 1 if rises else -1
    if sign * fit.curve(_at(fit, low))[0] >= sign * score:
        return None, f"{'above' if rises else 'below'} it from the smallest budget on"
    reached = crossing(fit, score, rises=rises)
    if reached is None:
        return None, "not reached"
    if not np.isfinite(reached.value):
        return reached, "not reached by the best curve"
    return reached, "" if reached.value <= high else f"extrapolated {reached.value / high:.2g} times"


def crossing(fit: Curve, score: float, *, rises: bool = True) -> Range | None:
    """Return the training FLOPs at which a law of compute first reaches a score, with its interval, or None.

    The crossing is upwards with `rises`, else downwards. Resamples that do not reach the score count as infinite, those
    beyond it from the start as the smallest budget. If the best curve does not reach the score, but enough resamples
    do, the value is infinite and the lower end finite. Raises LawError for a law of other features than flops.
    """
    low, high = _budgets(fit)
    flops, sign = np.geomspace(low, high * REACH, GRID), 1 if rises else -1
    value = _first(sign * fit.curve(_at(fit, flops))[None], flops, sign * score)[0]
    draws = _first(sign * fit.draws(_at(fit, flops)), flops, sign * score)
    tail = (1 - fit.level) / 2
    bounds = np.quantile(draws, [tail, 1 - tail], method="nearest")
    return Range(float(value), float(bounds[0]), float(bounds[1])) if np.isfinite([value, bounds[0]]).any() else None


def crossovers(a: Curve, b: Curve) -> tuple[list[Range], float]:
    """Return every training compute at which two laws are equal, and the share of resamples in which they cross.

    The search covers the compute that both laws were fitted to. Resample r of one is paired with resample r of the
    other, because they share documents; fits of the same runs need the same seed, fits of different runs different
    seeds. The interval covers the nearest crossing of each resample in the same direction; a resample without one
    counts as the smallest budget or as infinite, depending on which law is ahead. Raises LawError for laws of other
    features than flops, without a common range, or with different numbers of resamples.
    """
    (low_a, high_a), (low_b, high_b) = _budgets(a), _budgets(b)
    low, high = max(low_a, low_b), min(high_a, high_b)
    flops = np.geomspace(low, high, GRID)
    drawn_a, drawn_b = a.draws(_at(a, flops)), b.draws(_at(b, flops))
    if low >= high or drawn_a.shape != drawn_b.shape:
        raise LawError(
            f"the laws were fitted to {low_a:.3g} to {high_a:.3g} and {low_b:.3g} to {high_b:.3g} "
            f"{_unit(a)}, with {len(drawn_a)} and {len(drawn_b)} resamples: expected overlapping ranges and equal "
            "numbers of resamples"
        )
    apart = a.curve(_at(a, flops)) - b.curve(_at(b, flops))
    best = _ahead(apart[None])
    draws = _ahead(drawn_a - drawn_b)
    tail = (1 - a.level) / 2
    ranges = []
    for place in np.flatnonzero(best[0, :-1] * best[0, 1:] < 0):
        nearest = _nearest(draws, flops, int(place), int(best[0, place]))
        bounds = np.quantile(nearest, [tail, 1 - tail], method="nearest")
        share = apart[place] / (apart[place] - apart[place + 1])
        value = flops[place] * (flops[place + 1] / flops[place]) ** share
        ranges.append(Range(float(value), float(bounds[0]), float(bounds[1])))
    return ranges, float((draws[:, :-1] * draws[:, 1:] < 0).any(axis=1).mean())


def gain(fit: Curve, reference: Curve, at: float, *, rises: bool = True) -> Range:
    """Return the factor of compute that `reference` needs for the score that a law has at `at`.

    This is the compute-equivalent gain over `reference`: above 1, the first law uses its compute better. Resamples are
    paired as in `crossovers`. The search covers REACH times the fitted compute of `reference` on either side; the gain
    is infinite if it does not reach the score, and 0 if it exceeds the score at the smallest compute. Raises LawError
    for laws of several features, or of different ones.
    """
    low, high = _budgets(reference)
    _budgets(fit)
    if fit.features != reference.features:
        raise LawError(f"{fit.features[0]} and {reference.features[0]}: expected two laws of one feature")
    flops, here, sign = np.geomspace(low / REACH, high * REACH, GRID), np.array([at]), 1 if rises else -1
    best = sign * (reference.curve(_at(reference, flops)) - fit.curve(_at(fit, here)))
    apart = sign * (reference.draws(_at(reference, flops)) - fit.draws(_at(fit, here)))
    value, draws = _worth(best[None], flops, at)[0], _worth(apart, flops, at)
    tail = (1 - fit.level) / 2
    bounds = np.quantile(draws, [tail, 1 - tail], method="nearest")
    return Range(float(value), float(bounds[0]), float(bounds[1]))


def _worth(ahead: Floats, flops: Floats, at: float) -> Floats:
    """Return where each curve (R, n) rises through 0, divided by `at` (R,); 0 if it starts above."""
    return np.where(ahead[:, 0] >= 0, 0.0, _first(ahead, flops, 0.0) / at)


def _at(fit: Curve, x: Floats | float) -> dict[str, Floats]:
    """Return values of the one feature of a law, by its name."""
    return {fit.features[0]: np.atleast_1d(np.asarray(x, dtype=np.float64))}


def _unit(fit: Curve) -> str:
    return "FLOPs" if fit.features == ("flops",) else fit.features[0]


def _ahead(difference: Floats) -> Floats:
    """Return the sign (R, n) of the difference, 1 or -1; where it is zero, the previous sign (0 without one)."""
    sign = np.where(np.abs(difference) < EQUAL, 0.0, np.sign(np.nan_to_num(difference)))
    known = np.maximum.accumulate(np.where(sign != 0, np.arange(sign.shape[1]), 0), axis=1)
    return np.take_along_axis(sign, known, axis=1)


def _nearest(ahead: Floats, x: Floats, place: int, before: int) -> Floats:
    """Return where each resample (R,) crosses from `before` to the other side, nearest to a place on the grid."""
    crosses = (ahead[:, :-1] == before) & (ahead[:, 1:] == -before)
    distance = np.where(crosses, np.abs(np.arange(len(x) - 1) - place), len(x))
    never = np.where(ahead[:, place] == -before, x[0], np.inf)
    i = distance.argmin(axis=1)
    return np.where(crosses.any(axis=1), np.sqrt(x[i] * x[i + 1]), never)


def _budgets(fit: Curve) -> tuple[float, float]:
    """Return the smallest and largest compute (or other feature) that a law was fitted to."""
    if len(fit.features) != 1:
        raise LawError(
            f"law {fit.law!r} is a function of {', '.join(fit.features)}; expected a law of flops alone, such as "
            "sigmoid"
        )
    return fit.domain[fit.features[0]]


def _first(curves: Floats, x: Floats, score: float) -> Floats:
    """Return where each curve (R, n) first rises through a score, by interpolation in log x; infinite if it never does.

    After a gap in a curve (NaN) it is the first known point.
    """
    above = curves >= score
    crosses = ~above[:, :-1] & above[:, 1:]
    i = np.argmax(crosses, axis=1)
    rows = np.arange(len(curves))
    left, right = curves[rows, i], curves[rows, i + 1]
    with np.errstate(all="ignore"):  # values of curves without a crossing are discarded below
        share = np.nan_to_num((score - left) / (right - left), nan=1.0)
        reached = np.exp(np.log(x[i]) + share * (np.log(x[i + 1]) - np.log(x[i])))
    return np.where(above[:, 0], x[0], np.where(crosses.any(axis=1), reached, np.inf))
