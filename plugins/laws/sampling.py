"""Laws of the pass rate of samples as a function of the number of samples, of parameters, or of compute."""

from __future__ import annotations

import numpy as np

import harness
from harness import Floats

RATE = (0.0, 1.0)


def _reach(y: Floats) -> Floats:
    """Return ln(-ln y) of rates; rates of 0 and 1 are moved inside the open interval."""
    return np.log(-np.log(np.clip(y, 1e-9, 1 - 1e-9)))


class PassAtK:
    """y(k) = exp(-a k^-b): mean pass@k over problems, in the number of samples k (Brown et al. 2024).

    -ln y is a power law in k. Least squares of ln(-ln y), as in the paper. Needs pass@k at several k, with the unbiased
    estimate 1 - C(n - c, k) / C(n, k) per problem. Rows computed from one set of samples are not independent, and they
    do not show how much the unsolved problems differ. Not for a set with problems that never pass.
    """

    name = "pass_at_k"
    avoid = "for one problem: the power law holds for the mean over problems of different difficulty"
    features = ("k",)
    parameters = {"a": (0.0, np.inf), "b": (0.0, 5.0)}
    objective = "loglog_least_squares"
    value_range = RATE
    example = {"a": 3.5, "b": 0.35}
    takes = "pass@k (above 0, below 1) at several k"
    source = "Brown et al. 2024 (Large Language Monkeys), sec. 3"

    def formula(self, k: Floats, a: Floats, b: Floats) -> Floats:
        """Return pass@k."""
        return np.exp(-a * np.exp(-b * np.log(k)))

    def guess(self, y: Floats, k: Floats) -> dict[str, float]:
        """Fit a line to ln(-ln y)."""
        slope, log_a = np.polyfit(np.log(k), _reach(y), 1)
        return {"a": float(np.exp(log_a)), "b": float(max(-slope, 1e-3))}


class PassUntil:
    """PU(N) = exp(-c N^-alpha): the pass rate of samples as a function of parameters (after Hu et al. 2024).

    Fitted by the binomial likelihood of successes among trials, so a model that never passed contributes too.
    ln(-ln PU) is linear in ln N: a convex curve rises more slowly than the law, a concave one shows accelerated
    emergence. Needs rates with the column trials (and successes), or another --objective. One correct prediction
    beyond the ladder does not prove the law.
    """

    name = "pass_until"
    avoid = "if rates saturate near 1, or if problems differ much in difficulty"
    features = ("params",)
    parameters = {"log_c": (-np.inf, np.inf), "alpha": (0.0, 5.0)}
    objective = "binomial"
    value_range = RATE
    example = {"log_c": 5.0, "alpha": 0.2}
    takes = "rates of success with a column trials, at 3 sizes or more"
    source = "after Hu et al. 2024 (Predicting emergent abilities)"

    def formula(self, params: Floats, log_c: Floats, alpha: Floats) -> Floats:
        """Return PU."""
        return np.exp(-np.exp(log_c - alpha * np.log(params)))

    def guess(self, y: Floats, params: Floats) -> dict[str, float]:
        """Fit a line to ln(-ln y)."""
        slope, log_c = np.polyfit(np.log(params), _reach(y), 1)
        return {"log_c": float(log_c), "alpha": float(max(-slope, 1e-3))}

    def derived(self, log_c: Floats, alpha: Floats) -> dict[str, Floats]:
        """Return c."""
        return {"c": np.exp(log_c)}


class Generative:
    """y(C) = exp(-(E0 + C0 C^-alpha)): pass@k or another rate as a function of training FLOPs (Schaeffer et al. 2025).

    -ln y is a power law with an offset E0 >= 0. Least squares of ln(-ln y); --objective binomial for counted successes.
    Needs at least four budgets. E0 is poorly determined unless some rates are close to exp(-E0).
    """

    name = "generative"
    avoid = "for multiple-choice accuracy, whose chance level is above 0"
    features = ("flops",)
    parameters = {"E0": (0.0, np.inf), "log_C0": (-np.inf, np.inf), "alpha": (0.0, 5.0)}
    objective = "loglog_least_squares"
    value_range = RATE
    example = {"E0": 0.8, "log_C0": 9.9, "alpha": 0.22}
    takes = "a rate (above 0, below 1) at 4 budgets or more"
    source = "Schaeffer et al. 2025 (Pretraining scaling laws for generative evaluations)"

    def formula(self, flops: Floats, E0: Floats, log_C0: Floats, alpha: Floats) -> Floats:
        """Return y."""
        return np.exp(-(E0 + np.exp(log_C0 - alpha * np.log(flops))))

    def guess(self, y: Floats, flops: Floats) -> dict[str, float]:
        """Set E0 to half of the smallest -ln y, and fit a line to the logarithm of the remainder."""
        reach = np.exp(_reach(y))
        E0 = 0.5 * float(reach.min())
        slope, log_C0 = np.polyfit(np.log(flops), np.log(reach - E0), 1)
        return {"E0": E0, "log_C0": float(log_C0), "alpha": float(max(-slope, 1e-3))}

    def derived(self, E0: Floats, log_C0: Floats, alpha: Floats) -> dict[str, Floats]:
        """Return C0, and the rate at unlimited compute."""
        return {"C0": np.exp(log_C0), "ceiling": np.exp(-E0)}


class GenerativeND:
    """y(N, D) = exp(-(E0 + e^a N^-beta + e^c D^-gamma)): the same for parameters and tokens (Schaeffer et al. 2025).

    Least squares of ln(-ln y). Needs runs that vary N and D separately.
    """

    name = "generative_nd"
    avoid = "for multiple-choice accuracy, and if params and tokens grow in a fixed ratio"
    features = ("params", "tokens")
    parameters = {
        "E0": (0.0, np.inf),
        "a": (-np.inf, np.inf),
        "beta": (0.0, 5.0),
        "c": (-np.inf, np.inf),
        "gamma": (0.0, 5.0),
    }
    objective = "loglog_least_squares"
    value_range = RATE
    example = {"E0": 0.8, "a": 6.0, "beta": 0.3, "c": 8.0, "gamma": 0.35}
    published_starts = {
        "E0": (float(np.exp(-3)), 1.0),
        "a": (3.0, 8.0),
        "beta": (0.3,),
        "c": (3.0, 8.0),
        "gamma": (0.3,),
    }
    takes = "a rate (above 0, below 1) of 6 runs or more that vary params and tokens separately"
    source = "Schaeffer et al. 2025"

    def formula(
        self,
        params: Floats,
        tokens: Floats,
        E0: Floats,
        a: Floats,
        beta: Floats,
        c: Floats,
        gamma: Floats,  # the paper's letter
    ) -> Floats:
        """Return y."""
        return np.exp(-(E0 + np.exp(a - beta * np.log(params)) + np.exp(c - gamma * np.log(tokens))))

    def guess(self, y: Floats, params: Floats, tokens: Floats) -> dict[str, float]:
        """Set E0 to half of the smallest -ln y, and split the remainder evenly between parameters and tokens."""
        reach = np.exp(_reach(y))
        E0 = 0.5 * float(reach.min())
        half = np.log(float(np.median(reach)) - E0) - np.log(2)
        a, c = (half + 0.3 * float(np.log(np.median(x))) for x in (params, tokens))
        return {"E0": E0, "a": a, "beta": 0.3, "c": c, "gamma": 0.3}


@harness.hookimpl
def register_laws(register: harness.Register) -> None:
    """Register the laws of pass rates."""
    for law in (PassAtK(), PassUntil(), Generative(), GenerativeND()):
        register(law)
