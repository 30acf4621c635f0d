"""Metrics, of the harness and of the sources of tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.types.arrays import Bools, Floats

UNBOUNDED = (-float("inf"), float("inf"))


@dataclass(frozen=True)
class PerDoc:
    """MetricValues per document, and whether its two best choices are tied."""

    values: Floats
    tied: Bools


MetricValues = Floats | tuple[Floats, Floats] | PerDoc  # of every document, or numerators and denominators


@dataclass(frozen=True)
class Metric:
    """A registered metric.

    `fn(scores)` returns values per document, shape (n,), or a pair (numerators, denominators) for a ratio.
    `needs` names what the scores must offer; `aggregate` is "mean", "ratio", "exp_ratio" or a function of the
    per-document columns, whose interval is then bootstrapped over documents. Intervals stay within `bounds`.
    `modules` must be importable. `by_name` leaves it out of tables of all metrics.
    """

    name: str
    fn: Callable[..., MetricValues]
    needs: tuple[str, ...] = ()
    aggregate: str | Callable[..., Floats] = "mean"
    higher_is_better: bool = True
    bounds: tuple[float, float] = UNBOUNDED
    modules: tuple[str, ...] = ()
    by_name: bool = False


@dataclass(frozen=True)
class SourceMetric:
    """A metric that the source of a task computes from the answers of one cell.

    `stderr` is the source's own; NaN where it states none. `values` (n,) has a number for each document, or is None
    where the metric has no value for a single document.
    """

    name: str
    value: float
    stderr: float
    n: int
    higher_is_better: bool = True
    values: Floats | None = None
