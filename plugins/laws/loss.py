"""Laws of loss as a function of compute, parameters and tokens."""

from __future__ import annotations

import numpy as np

import harness
from harness import Floats

UNKNOWN = "formula unverified"  # not compared with the paper; tested on its own simulations only
EXPONENT = 0.35  # starting value for parameters and tokens, close to the results of Hoffmann et al. 2022


class Power:
    """L(C) = E + e^a / C^alpha: a power law with an offset, in training FLOPs.

    E is the irreducible part; e^a and alpha describe the reducible part (Hoffmann et al. 2022, eq. 2, in compute; the
    compute-only form of Bhagia et al. 2024). Fits any positive value that falls with compute: loss in nats, bits per
    byte, -log p of the correct answer. Needs at least three budgets. Not for a value with a floor *and* a ceiling.
    """

    name = "power"
    avoid = "for accuracy, which has a ceiling, and over checkpoints of one run whose learning rate has not decayed"
    features = ("flops",)
    parameters = {"E": (0.0, np.inf), "a": (-np.inf, np.inf), "alpha": (0.0, 5.0)}
    linear = {"E": "linear", "a": "log"}
    objective = "log_huber"
    value_range = (0.0, np.inf)
    example = {"E": 1.7, "a": 7.0, "alpha": 0.15}
    takes = "4 budgets or more; a positive value that falls"
    source = "Hoffmann et al. 2022, eq. 2, in compute"

    def formula(self, flops: Floats, E: Floats, a: Floats, alpha: Floats) -> Floats:
        """Return L."""
        return E + np.exp(a - alpha * np.log(flops))

    def guess(self, y: Floats, flops: Floats) -> dict[str, float]:
        """Set E to 90 % of the smallest value, and fit a line to the logarithm of the remainder."""
        E = 0.9 * float(y.min())
        slope, a = np.polyfit(np.log(flops), np.log(y - E), 1) if len(set(flops)) > 1 else (-0.1, 0.0)
        return {"E": E, "a": float(a), "alpha": float(max(-slope, 1e-3))}

    def derived(self, E: Floats, a: Floats, alpha: Floats) -> dict[str, Floats]:
        """Return A = e^a."""
        return {"A": np.exp(a)}


def split_evenly(y: Floats, *features: Floats) -> tuple[float, list[float]]:
    """Return starting values for E + sum of e^a / x^EXPONENT: E, and one a per feature x.

    E is 90 % of the smallest value of y (n,). At the features' medians, each term gets an equal share of the median's
    excess over E.
    """
    E = 0.9 * float(y.min())
    share = np.log(float(np.median(y)) - E) - np.log(len(features))
    return E, [share + EXPONENT * float(np.log(np.median(x))) for x in features]


class Chinchilla:
    """L(N, D) = E + e^a / N^alpha + e^b / D^beta: loss from parameters and tokens (Hoffmann et al. 2022, eq. 2).

    Objective as in the paper (approach 3): sum of Huber losses (delta 1e-3) of log residuals, A = e^a, B = e^b. Needs
    runs that vary N and D separately. If all runs have the same tokens per parameter, use power instead. If the fit
    gives E = 0, do not extrapolate. At C = 6 N D the optimal N grows as C^(beta / (alpha + beta)).
    """

    name = "chinchilla"
    avoid = "if params and tokens grow in a fixed ratio: alpha and beta are then not determined separately"
    features = ("params", "tokens")
    parameters = {
        "E": (0.0, np.inf),
        "a": (-np.inf, np.inf),
        "alpha": (0.0, 5.0),
        "b": (-np.inf, np.inf),
        "beta": (0.0, 5.0),
    }
    linear = {"E": "linear", "a": "log", "b": "log"}
    objective = "log_huber"
    value_range = (0.0, np.inf)
    example = {"E": 1.82, "a": 6.2, "alpha": 0.35, "b": 7.7, "beta": 0.37}
    published_starts = {
        "E": tuple(np.exp([-1.0, -0.5, 0.0, 0.5, 1.0])),
        "a": (0.0, 5.0, 10.0, 15.0, 20.0, 25.0),
        "alpha": (0.0, 0.5, 1.0, 1.5, 2.0),
        "b": (0.0, 5.0, 10.0, 15.0, 20.0, 25.0),
        "beta": (0.0, 0.5, 1.0, 1.5, 2.0),
    }
    takes = "6 runs or more that vary params and tokens separately"
    source = "Hoffmann et al. 2022, approach 3"

    def formula(
        self,
        params: Floats,
        tokens: Floats,
        E: Floats,
        a: Floats,
        alpha: Floats,
        b: Floats,
        beta: Floats,  # the paper's letter
    ) -> Floats:
        """Return L."""
        return E + np.exp(a - alpha * np.log(params)) + np.exp(b - beta * np.log(tokens))

    def guess(self, y: Floats, params: Floats, tokens: Floats) -> dict[str, float]:
        """Set E to 90 % of the smallest value, and split the remainder evenly between parameters and tokens."""
        E, (a, b) = split_evenly(y, params, tokens)
        return {"E": E, "a": a, "alpha": EXPONENT, "b": b, "beta": EXPONENT}

    def derived(self, E: Floats, a: Floats, alpha: Floats, b: Floats, beta: Floats) -> dict[str, Floats]:
        """Return A, B, and the exponent with which the optimal N grows with compute."""
        return {"A": np.exp(a), "B": np.exp(b), "exponent of N*": beta / (alpha + beta)}


class OverTrained:
    """L(N, D) = E + a N^c + b 6^(c/2) D^c: loss of models trained on more tokens than is optimal (Gadre et al. 2024).

    The paper's L(N, M) = a N^c + b 6^(c/2) (M N)^c + E with M = D / N. This is Chinchilla's law with one exponent c < 0
    for N and D, so that curves of equal M are parallel. Least squares of L, as in the paper. Four parameters: a few
    small runs and one overtrained run suffice. Not if N and D have different exponents; fit chinchilla to check this.
    """

    name = "over_trained"
    avoid = "if all runs have the same tokens per parameter"
    features = ("params", "tokens")
    parameters = {"a": (0.0, np.inf), "b": (0.0, np.inf), "c": (-2.0, 0.0), "E": (0.0, np.inf)}
    linear = {"a": "linear", "b": "linear", "E": "linear"}
    value_range = (0.0, np.inf)
    example = {"a": 170.0, "b": 370.0, "c": -0.27, "E": 1.8}
    published_starts = {
        "a": (1e2, 3e2, 1e3, 3e3),
        "b": (1e2, 3e2, 1e3, 3e3),
        "c": (-0.1, -0.3),
        "E": (0.0, 1.0, 2.0, 10.0),
    }
    takes = "5 runs or more, one of them with more tokens per parameter"
    source = "Gadre et al. 2024, scaling of overtrained models"

    def formula(self, params: Floats, tokens: Floats, a: Floats, b: Floats, c: Floats, E: Floats) -> Floats:
        """Return L."""
        loss: Floats = E + a * np.exp(c * np.log(params)) + b * np.exp(c * (np.log(tokens) + np.log(6) / 2))
        return loss

    def guess(self, y: Floats, params: Floats, tokens: Floats) -> dict[str, float]:
        """Set E to 90 % of the smallest value, and split the remainder evenly between parameters and tokens."""
        E, c = 0.9 * float(y.min()), -0.3
        half = (float(np.median(y)) - E) / 2
        a, b = (half * float(np.median(x)) ** -c for x in (params, tokens))
        return {"a": a, "b": b * 6 ** (-c / 2), "c": c, "E": E}

    def derived(self, a: Floats, b: Floats, c: Floats, E: Floats) -> dict[str, Floats]:
        """Return eta of the compute form L = E + (a' M^eta + b' M^-eta) C^-eta."""
        return {"eta": -c / 2, "a'": a * 6 ** (-c / 2), "b'": b * np.ones_like(c)}


class Kaplan:
    """L(N, D) = ((N_c / N)^(alpha_N / alpha_D) + D_c / D)^alpha_D: loss without an irreducible part.

    After Kaplan et al. 2020; experimental, because the formula was not compared with the paper. Least squares of ln L.
    Not for ladders long enough to show an irreducible loss: without E, the predicted loss tends to 0.
    """

    name = "kaplan"
    avoid = "to extrapolate far: the law has no irreducible loss, so it predicts losses that are too low"
    experimental = UNKNOWN
    features = ("params", "tokens")
    parameters = {
        "log_N_c": (-np.inf, np.inf),
        "alpha_N": (1e-3, 2.0),
        "log_D_c": (-np.inf, np.inf),
        "alpha_D": (1e-3, 2.0),
    }
    objective = "log_least_squares"
    value_range = (0.0, np.inf)
    example = {"log_N_c": 32.1, "alpha_N": 0.076, "log_D_c": 31.6, "alpha_D": 0.095}
    takes = "5 runs or more that vary params and tokens separately"
    source = "after Kaplan et al. 2020"

    def formula(
        self, params: Floats, tokens: Floats, log_N_c: Floats, alpha_N: Floats, log_D_c: Floats, alpha_D: Floats
    ) -> Floats:
        """Return L."""
        of_params = alpha_N / alpha_D * (log_N_c - np.log(params))
        return np.exp(alpha_D * np.logaddexp(of_params, log_D_c - np.log(tokens)))

    def guess(self, y: Floats, params: Floats, tokens: Floats) -> dict[str, float]:
        """Let each term alone equal half of the median loss, with exponents of 0.1."""
        half = np.log(float(np.median(y))) / 0.1 - np.log(2)
        centres = (float(np.median(np.log(x))) for x in (params, tokens))
        log_N_c, log_D_c = (half + centre for centre in centres)
        return {"log_N_c": log_N_c, "alpha_N": 0.1, "log_D_c": log_D_c, "alpha_D": 0.1}

    def derived(self, log_N_c: Floats, alpha_N: Floats, log_D_c: Floats, alpha_D: Floats) -> dict[str, Floats]:
        """Return N_c and D_c."""
        return {"N_c": np.exp(log_N_c), "D_c": np.exp(log_D_c)}


class Farseer:
    """L(N, D) = exp(a3 n^gamma + b3) + exp(a2 n^beta + b2) d^(-exp(a1 n^alpha + b1)), n and d in billions.

    After Farseer (Li et al. 2025); experimental, because the formula was not compared with the paper. The exponent of
    tokens depends on the model size. Least squares of ln L. Its nine parameters are strongly correlated: judge the law
    by held-out points, not by its parameters, and fit it to at least 20 runs.
    """

    name = "farseer"
    avoid = "for fewer than 20 runs: its nine parameters follow noise"
    experimental = UNKNOWN
    features = ("params", "tokens")
    own_units = ("params", "tokens")
    parameters = {
        "a3": (-3.0, 3.0),
        "gamma": (-1.0, 1.0),
        "b3": (-3.0, 3.0),
        "a2": (-3.0, 3.0),
        "beta": (-1.0, 1.0),
        "b2": (-3.0, 3.0),
        "a1": (-3.0, 3.0),
        "alpha": (-1.0, 1.0),
        "b1": (-3.0, 3.0),
    }
    objective = "log_least_squares"
    value_range = (0.0, np.inf)
    example = {
        "a3": 0.3,
        "gamma": -0.25,
        "b3": 0.55,
        "a2": 0.5,
        "beta": -0.2,
        "b2": -0.3,
        "a1": -0.15,
        "alpha": 0.2,
        "b1": -0.9,
    }
    takes = "20 runs or more that vary params and tokens separately"
    source = "after Li et al. 2025 (Farseer)"

    def formula(self, params: Floats, tokens: Floats, **p: Floats) -> Floats:
        """Return L."""
        n, d = np.log(params / 1e9), np.log(tokens / 1e9)
        offset, factor, exponent = (
            np.exp(p[a] * np.exp(p[power] * n) + p[b])
            for a, power, b in (("a3", "gamma", "b3"), ("a2", "beta", "b2"), ("a1", "alpha", "b1"))
        )
        loss: Floats = offset + factor * np.exp(-exponent * d)
        return loss

    def guess(self, y: Floats, params: Floats, tokens: Floats) -> dict[str, float]:
        """Start from a law of tokens alone, with half of the smallest loss as offset."""
        half, flat = float(np.log(y.min() / 2)), {"a3": 0.1, "a2": 0.1, "a1": 0.1}
        return {**flat, "gamma": -0.1, "beta": -0.1, "alpha": 0.1, "b3": half, "b2": half, "b1": -1.0}


@harness.hookimpl
def register_laws(register: harness.Register) -> None:
    """Register the laws of loss."""
    for law in (Power(), Chinchilla(), OverTrained(), Kaplan(), Farseer()):
        register(law)
