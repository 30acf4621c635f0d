"""Laws of loss."""

from __future__ import annotations

import numpy as np

import harness
from harness import Floats


class Power:
    """L(C) = E + e^a / C^alpha: a power law with an offset, in training FLOPs.

    E is the irreducible part, e^a and alpha the reducible one (Hoffmann et al. 2022, eq. 2, in compute; the
    compute-only form of Bhagia et al. 2024). Fits any positive value that falls with compute: loss in nats, bits per
    byte, -log p of the right answer. Needs three or more budgets; not for a value with a floor *and* a ceiling.
    """

    name = "power"
    features = ("flops",)
    parameters = {"E": (0.0, np.inf), "a": (-np.inf, np.inf), "alpha": (0.0, 5.0)}
    objective = "log_huber"
    value_range = (0.0, np.inf)
    example = {"E": 1.7, "a": 7.0, "alpha": 0.15}

    def formula(self, flops: Floats, E: Floats, a: Floats, alpha: Floats) -> Floats:
        """Return L."""
        return E + np.exp(a - alpha * np.log(flops))

    def guess(self, y: Floats, flops: Floats) -> dict[str, float]:
        """Put E at 90 % of the smallest value, and a line through the rest."""
        E = 0.9 * float(y.min())
        slope, a = np.polyfit(np.log(flops), np.log(y - E), 1) if len(set(flops)) > 1 else (-0.1, 0.0)
        return {"E": E, "a": float(a), "alpha": float(max(-slope, 1e-3))}


class Chinchilla:
    """L(N, D) = E + e^a / N^alpha + e^b / D^beta: loss from parameters and tokens (Hoffmann et al. 2022, eq. 2).

    Fitted as there: sum of Huber's loss (delta 1e-3) of the difference of logarithms. Needs runs that vary N and D
    separately.
    """

    name = "chinchilla"
    features = ("params", "tokens")
    parameters = {
        "E": (0.0, np.inf),
        "a": (-np.inf, np.inf),
        "alpha": (0.0, 5.0),
        "b": (-np.inf, np.inf),
        "beta": (0.0, 5.0),
    }
    objective = "log_huber"
    value_range = (0.0, np.inf)
    example = {"E": 1.82, "a": 6.2, "alpha": 0.35, "b": 7.7, "beta": 0.37}

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
        """Split what is above 90 % of the smallest value evenly between parameters and tokens."""
        E = 0.9 * float(y.min())
        half = np.log(float(np.median(y)) - E) - np.log(2)
        a, b = (half + 0.35 * float(np.log(np.median(x))) for x in (params, tokens))
        return {"E": E, "a": a, "alpha": 0.35, "b": b, "beta": 0.35}


@harness.hookimpl
def register_laws(register: harness.Register) -> None:
    """Register them."""
    register(Power())
    register(Chinchilla())
