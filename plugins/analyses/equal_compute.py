"""Compare families at equal compute, size, tokens or loss, from fitted curves with paired resamples.

Resample r uses the same documents for all families. Runs are redrawn independently for each family.
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
SIZES = {("params",), ("tokens",)}  # for these scales, the curve uses only the last checkpoint of each run
MIDDLE = 1e20  # typical FLOPs of a law; other scales are multiplied so that their middle has this value


@dataclass(frozen=True)
class Asked:
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


@dataclass(frozen=True)
class Match:
    """Fitted curves of F families on one task, with values (F,) and paired draws (R, F) at the compared point.

    `values` and `draws` are in the metric's own direction; `signed` negates them if lower is better. `beyond` is the
    factor by which the compared point lies outside the fitted range of each family (1: inside).
    """

    points: Points
    fits: Mapping[str, Any]
    values: Floats
    draws: Floats
    beyond: Floats
    notes: tuple[str, ...] = ()

    @property
    def families(self) -> tuple[str, ...]:
        """Return the families in column order."""
        return tuple(self.fits)

    @property
    def sign(self) -> int:
        """Return 1 if higher is better, else -1."""
        return 1 if self.points.rises else -1


def likely(hits: Any, axis: int | None = None) -> Any:
    """Return the share of resamples for which a claim is true; never 0 or 1, which resamples cannot show."""
    count = hits.shape[0]
    return (hits.sum(axis=axis) + 0.5) / (count + 1)


def ranking(values: Floats, draws: Floats) -> tuple[list[int], float]:
    """Return the order of F families, best first, and the probability of exactly this order.

    :param values: scores (F,), higher is better; `draws` (R, F) are their paired resamples.
    """
    order = np.argsort(-values, kind="stable")
    kept = draws[:, order]
    return [int(i) for i in order], float(likely((kept[:, :-1] > kept[:, 1:]).all(axis=1)))


def best(draws: Floats) -> Floats:
    """Return the probability (F,) that each family is the best, from paired draws (R, F); higher is better.

    Tied best families share the probability.
    """
    top = draws == draws.max(axis=1, keepdims=True)
    return np.asarray(likely(top / top.sum(axis=1, keepdims=True), axis=0))


def read_matches(source: PointStore | pd.DataFrame, asked: Asked, host: Any, **chosen: Any) -> Iterator[Match]:
    """Yield every task with at least two fitted families.

    :param source: a store, or a table with one row per checkpoint, a column family, and `metric` and `value` or a
        column named like the metric.
    :param host: the registries with metrics and laws.
    :param chosen: task (default: all) and where (an expression over points).

    Raises UsageError for a table without a family or without the requested metric.
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
    """Return the store with the same resamples of documents for every fit, independent of the seed for runs."""

    def replicates(
        points: pd.DataFrame, names: Sequence[str], count: int, rng: np.random.Generator
    ) -> dict[str, Floats]:
        del rng
        return store.replicates(points, names, count, np.random.default_rng([seed, 1]))

    shared = copy(store)  # a store, or a table with the same interface
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
            raise UsageError(f"pass the column of the scores with --metric; the table has: {choose(frame.columns)}")
        frame = frame.assign(metric=asked.metric, value=frame[asked.metric]).drop(columns=asked.metric)
    frame = frame.assign(task=frame.get("task", ""))
    refuse_unnamed(frame, ("task", "family", "metric"))
    for (name, metric), own in frame.groupby(["task", "metric"], sort=True):
        if task in (None, name) and asked.metric in (None, metric):
            rises = host.metrics[metric].higher_is_better if metric in host.metrics else True
            yield Points(str(name), str(metric), rises and not asked.lower_is_better, own.reset_index(drop=True))


def _match(points: Points, asked: Asked, host: Any) -> Match:
    """Fit every family of a task; add a note for each family that cannot be fitted."""
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
    """Fit one family; raise LawError if it cannot be fitted, or has as many parameters as points."""
    from harness.points import ends, widen

    wide = widen(own)
    wide = wide[ends(wide)] if asked.features in SIZES else wide
    options: dict[str, Any] = {"bootstrap": asked.bootstrap, "level": asked.level}
    if asked.pareto:
        rng = np.random.default_rng([seed, 2])
        return frontier(wide, points.metric, rises=points.rises, rng=rng, **options)
    law = law_of(asked, points, wide, host)
    found = harness.fit(wide, law, value=points.metric, store=points.store, registries=host, seed=seed, **options)
    if not all(step.dof for step in found.steps):
        raise LawError(
            f"{len(wide)} points leave {law.name} no degree of freedom, so that its intervals are unknown; choose a "
            "--law with fewer parameters"
        )
    return found


def law_of(asked: Asked, points: Points, wide: pd.DataFrame, host: Any) -> Any:
    """Return the requested or default law of the equal quantities; raise UsageError if there is none."""
    from harness.laws import ProcedureLaw, steps_of
    from harness.points import column

    law = host.laws[asked.law or _default(asked.features, points, column(wide, points.metric))]
    features = tuple(sorted(steps_of(law)[0].features))
    if isinstance(law, ProcedureLaw):
        raise UsageError(
            f"law {law.name!r} is a procedure, and resamples of procedures cannot be paired; choose a formula"
        )
    if features == tuple(sorted(asked.features)):
        return law
    if features == ("flops",) and len(asked.features) == 1 and hasattr(law, "formula"):
        scale = asked.features[0]
        return Along(law, scale, MIDDLE / float(np.exp(np.log(column(wide, scale)).mean())))
    raise UsageError(
        f"law {law.name!r} is a function of {', '.join(features)}; families are compared at {asked.label}: choose "
        "another --law, or give all of these in --at"
    )


def _default(features: tuple[str, ...], points: Points, values: Floats) -> str:
    """Return the default law for the equal quantities."""
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
    """A law of FLOPs applied to another scale, multiplied by `unit` so that its values resemble FLOPs."""

    law: FormulaLaw
    scale: str
    unit: float = field(default=1.0)

    @property
    def name(self) -> str:
        """Return the name of the law and its scale."""
        return f"{self.law.name} of {self.scale}"

    @property
    def features(self) -> tuple[str, ...]:
        """Return the scale."""
        return (self.scale,)

    def formula(self, **columns: Floats) -> Floats:
        """Return the values of the law."""
        return self.law.formula(flops=columns.pop(self.scale) * self.unit, **columns)

    def guess(self, y: Floats, **columns: Floats) -> Mapping[str, float]:
        """Return the law's starting values."""
        return self.law.guess(y=y, flops=columns[self.scale] * self.unit)

    def __getattr__(self, name: str) -> Any:
        """Return any other attribute of the law."""
        if name.startswith("__") or name == "own_units":
            raise AttributeError(name)
        return getattr(self.law, name)
