"""Laws of loss as a function of other choices of a recipe: precision, parallel streams, width and depth, schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import harness
from harness import Floats, LawError
from harness_plugins.laws.loss import EXPONENT, UNKNOWN, split_evenly

if TYPE_CHECKING:
    import pandas as pd

MEMORY = 0.999  # lambda: decay per step of the effect of a falling learning rate


class Precision:
    """L(N, D, P) = E + e^a / N_eff^alpha + e^b / D^beta, N_eff = N (1 - e^(-P / gamma)): training in P bits.

    After Kumar et al. 2024 (weights only); experimental, because the formula was not compared with the paper. Fewer
    bits act like fewer parameters. Needs runs in several precisions at several N and D. Not for models quantised after
    training, whose loss grows with tokens.
    """

    name = "precision"
    avoid = "across kinds of quantisation (weights, activations, after training), which have different effects"
    experimental = UNKNOWN
    features = ("params", "tokens", "bits")
    parameters = {
        "E": (0.0, np.inf),
        "a": (-np.inf, np.inf),
        "alpha": (0.0, 5.0),
        "b": (-np.inf, np.inf),
        "beta": (0.0, 5.0),
        "gamma": (1e-2, 50.0),
    }
    linear = {"E": "linear", "a": "log", "b": "log"}
    objective = "log_huber"
    value_range = (0.0, np.inf)
    example = {"E": 1.8, "a": 6.2, "alpha": 0.35, "b": 7.7, "beta": 0.37, "gamma": 2.7}
    takes = "runs in several precisions (column bits) at several params and tokens"
    source = "after Kumar et al. 2024"

    def formula(self, params: Floats, tokens: Floats, bits: Floats, **p: Floats) -> Floats:
        """Return L."""
        effective = np.log(params) + np.log(-np.expm1(-bits / p["gamma"]))
        of_params, of_tokens = p["a"] - p["alpha"] * effective, p["b"] - p["beta"] * np.log(tokens)
        loss: Floats = p["E"] + np.exp(of_params) + np.exp(of_tokens)
        return loss

    def guess(self, y: Floats, params: Floats, tokens: Floats, bits: Floats) -> dict[str, float]:
        """Set E to 90 % of the smallest value, and split the remainder evenly between parameters and tokens."""
        E, (a, b) = split_evenly(y, params, tokens)
        gamma = float(np.median(bits)) / 3
        return {"E": E, "a": a, "alpha": EXPONENT, "b": b, "beta": EXPONENT, "gamma": gamma}


class ParallelStreams:
    """L(N, P) = E + (e^a / (N (1 + k ln P)))^alpha: P parallel streams through one set of weights.

    After Chen et al. 2025 (parallel scaling); experimental, because the formula was not compared with the paper. Needs
    runs on the same tokens with several P at several N.
    """

    name = "parallel_streams"
    avoid = "across data sets or training tokens, which the law does not contain"
    experimental = UNKNOWN
    features = ("params", "streams")
    parameters = {"E": (0.0, np.inf), "a": (-np.inf, np.inf), "alpha": (1e-3, 5.0), "k": (0.0, 10.0)}
    objective = "log_huber"
    value_range = (0.0, np.inf)
    example = {"E": 0.9, "a": 17.0, "alpha": 0.2, "k": 0.35}
    takes = "runs on the same tokens with several streams at several params"
    source = "after Chen et al. 2025"

    def formula(self, params: Floats, streams: Floats, E: Floats, a: Floats, alpha: Floats, k: Floats) -> Floats:
        """Return L."""
        return E + np.exp(alpha * (a - np.log(params) - np.log1p(k * np.log(streams))))

    def guess(self, y: Floats, params: Floats, streams: Floats) -> dict[str, float]:
        """Set E to 90 % of the smallest value, and start with a weak effect of streams."""
        E, alpha = 0.9 * float(y.min()), 0.2
        a = float(np.log(np.median(params)) + np.log(np.median(y) - E) / alpha)
        return {"E": E, "a": a, "alpha": alpha, "k": 0.1}


class WidthDepth:
    """L(w, d, D) = E + e^a / w^alpha + e^b / d^beta + e^c / D^gamma: loss from width, depth and tokens.

    After McLeish et al. 2025 (Gemstones); experimental, because the formula was not compared with the paper. Models of
    one size but different shapes differ in loss; a law of parameters treats this as scatter. Needs runs that vary
    width, depth and tokens separately; if depth follows from width, use chinchilla. Width and depth are features of a
    family's sizes.
    """

    name = "width_depth"
    avoid = "if width and depth grow together: their exponents are then not determined separately"
    experimental = UNKNOWN
    features = ("width", "depth", "tokens")
    parameters = {
        "E": (0.0, np.inf),
        "a": (-np.inf, np.inf),
        "alpha": (0.0, 5.0),
        "b": (-np.inf, np.inf),
        "beta": (0.0, 5.0),
        "c": (-np.inf, np.inf),
        "gamma": (0.0, 5.0),
    }
    linear = {"E": "linear", "a": "log", "b": "log", "c": "log"}
    objective = "log_huber"
    value_range = (0.0, np.inf)
    example = {"E": 1.8, "a": 2.5, "alpha": 0.5, "b": 0.3, "beta": 0.8, "c": 7.7, "gamma": 0.37}
    takes = "8 runs or more that vary width, depth and tokens separately"
    source = "after McLeish et al. 2025"

    def formula(self, width: Floats, depth: Floats, tokens: Floats, **p: Floats) -> Floats:
        """Return L."""
        of_width = np.exp(p["a"] - p["alpha"] * np.log(width))
        of_depth = np.exp(p["b"] - p["beta"] * np.log(depth))
        loss: Floats = p["E"] + of_width + of_depth + np.exp(p["c"] - p["gamma"] * np.log(tokens))
        return loss

    def guess(self, y: Floats, width: Floats, depth: Floats, tokens: Floats) -> dict[str, float]:
        """Set E to 90 % of the smallest value, and split the remainder evenly between width, depth and tokens."""
        E, (a, b, c) = split_evenly(y, width, depth, tokens)
        return {"E": E, "a": a, "alpha": EXPONENT, "b": b, "beta": EXPONENT, "c": c, "gamma": EXPONENT}


class LrAnnealing:
    """L(s) = L0 + A S1^-alpha - C S2: a whole loss curve from its learning rates (Tissue et al. 2024).

    S1 is the sum of learning rates up to step s, S2 the annealing area. Experimental: the summation of S2 was not
    compared with the paper. The points are the steps of one loss curve. If the columns s1 and s2 are missing, `areas`
    computes them from `step` and `learning_rate`. Least squares of L, linear in L0, A and C. Exclude the warm-up steps
    with --where. Not for curves of several sizes at once.
    """

    name = "lr_annealing"
    avoid = "to compare runs of different sizes, and during the warm-up"
    experimental = UNKNOWN
    features = ("s1", "s2")
    parameters = {"L0": (0.0, np.inf), "A": (0.0, np.inf), "alpha": (0.0, 5.0), "C": (0.0, np.inf)}
    linear = {"L0": "linear", "A": "linear", "C": "linear"}
    value_range = (0.0, np.inf)
    example = {"L0": 2.6, "A": 0.4, "alpha": 0.5, "C": 0.3}
    takes = "a loss curve: columns step and learning_rate, or s1 and s2; exclude the warm-up with --where"
    source = "after Tissue et al. 2024"

    def formula(self, s1: Floats, s2: Floats, L0: Floats, A: Floats, alpha: Floats, C: Floats) -> Floats:
        """Return L."""
        return L0 + A * np.exp(-alpha * np.log(s1)) - C * s2

    def guess(self, y: Floats, s1: Floats, s2: Floats) -> dict[str, float]:
        """Start without annealing."""
        return {"L0": 0.9 * float(y.min()), "A": 0.5, "alpha": 0.5, "C": 0.1}

    def prepare(self, points: pd.DataFrame) -> pd.DataFrame:
        """Add s1 and s2 to points with columns step and learning_rate."""
        return points if {"s1", "s2"} <= set(points.columns) else areas(points)


def areas(curve: pd.DataFrame, memory: float = MEMORY) -> pd.DataFrame:
    """Add the areas s1 and s2 of each run to a table with columns step and learning_rate.

    s1 is the sum of the learning rates up to a step, interpolated between rows. s2 accumulates the decrease of the
    learning rate with momentum `memory` (lambda), starting at the step of its maximum:
    s2(s) = sum over i <= s of m_i, m_i = lambda m_(i-1) + eta_(i-1) - eta_i. Rows must begin at the first steps of a
    run. Raises LawError if a column is missing.
    """
    import pandas as pd

    from harness.points import runs_of

    missing = {"step", "learning_rate"} - set(curve.columns)
    if missing:
        raise LawError(
            f"the areas s1 and s2 need the columns step and learning_rate; missing: {', '.join(sorted(missing))}"
        )
    told = runs_of(curve)
    runs = [run for _, run in curve.groupby(told.number)] if told.columns else [curve]
    return pd.concat([_areas(run.sort_values("step"), memory) for run in runs]).loc[curve.index]


def _areas(run: pd.DataFrame, memory: float) -> pd.DataFrame:
    from scipy.signal import lfilter

    at = run["step"].to_numpy(dtype=np.int64)
    steps = np.arange(at[0], at[-1] + 1)
    rate = np.interp(steps, at, run["learning_rate"].to_numpy(dtype=np.float64))
    fall = np.concatenate([[0.0], -np.diff(rate)])
    fall[: int(np.argmax(rate)) + 1] = 0.0  # warm-up
    momentum = lfilter([1.0], [1.0, -memory], fall)
    here = at - at[0]
    return run.assign(s1=np.cumsum(rate)[here], s2=np.cumsum(momentum)[here])


@harness.hookimpl
def register_laws(register: harness.Register) -> None:
    """Register the laws of recipes."""
    for law in (Precision(), ParallelStreams(), WidthDepth(), LrAnnealing()):
        register(law)
