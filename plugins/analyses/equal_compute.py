"""Compare families at equal compute, size, tokens or loss, from fitted curves with paired resamples.

Resample r uses the same documents for all families. Runs are redrawn independently for each family.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

import harness
from harness import Floats, LawError, MetricError, UsageError
from harness_plugins.analyses.equal_points import Points, RankOptions, read_points
from harness_plugins.analyses.frontier import frontier

if TYPE_CHECKING:
    import pandas as pd

    from harness import PointStore
    from harness.laws import FormulaLaw

SIZES = {("params",), ("tokens",)}  # for these scales, the curve uses only the last checkpoint of each run
MIDDLE = 1e20  # typical FLOPs of a law; other scales are multiplied so that their middle has this value


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
    ordered = draws[:, order]
    return [int(i) for i in order], float(likely((ordered[:, :-1] > ordered[:, 1:]).all(axis=1)))


def best(draws: Floats) -> Floats:
    """Return the probability (F,) that each family is the best, from paired draws (R, F); higher is better.

    Tied best families share the probability.
    """
    top = draws == draws.max(axis=1, keepdims=True)
    return np.asarray(likely(top / top.sum(axis=1, keepdims=True), axis=0))


def read_matches(source: PointStore | pd.DataFrame, asked: RankOptions, host: Any, **chosen: Any) -> Iterator[Match]:
    """Yield every task with at least two fitted families.

    :param source: a store, or a table with one row per checkpoint, a column family, and `metric` and `value` or a
        column named like the metric.
    :param host: the registries with metrics and laws.
    :param chosen: task (default: all) and where (an expression over points).

    Raises UsageError for a table without a family or without the requested metric.
    """
    for points in read_points(source, asked, host, **chosen):
        yield _match(points, asked, host)


def _match(points: Points, asked: RankOptions, host: Any) -> Match:
    """Fit every family of a task; add a note for each family that cannot be fitted."""
    fits: dict[str, Any] = {}
    notes: list[str] = []
    for number, (family, family_points) in enumerate(points.frame.groupby("family", sort=True)):
        try:
            fit = _fit(points, family_points, asked, host, seed=asked.seed + number)
            fits[str(family)] = (fit, fit.curve(asked.x)[0], fit.draws(asked.x)[:, 0])
        except (LawError, MetricError) as error:
            notes.append(f"{points.task or points.metric}, {family}: {error}")
    beyond = [
        max(_beyond(value, fit.domain[name]) for name, value in asked.places.items()) for fit, _, _ in fits.values()
    ]
    values = np.array([value for _, value, _ in fits.values()])
    draws = np.stack([draw for _, _, draw in fits.values()], axis=1) if fits else np.empty((0, 0))
    curves = {family: fit for family, (fit, _, _) in fits.items()}
    return Match(points, curves, values, draws, np.array(beyond), tuple(notes))


def _beyond(at: float, domain: tuple[float, float]) -> float:
    return max(1.0, at / domain[1], domain[0] / at)


def _fit(points: Points, family_points: pd.DataFrame, asked: RankOptions, host: Any, *, seed: int) -> Any:
    """Fit one family; raise LawError if it cannot be fitted, or has as many parameters as points."""
    from harness.points import ends, widen

    wide = widen(family_points)
    wide = wide[ends(wide)] if asked.features in SIZES else wide
    options: dict[str, Any] = {"bootstrap": asked.bootstrap, "level": asked.level}
    if asked.pareto:
        rng = np.random.default_rng([seed, 2])
        return frontier(wide, points.metric, rises=points.rises, rng=rng, **options)
    law = law_of(asked, points, wide, host)
    fit = harness.fit(wide, law, value=points.metric, store=points.store, registries=host, seed=seed, **options)
    if fit.no_freedom:
        raise LawError(fit.no_freedom)
    return fit


def law_of(asked: RankOptions, points: Points, wide: pd.DataFrame, host: Any) -> Any:
    """Return the requested or default law of the equal quantities.

    Raises UsageError for a law of other quantities, LawError if the metric has no default law.
    """
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
    raise LawError(f"{points.metric} at equal {' and '.join(features)} has no default law; choose one with --law")


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
