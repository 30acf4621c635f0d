"""Values of a metric per document."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.errors import MetricError, choose
from harness.host.distribution import missing as not_installed
from harness.metrics.samples import Scored
from harness.types import Bools, Floats, Metric, PerDoc


@dataclass(frozen=True)
class Applied:
    """What a metric returns for documents: columns (n,), and whether the two best choices of each are tied (n,)."""

    columns: tuple[Floats, ...]
    tied: Bools | None = None

    @property
    def ties(self) -> int | None:
        """Return the number of ties; None where the metric does not say."""
        return None if self.tied is None else int(self.tied.sum())

    def equals(self, other: Applied) -> bool:
        """Return whether all values are the same to the bit."""
        if (self.tied is None) != (other.tied is None) or len(self.columns) != len(other.columns):
            return False
        pairs = [*zip(self.columns, other.columns, strict=True)]
        columns_equal = all(np.array_equal(a, b) for a, b in pairs)
        return columns_equal and (self.tied is None or np.array_equal(self.tied, np.asarray(other.tied)))


@dataclass(frozen=True)
class Values:
    """Values of a metric per document (n,), or the columns of a ratio or of its own aggregate."""

    columns: tuple[Floats, ...]
    ties: int | None = None


def per_document(metric: Metric, scores: Scored) -> Values:
    """Apply a metric to every document; raises as `applied` does."""
    values = applied(metric, scores)
    return Values(values.columns, values.ties)


def applied(metric: Metric, scores: Scored) -> Applied:
    """Apply a metric to every document; raise MetricError for unmet needs and for non-finite values."""
    missing = set(metric.needs) - scores.offers
    if missing:
        raise MetricError(f"metric {metric.name!r} needs {choose(missing)}; these scores offer {choose(scores.offers)}")
    if absent := not_installed(metric.modules):
        raise MetricError(f"metric {metric.name!r} needs {choose(absent)}: pip install {' '.join(absent)}")
    result = metric.fn(scores)
    tied = result.tied if isinstance(result, PerDoc) else None
    values = result.values if isinstance(result, PerDoc) else result
    columns = tuple(_column(metric, column) for column in (values if isinstance(values, tuple) else (values,)))
    _check(metric, columns, scores)
    return Applied(columns, tied)


def _column(metric: Metric, values: object) -> Floats:
    """Return values as numbers; raise MetricError for anything else."""
    try:
        if values is None:
            raise TypeError("no value")
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        shown = repr(values) if len(repr(values)) < 80 else f"{repr(values)[:80]}..."
        raise MetricError(f"metric {metric.name!r} returned {shown}; expected one number per document, (n,)") from error


def _check(metric: Metric, columns: tuple[Floats, ...], scores: Scored) -> None:
    expected = 2 if metric.aggregate in {"ratio", "exp_ratio"} else 1 if metric.aggregate == "mean" else len(columns)
    if len(columns) != expected or any(column.shape != (len(scores),) for column in columns):
        shapes = ", ".join(str(column.shape) for column in columns)
        pair = "; for numerators and denominators, register it with aggregate='ratio'"
        raise MetricError(
            f"metric {metric.name!r} returned arrays of shape {shapes}; expected {expected} of shape ({len(scores)},), "
            f"with one value per document{pair if expected == 1 and len(columns) == 2 else ''}"
        )
    for column in columns:
        bad = np.flatnonzero(~np.isfinite(column))
        if len(bad):
            raise MetricError(
                f"metric {metric.name!r} is {column[bad[0]]} for document {scores.doc_ids[bad[0]]}; "
                "expected a finite number"
            )
