"""Points of families that are compared at equal compute, size, tokens or loss, from a store or a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

import harness
from harness import Floats, Range, UsageError
from harness.errors import choose
from harness_plugins.analyses.curves import metrics_of
from harness_plugins.analyses.document_scores import refuse_doubles, refuse_unnamed

if TYPE_CHECKING:
    import pandas as pd

    from harness import PointStore

SCALES = ("flops", "params", "tokens", "loss")


@dataclass(frozen=True)
class RankOptions:
    """The arguments of `rank`, documented there."""

    at: Mapping[str, float]
    metric: str | None = None
    law: str | None = None
    reference: str | None = None
    pareto: bool = False
    lower_is_better: bool = False
    level: float = 0.9
    bootstrap: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        wrong = set(self.at) - set(SCALES)
        if wrong or not self.at:
            raise UsageError(f"at {choose(wrong) if wrong else '(nothing)'}: expected {choose(SCALES)}")
        bad = {name: value for name, value in self.at.items() if not (np.isfinite(value) and value > 0)}
        if bad:
            raise UsageError(f"at {bad}: expected numbers above 0")

    @property
    def features(self) -> tuple[str, ...]:
        """Return the names of the equal quantities."""
        return tuple(name for name in SCALES if name in self.at)

    @property
    def label(self) -> str:
        """Return the label of the compared point."""
        return ", ".join(f"{name} {value:.4g}" for name, value in self.places.items())

    @property
    def places(self) -> dict[str, float]:
        """Return the equal quantities and their values, in the order of `features`."""
        return {name: float(dict(self.at)[name]) for name in self.features}

    @property
    def x(self) -> dict[str, Floats]:
        """Return the compared point as features of a curve, (1,) each."""
        return {name: np.array([value]) for name, value in self.at.items()}

    def range(self, value: float, draws: Floats) -> Range:
        """Return a value with the interval of its draws; its ends are NaN if any draw is not finite."""
        if not len(draws) or not np.isfinite(draws).all():
            return Range(float(value), float("nan"), float("nan"))
        low, high = np.quantile(draws, [(1 - self.level) / 2, (1 + self.level) / 2])
        return Range(float(value), float(low), float(high))


@dataclass(frozen=True)
class Points:
    """Wide points of all families on one task, and the store from which their documents are resampled."""

    task: str
    metric: str
    rises: bool
    frame: pd.DataFrame
    store: PointStore | None = None


def read_points(source: PointStore | pd.DataFrame, asked: RankOptions, host: Any, **chosen: Any) -> Iterator[Points]:
    """Return the points of every task of a store or a table; see `equal_compute.read_matches`."""
    if isinstance(source, harness.PointStore):
        return _of_store(source, asked, host, **chosen)
    return _of_table(source, asked, host, **chosen)


def _of_store(
    store: PointStore, asked: RankOptions, host: Any, *, task: str | None = None, where: str | None = None
) -> Iterator[Points]:
    from harness.points import query

    via = str(getattr(host.laws[asked.law], "via", "")) if asked.law else ""
    for name, metric in sorted(metrics_of(store, task, asked.metric).items()):
        points = store.points(name, metrics=[metric, *([via] if via in host.metrics else [])])
        points = query(points, where)
        refuse_doubles(points.drop_duplicates(["checkpoint", "settings", "fingerprint"]), name)
        shared = shared_documents(store, asked.seed) if store.holds_errors_of(points) else None
        yield Points(name, metric, store.rises(metric) and not asked.lower_is_better, points, shared)


def shared_documents(store: PointStore, seed: int) -> PointStore:
    """Return the store with the same resamples of documents for every fit, independent of the seed for runs.

    Values without resampled documents (imported points, and metrics of lm-eval that are not means) are drawn from their
    standard errors, independently for each task and family.
    """

    def replicates(
        points: pd.DataFrame,
        names: Sequence[str],
        count: int,
        rng: np.random.Generator,
        *,
        errors: np.random.Generator | None = None,
    ) -> dict[str, Floats]:
        del rng, errors
        named = points[[name for name in ("task", "family") if name in points.columns]].iloc[0]
        own_rng = np.random.default_rng([seed, 2, crc32("\n".join(map(str, named)).encode())])
        return store.replicates(points, names, count, np.random.default_rng([seed, 1]), errors=own_rng)

    shared = copy(store)  # a store, or a table with the same interface
    shared.replicates = replicates  # type: ignore[method-assign]  # the only method that differs
    return shared


def _of_table(
    table: pd.DataFrame, asked: RankOptions, host: Any, *, task: str | None = None, where: str | None = None
) -> Iterator[Points]:
    from harness.points import query

    frame = query(table, where)
    if "family" not in frame.columns:
        raise UsageError(f"the table has no column family; --map NAME=family names it; it has: {choose(frame.columns)}")
    if not {"metric", "value"} <= set(frame.columns):
        if asked.metric is None or asked.metric not in frame.columns:
            raise UsageError(f"pass the column of the scores with --metric; the table has: {choose(frame.columns)}")
        frame = frame.assign(metric=asked.metric, value=frame[asked.metric]).drop(columns=asked.metric)
    frame = frame.assign(task=frame.get("task", ""))
    refuse_unnamed(frame, ("task", "family", "metric"))
    for (name, metric), rows in frame.groupby(["task", "metric"], sort=True):
        if task in (None, name) and asked.metric in (None, metric):
            rises = host.metrics[metric].higher_is_better if metric in host.metrics else True
            yield Points(str(name), str(metric), rises and not asked.lower_is_better, rows.reset_index(drop=True))
