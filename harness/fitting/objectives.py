"""Objectives of fits: squares or Huber's loss of transformed differences, or the likelihood of counted successes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from harness.errors import LawError, suggest
from harness.types import Floats
from harness.types.laws import traits

LEAST = 1e-300  # smallest probability in a logarithm


@dataclass(frozen=True)
class Objective:
    """Half the sum of squares, or of Huber's loss with `delta`, of differences after `forward`.

    `slope(x, forward(x))` is the derivative of `forward`; values must lie strictly inside `domain`.
    """

    name: str
    about: str
    forward: Callable[[Floats], Floats]
    inverse: Callable[[Floats], Floats]
    slope: Callable[[Floats, Floats], Floats]
    delta: float | None = None
    domain: tuple[float, float] = (-np.inf, np.inf)
    counts = False

    @property
    def is_plain(self) -> bool:
        """Return whether residuals are differences of values, so that their derivatives are those of the curve."""
        return self.slope is _one and self.delta is None and not self.counts

    def check(self, law: str, y: Floats) -> None:
        """Raise LawError for values (n,) outside the domain of the objective."""
        low, high = self.domain
        if not ((y > low) & (y < high)).all():
            wanted = f"above {low:g}" + (f" and below {high:g}" if np.isfinite(high) else "")
            raise LawError(f"law {law!r}: {self.name} needs values {wanted}, found {y.min():.4g} to {y.max():.4g}")

    def residuals(self, value: Floats, y: Floats, trials: Floats | None = None) -> Floats:  # noqa: ARG002  # for counts
        """Return the differences of a curve (R, n) from values y, to which `forward` was applied."""
        return self.forward(value) - y

    def slopes(
        self,
        value: Floats,
        residuals: Floats,
        y: Floats,
        trials: Floats | None = None,  # noqa: ARG002  # for counts
    ) -> Floats:
        """Return the derivatives of `residuals` by the curve."""
        return self.slope(value, residuals + y)

    def noisy(self, value: Floats, scatter: float | Floats, z: Floats) -> Floats:
        """Return new measurements of a curve: z (R, n) are standard normal, or Student's."""
        return self.inverse(self.forward(value) + scatter * z)


@dataclass(frozen=True)
class Binomial(Objective):
    """The likelihood of successes among trials: half the deviance is minimised, as squares of deviance residuals.

    Points with zero successes contribute; a log objective would drop them. Variance in excess of the binomial one is
    the beta-binomial variance rho p (1 - p) (Williams 1982); its square root is the scatter.
    """

    counts = True

    def check(self, law: str, y: Floats) -> None:
        """Raise LawError for rates outside 0 to 1, and if all rates are 0 or all are 1."""
        if not ((y >= 0) & (y <= 1)).all():
            raise LawError(f"law {law!r}: {self.name} needs rates from 0 to 1, found {y.min():.4g} to {y.max():.4g}")
        if (y == 0).all() or (y == 1).all():
            raise LawError(f"law {law!r}: all {len(y)} points have the rate {y[0]:g}; expected different rates")

    def residuals(self, value: Floats, y: Floats, trials: Floats | None = None) -> Floats:
        """Return deviance residuals (R, n), NaN for values outside 0 to 1."""
        from scipy.special import xlogy

        p = np.where((value >= 0) & (value <= 1), np.clip(value, LEAST, 1 - np.finfo(float).eps / 2), np.nan)
        divergence = xlogy(y, y / p) + xlogy(1 - y, (1 - y) / (1 - p))
        deviance_residuals: Floats = np.sign(p - y) * np.sqrt(2 * _known(trials) * np.maximum(divergence, 0.0))
        return deviance_residuals

    def slopes(self, value: Floats, residuals: Floats, y: Floats, trials: Floats | None = None) -> Floats:
        """Return the derivatives of the residuals by the rate; the limit where rate and curve are equal."""
        p, n = np.clip(value, LEAST, 1 - np.finfo(float).eps / 2), _known(trials)
        spread = n / (p * (1 - p))
        near = np.abs(residuals) < 1e-4
        derivatives: Floats = np.where(near, np.sqrt(spread), spread * (p - y) / np.where(near, 1.0, residuals))
        return derivatives

    def noisy(self, value: Floats, scatter: float | Floats, z: Floats) -> Floats:
        """Return rates drawn from beta distributions around a curve, with the variance scatter^2 p (1 - p)."""
        from scipy import stats

        rho = np.clip(np.square(scatter), 0.0, 0.99) * np.ones_like(value)
        p = np.clip(value, 1e-12, 1 - 1e-12)
        size = np.where(rho > 1e-9, 1 / np.maximum(rho, 1e-9) - 1, 1.0)
        drawn = stats.beta.ppf(stats.norm.cdf(z), p * size, (1 - p) * size)
        return np.where(rho > 1e-9, drawn, value)


def _known(trials: Floats | None) -> float | Floats:
    return 1.0 if trials is None else trials


def _same(x: Floats) -> Floats:
    return x


def _one(x: Floats, _: Floats) -> Floats:
    return np.ones_like(x)


def _log(x: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(x)


def _by_log(x: Floats, _: Floats) -> Floats:
    return 1 / x


def _log1p(x: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log1p(x)


def _loglog(x: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(-np.log(x))


def _listed(*objectives: Objective) -> dict[str, Objective]:
    return {objective.name: objective for objective in objectives}


POSITIVE = (0.0, np.inf)
OBJECTIVES = _listed(
    Objective("least_squares", "squares of y", _same, _same, _one),
    Objective("log_least_squares", "squares of ln y", _log, np.exp, _by_log, domain=POSITIVE),
    Objective(
        "log1p_least_squares",
        "squares of ln(y + 1)",
        _log1p,
        np.expm1,
        lambda x, _: 1 / (1 + x),
        domain=(-1.0, np.inf),
    ),
    Objective(
        "loglog_least_squares",
        "squares of ln(-ln y)",
        _loglog,
        lambda z: np.exp(-np.exp(z)),
        lambda x, z: -np.exp(-z) / x,
        domain=(0.0, 1.0),
    ),
    Objective("huber", "Huber's loss (delta 1e-3) of y", _same, _same, _one, delta=1e-3),
    Objective("log_huber", "Huber's loss (delta 1e-3) of ln y", _log, np.exp, _by_log, delta=1e-3, domain=POSITIVE),
    Binomial("binomial", "likelihood of successes among trials", _same, _same, _one),
)


def objective_of(law: object, name: str | None = None) -> Objective:
    """Return the objective of that name, or the default of the law."""
    name = name or traits(law).objective
    if name not in OBJECTIVES:
        raise LawError(f"there is no objective {name!r}; {suggest(name, OBJECTIVES)}")
    return OBJECTIVES[name]
