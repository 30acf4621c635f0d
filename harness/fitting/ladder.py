"""The points that a law is fitted to: from long to wide, ladder and target apart, and resamples of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import gamma

from harness.errors import LawError, UsageError, choose
from harness.fitting.columns import floats
from harness.fitting.runs import DESCRIBES, Runs, largest, runs_of, some, two_points
from harness.metrics.intervals import shown_error
from harness.types import Bools, Floats, Ints

OF_METRIC = ("metric", "value", "stderr", "low", "high", "n", "ties")
COUNTS = ("flops", "params", "tokens")  # of which laws take logarithms
MOST_POWER = 3.0  # of weights; beyond, a few units decide each resample
UNITS = ("runs", "checkpoints", "seeds", "documents", "joint")


@dataclass(frozen=True)
class Ladder:
    """Points that a law is fitted to (`points`, n rows) and those held out (`target`); `runs` are those of `points`."""

    points: pd.DataFrame
    target: pd.DataFrame
    runs: Runs

    @classmethod
    def of(cls, frame: pd.DataFrame, hold_out: str | float | None) -> Ladder:
        """Split wide points; runs are told apart before, as the held-out points help to do so."""
        held, runs = held_out(frame, hold_out), runs_of(frame)
        fitted = frame[~held].reset_index(drop=True)
        number = np.unique(runs.number[~held], return_inverse=True)[1]
        own = Runs(np.asarray(number, dtype=np.int64), runs_of(fitted).sizes, runs.columns)
        return cls(fitted, frame[held].reset_index(drop=True), own)

    def units(self, unit: str) -> Ints:
        """Return the number of the unit that each point belongs to (n,); see `units_of`."""
        return units_of(self.points, unit, self.runs)


def widen(points: pd.DataFrame) -> pd.DataFrame:
    """Return one row per checkpoint and task, with a column per metric, and METRIC_stderr and METRIC_n beside it.

    Points that are wide already come back as they are. Raises LawError where a checkpoint has two values of a metric.
    """
    points = points.reset_index(drop=True)
    if not is_long(points):
        return points
    identity = [name for name in DESCRIBES if name in points.columns and name != "metric"]
    _refuse_two(points, [*identity, "metric"])
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for point in points.to_dict("records"):
        key = tuple(str(point[name]) for name in identity)
        row = rows.setdefault(key, {str(k): v for k, v in point.items() if k not in OF_METRIC})
        if point["metric"] in row:
            raise LawError(f"the metric {point['metric']} has the name of a column of the points; rename one of them")
        row[point["metric"]] = point["value"]
        row[f"{point['metric']}_stderr"] = shown_error(*(point.get(k, np.nan) for k in ("stderr", "low", "high")))
        row |= {f"{point['metric']}_n": point["n"]} if "n" in point else {}
    return pd.DataFrame(list(rows.values()))


def is_long(points: pd.DataFrame) -> bool:
    """Say whether points have one row per metric."""
    return {"metric", "value"} <= set(points.columns)


def _refuse_two(points: pd.DataFrame, keys: list[str]) -> None:
    """Raise LawError where two rows are of one checkpoint, task and metric, whether they are equal or not."""
    if points.duplicated(keys).any():
        raise LawError(two_points(points, keys))


def query(frame: pd.DataFrame, expression: str) -> pd.DataFrame:
    """Return the rows for which a pandas expression holds; whole numbers count as float64, so products are exact."""
    numbers = floats(frame) if frame.index.is_unique else floats(frame).reset_index(drop=True)
    try:
        kept = numbers.index.isin(numbers.query(expression).index)
    except Exception as error:  # pandas raises errors of many kinds for a bad expression
        raise UsageError(f"{expression!r} cannot be applied: {error}; columns are: {choose(frame.columns)}") from error
    return frame[kept]


def split(frame: pd.DataFrame, hold_out: str | float | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return (ladder, target): what is fitted, and what is held out and only predicted; see `held_out`."""
    held = held_out(frame, hold_out)
    return frame[~held].reset_index(drop=True), frame[held].reset_index(drop=True)


def held_out(frame: pd.DataFrame, hold_out: str | float | None) -> Bools:
    """Mark the held-out rows (n,); raise LawError for none or all of them.

    `hold_out` is an expression, "largest" (all rows of the most params in each family), a fraction (that share of the
    rows, those of the most flops), or None.
    """
    if hold_out is None:
        return np.zeros(len(frame), dtype=bool)
    held = _held_out(frame, hold_out).to_numpy(dtype=bool)
    if held.all():
        raise LawError(f"hold_out={hold_out!r} holds out all {len(frame)} points; none is left to fit")
    if not held.any():
        raise LawError(f"hold_out={hold_out!r} holds out none of {len(frame)} points; columns: {choose(frame.columns)}")
    return held


def _held_out(frame: pd.DataFrame, hold_out: str | float) -> pd.Series[bool]:
    if hold_out == "largest":
        return largest(frame)
    share = _fraction(hold_out)
    if share is None:
        return pd.Series(frame.index.isin(query(frame, str(hold_out)).index), index=frame.index)
    if not 0 < share < 1 or "flops" not in frame.columns:
        raise LawError(f"hold_out={hold_out!r}: expected a share between 0 and 1, and a column flops to order by")
    return frame["flops"].rank(method="first", ascending=False) <= round(share * len(frame))


def _fraction(hold_out: str | float) -> float | None:
    try:
        return float(hold_out)
    except ValueError:
        return None


def column(frame: pd.DataFrame, name: str) -> Floats:
    """Return a column (n,) of finite numbers, above 0 for COUNTS; raise LawError naming the points that have none."""
    if name not in frame.columns:
        raise LawError(f"the points have no column {name!r}; they have: {choose(frame.columns)}")
    values = pd.to_numeric(frame[name], errors="coerce").to_numpy(dtype=np.float64)
    _refuse(frame, ~np.isfinite(values), f"{name} is missing or not a number", f"{name} == {name}")
    _refuse(frame, (values <= 0) & (name in COUNTS), f"{name} must be above 0, and is not", f"{name} > 0")
    return values


def readable(frame: pd.DataFrame, name: str) -> Any:
    """Return a feature (n,): numbers, NaN where missing; or text. Compute, parameters and tokens must be there."""
    if name in COUNTS or name not in frame.columns:
        return column(frame, name)
    if frame[name].dtype.kind == "f":
        return frame[name].to_numpy(dtype=np.float64)
    numeric = pd.to_numeric(frame[name], errors="coerce")
    is_text = bool((numeric.isna() & frame[name].notna()).any())
    return frame[name].astype(str).to_numpy() if is_text else numeric.to_numpy(dtype=np.float64)


def trials(frame: pd.DataFrame, name: str) -> Floats:
    """Return of how many trials (n,) each rate of a column is the share of successes; raise LawError without them."""
    found = next((c for c in ("trials", f"{name}_n") if c in frame.columns), None)
    if found is None:
        raise LawError(f"counted successes need a column trials (or {name}_n) beside {name}; other objectives do not")
    values = column(frame, found)
    _refuse(frame, (values < 1) | (values % 1 != 0), f"{found} is no count", f"{found} >= 1")
    return values


def _refuse(frame: pd.DataFrame, bad: Bools, why: str, without: str) -> None:
    """Raise LawError where some points are bad, naming the first five."""
    if bad.any():
        raise LawError(f"{why} for {some(frame, bad)}; mend it, or choose where {without!r}")


@dataclass(frozen=True)
class Resamples:
    """R resamples of n points: weights (R, n) of the points, and the values (R, n) of columns that are resampled.

    `units` (n,) numbers what is independent. Where `noise` is there, all weights are 1, and points are redrawn with it
    around the fitted law. Weights with a `power` are raised to it, the more the more a unit holds the fit (`raised`).
    """

    weights: Floats
    columns: dict[str, Floats]
    units: Ints
    noise: np.random.Generator | None = None
    power: float = 0.0

    def of(self, name: str, values: Floats) -> Floats:
        """Return a column in every resample (R, n)."""
        return self.columns.get(name, np.broadcast_to(values, self.weights.shape))

    def raised(self, leverage: Floats) -> Floats:
        """Return the weights (R, n) of mean 1 to the power / (1 - h) for units of leverage h (G,).

        Exponential weights to the power c vary about c^2 as much, so that the spread of weighted fits is that of the
        jackknife, HC3 (MacKinnon and White 1985). Plain ones leave out that a fit follows the points at its ends.
        """
        if not self.power:
            return self.weights
        power = (self.power / np.maximum(1 - leverage, self.power / MOST_POWER))[self.units]
        found = self.weights**power / gamma(1 + power)
        weights: Floats = found / found.mean(axis=1, keepdims=True)
        return weights


def units_of(frame: pd.DataFrame, unit: str, runs: Runs | None = None) -> Ints:
    """Return the number of the unit each point belongs to (n,): runs (`runs_of`), points or seeds."""
    if unit not in UNITS:
        raise UsageError(f"resample={unit!r} is none of {choose(UNITS)}")
    if unit in {"runs", "joint"}:
        return (runs or runs_of(frame)).number
    keys = [name for name in ("family", "seed") if name in frame.columns]
    if unit != "seeds" or not keys:
        return np.arange(len(frame))
    return np.asarray(frame.groupby(keys, dropna=False).ngroup(), dtype=np.int64)


def shared(residuals: Floats, units: Ints) -> float:
    """Return the share of the variance of residuals (n,) that points of one unit have in common (one-way ANOVA)."""
    n, counts = len(residuals), np.bincount(units)
    g = len(counts)
    if not 1 < g < n:
        return 0.0
    means = np.bincount(units, residuals) / counts
    within = float(((residuals - means[units]) ** 2).sum()) / (n - g)
    size = (n - float((counts**2).sum()) / n) / (g - 1)
    between = max((float((counts * means**2).sum()) / (g - 1) - within) / size, 0.0)
    return between / (between + within) if between else 0.0


def freedom(n: int, free: int, units: int) -> int:
    """Return the degrees of freedom that n points of so many units leave behind `free` parameters.

    Points of one unit are not independent, so they count for no more than units - 1, as in cluster-robust tests
    (Cameron and Miller 2015, sec. VI).
    """
    return max(min(n - free, units - 1), 0)


def point_weights(units: Ints, count: int, rng: np.random.Generator) -> Floats:
    """Return exponential weights (count, n) of units (n,): a Bayesian bootstrap (Rubin 1981).

    Every unit keeps a positive weight, so that a ladder of four runs is still four runs in every resample.
    """
    return rng.exponential(size=(count, int(units.max()) + 1))[:, units]


def student(dof: int, level: float) -> float:
    """Return Student's quantile over the normal one, which percentiles of resamples know nothing of."""
    tail = (1 + level) / 2
    return float(stats.t.ppf(tail, max(dof, 1)) / stats.norm.ppf(tail))


def worth(frame: pd.DataFrame, name: str) -> float:
    """Return how many independent documents the rates of a column are worth, by their standard errors; NaN if unknown.

    p (1 - p) / stderr^2 of the median point between 0 and 1; the number of documents where all points are 0 or 1.
    """
    if not {f"{name}_n", f"{name}_stderr"} <= set(frame.columns):
        return float("nan")
    p, n, errors = (pd.to_numeric(frame[c]).to_numpy(np.float64) for c in (name, f"{name}_n", f"{name}_stderr"))
    inside = (p > 0) & (p < 1) & (errors > 0)
    if ((p < 0) | (p > 1)).any() or not np.isfinite(n).all():
        return float("nan")
    return float(np.median(p[inside] * (1 - p[inside]) / errors[inside] ** 2) if inside.any() else np.median(n))


def in_common(draws: Floats, values: Floats) -> Floats:
    """Return values (n,) moved by what resampled documents change at all points alike (R, n).

    What they change at single points is in the residuals, so resamples of runs already contain it.
    """
    moved = values + (draws - values).mean(axis=1, keepdims=True)
    found: Floats = np.clip(moved, draws.min(axis=0), draws.max(axis=0))
    return found


def scattered(frame: pd.DataFrame, names: Sequence[str], count: int, rng: np.random.Generator) -> dict[str, Floats]:
    """Return columns redrawn from their standard errors (count, n), where documents cannot be resampled."""
    found = {}
    for name in names:
        if f"{name}_stderr" not in frame.columns:
            raise LawError(f"resampling documents needs a store, or a column {name}_stderr beside {name}")
        errors = column(frame, f"{name}_stderr")
        found[name] = column(frame, name) + errors * rng.normal(size=(count, len(frame)))
    return found
