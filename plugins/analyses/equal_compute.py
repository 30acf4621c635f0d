"""Families at one compute, size, number of tokens or loss: fitted curves whose resamples are paired.

Resample r of one family goes with resample r of another: documents are the same in both, runs are redrawn for each
family by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

import harness
from harness import Floats, LawError, MetricError, Range, UsageError
from harness.errors import choose
from harness_plugins.analyses.curves import metrics_of
from harness_plugins.analyses.document_scores import refuse_doubles, refuse_unnamed
from harness_plugins.analyses.frontier import frontier

if TYPE_CHECKING:
    import pandas as pd

    from harness import PointStore
    from harness.laws import FormulaLaw

SCALES = ("flops", "params", "tokens", "loss")
SIZES = {("params",), ("tokens",)}  # scales at which only the last checkpoint of each run is on the curve
MIDDLE = 1e20  # where a law of FLOPs expects its compute, for other scales in its place


@dataclass(frozen=True)
class Asked:
    """What `rank` is asked for; documented there."""

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
        """Return the names of what is equal."""
        return tuple(name for name in SCALES if name in self.at)

    @property
    def label(self) -> str:
        """Name the place."""
        return ", ".join(f"{name} {value:.4g}" for name, value in self.places.items())

    @property
    def places(self) -> dict[str, float]:
        """Return what is equal and its value, in the order of `features`."""
        return {name: float(dict(self.at)[name]) for name in self.features}

    @property
    def x(self) -> dict[str, Floats]:
        """Return the place as features of a curve, (1,) each."""
        return {name: np.array([value]) for name, value in self.at.items()}

    def range(self, value: float, draws: Floats) -> Range:
        """Return a value with the interval of its draws; open where some are not known."""
        if not len(draws) or not np.isfinite(draws).all():
            return Range(float(value), float("nan"), float("nan"))
        low, high = np.quantile(draws, [(1 - self.level) / 2, (1 + self.level) / 2])
        return Range(float(value), float(low), float(high))


@dataclass(frozen=True)
class Points:
    """Wide points of all families on one task, with the store that their documents are resampled from."""

    task: str
    metric: str
    rises: bool
    frame: pd.DataFrame
    store: PointStore | None = None


@dataclass(frozen=True)
class Match:
    """Fitted curves of F families on one task, with values (F,) and paired draws (R, F) at the place asked for.

    `values` and `draws` are as measured; `signed` turns them so that higher is better. `beyond` says how many times
    the place lies outside what each family was fitted to (1 inside).
    """

    points: Points
    fits: Mapping[str, Any]
    values: Floats
    draws: Floats
    beyond: Floats
    notes: tuple[str, ...] = ()

    @property
    def families(self) -> tuple[str, ...]:
        """Return the families, in the order of columns."""
        return tuple(self.fits)

    @property
    def sign(self) -> int:
        """Return 1 where higher is better, else -1."""
        return 1 if self.points.rises else -1


def likely(hits: Any, axis: int | None = None) -> Any:
    """Return the share of resamples for which something holds; never 0 or 1, which no resamples can show."""
    count = hits.shape[0]
    return (hits.sum(axis=axis) + 0.5) / (count + 1)


def ranking(values: Floats, draws: Floats) -> tuple[list[int], float]:
    """Return the order of F families, best first, and the probability of just this order.

    :param values: scores (F,), higher being better; `draws` (R, F) are their paired resamples.
    """
    order = np.argsort(-values, kind="stable")
    kept = draws[:, order]
    return [int(i) for i in order], float(likely((kept[:, :-1] > kept[:, 1:]).all(axis=1)))


def best(draws: Floats) -> Floats:
    """Return the probability (F,) that each family is the best, from paired draws (R, F), higher being better.

    Families that are tied for the best share it.
    """
    top = draws == draws.max(axis=1, keepdims=True)
    return np.asarray(likely(top / top.sum(axis=1, keepdims=True), axis=0))


def read_matches(source: PointStore | pd.DataFrame, asked: Asked, host: Any, **chosen: Any) -> Iterator[Match]:
    """Yield every task with two families or more that could be fitted.

    :param source: a store, or a table with a row per checkpoint, family, and `metric` and `value` or a column named as
        the metric.
    :param host: the registries with metrics and laws.
    :param chosen: task (all by default) and where (an expression over points).

    Raises UsageError for a table without a family, or without the metric asked for.
    """
    if isinstance(source, harness.PointStore):
        every = _of_store(source, asked, host, **chosen)
    else:
        every = _of_table(source, asked, host, **chosen)
    for points in every:
        yield _match(points, asked, host)


def _of_store(
    store: PointStore, asked: Asked, host: Any, *, task: str | None = None, where: str | None = None
) -> Iterator[Points]:
    from harness.points import query

    via = str(getattr(host.laws[asked.law], "via", "")) if asked.law else ""
    for name, metric in sorted(metrics_of(store, task, asked.metric).items()):
        points = store.points(name, metrics=[metric, *([via] if via in host.metrics else [])])
        points = query(points, where) if where else points
        refuse_doubles(points.drop_duplicates(["checkpoint", "settings", "fingerprint"]), name)
        shared = shared_documents(store, asked.seed) if store.holds_errors_of(points) else None
        yield Points(name, metric, store.rises(metric) and not asked.lower_is_better, points, shared)


def shared_documents(store: PointStore, seed: int) -> PointStore:
    """Return the store with the same resamples of documents for every fit, whatever the seed of its runs."""

    def replicates(
        points: pd.DataFrame, names: Sequence[str], count: int, rng: np.random.Generator
    ) -> dict[str, Floats]:
        del rng
        return store.replicates(points, names, count, np.random.default_rng([seed, 1]))

    shared = copy(store)  # a store, or a table that answers as one does
    shared.replicates = replicates  # type: ignore[method-assign]  # the only method that differs
    return shared


def _of_table(
    table: pd.DataFrame, asked: Asked, host: Any, *, task: str | None = None, where: str | None = None
) -> Iterator[Points]:
    from harness.points import query

    frame = query(table, where) if where else table
    if "family" not in frame.columns:
        raise UsageError(f"the table has no column family; --map NAME=family names it; it has: {choose(frame.columns)}")
    if not {"metric", "value"} <= set(frame.columns):
        if asked.metric is None or asked.metric not in frame.columns:
            raise UsageError(f"name the column of the scores with --metric; the table has: {choose(frame.columns)}")
        frame = frame.assign(metric=asked.metric, value=frame[asked.metric]).drop(columns=asked.metric)
    frame = frame.assign(task=frame.get("task", ""))
    refuse_unnamed(frame, ("task", "family", "metric"))
    for (name, metric), own in frame.groupby(["task", "metric"], sort=True):
        if task in (None, name) and asked.metric in (None, metric):
            rises = host.metrics[metric].higher_is_better if metric in host.metrics else True
            yield Points(str(name), str(metric), rises and not asked.lower_is_better, own.reset_index(drop=True))


def _match(points: Points, asked: Asked, host: Any) -> Match:
    """Fit every family of a task; families that cannot be fitted become notes."""
    fits: dict[str, Any] = {}
    notes: list[str] = []
    for number, (family, own) in enumerate(points.frame.groupby("family", sort=True)):
        try:
            found = _fit(points, own, asked, host, seed=asked.seed + number)
            fits[str(family)] = (found, found.curve(asked.x)[0], found.draws(asked.x)[:, 0])
        except (LawError, MetricError) as error:
            notes.append(f"{points.task or points.metric}, {family}: {error}")
    beyond = [
        max(_beyond(value, fit.domain[name]) for name, value in asked.places.items()) for fit, _, _ in fits.values()
    ]
    values = np.array([value for _, value, _ in fits.values()])
    draws = np.stack([own for _, _, own in fits.values()], axis=1) if fits else np.empty((0, 0))
    curves = {family: fit for family, (fit, _, _) in fits.items()}
    return Match(points, curves, values, draws, np.array(beyond), tuple(notes))


def _beyond(at: float, domain: tuple[float, float]) -> float:
    return max(1.0, at / domain[1], domain[0] / at)


def _fit(points: Points, own: pd.DataFrame, asked: Asked, host: Any, *, seed: int) -> Any:
    """Fit one family; raise LawError where that cannot be done."""
    from harness.points import ends, widen

    wide = widen(own)
    wide = wide[ends(wide)] if asked.features in SIZES else wide
    options: dict[str, Any] = {"bootstrap": asked.bootstrap, "level": asked.level}
    if asked.pareto:
        rng = np.random.default_rng([seed, 2])
        return frontier(wide, points.metric, rises=points.rises, rng=rng, **options)
    law = law_of(asked, points, wide, host)
    return harness.fit(wide, law, value=points.metric, store=points.store, registries=host, seed=seed, **options)


def law_of(asked: Asked, points: Points, wide: pd.DataFrame, host: Any) -> Any:
    """Return the law of what is equal: the one asked for, or the default; raise UsageError where there is none."""
    from harness.laws import ProcedureLaw, steps_of
    from harness.points import column

    law = host.laws[asked.law or _default(asked.features, points, column(wide, points.metric))]
    features = tuple(sorted(steps_of(law)[0].features))
    if isinstance(law, ProcedureLaw):
        raise UsageError(f"law {law.name!r} is a procedure, whose resamples cannot be paired; choose a formula")
    if features == tuple(sorted(asked.features)):
        return law
    if features == ("flops",) and len(asked.features) == 1 and hasattr(law, "formula"):
        scale = asked.features[0]
        return Along(law, scale, MIDDLE / float(np.exp(np.log(column(wide, scale)).mean())))
    raise UsageError(
        f"law {law.name!r} is a function of {', '.join(features)}; families are compared at {asked.label}: choose "
        "another --law, or name all of these in --at"
    )


def _default(features: tuple[str, ...], points: Points, values: Floats) -> str:
    """Return the law for what is equal."""
    is_share = points.rises and values.min() >= 0 and values.max() <= 1
    if features == ("loss",) and is_share:
        return "accuracy_from_loss"
    if features == ("params", "tokens"):
        return "single_step" if is_share else "chinchilla"
    if len(features) == 1 and features != ("loss",) and (is_share or not points.rises):
        return "sigmoid" if is_share else "power"
    raise UsageError(f"{points.metric} at equal {' and '.join(features)} has no default law; choose one with --law")


@dataclass(frozen=True)
class Along:
    """A law of FLOPs with another scale in the place of compute, in units in which the law finds its parameters."""

    law: FormulaLaw
    scale: str
    unit: float = field(default=1.0)

    @property
    def name(self) -> str:
        """Name the law and its scale."""
        return f"{self.law.name} of {self.scale}"

    @property
    def features(self) -> tuple[str, ...]:
        """Return the scale."""
        return (self.scale,)

    def formula(self, **columns: Floats) -> Floats:
        """Return the values of the law."""
        return self.law.formula(flops=columns.pop(self.scale) * self.unit, **columns)

    def guess(self, y: Floats, **columns: Floats) -> Mapping[str, float]:
        """Return where the law begins."""
        return self.law.guess(y=y, flops=columns[self.scale] * self.unit)

    def __getattr__(self, name: str) -> Any:
        """Return what else the law says of itself."""
        if name.startswith("__") or name == "own_units":
            raise AttributeError(name)
        return getattr(self.law, name)
