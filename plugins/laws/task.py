"""Laws of downstream tasks: from compute to accuracy, in one step and in two."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import harness
from harness import Floats
from harness.laws import FormulaLaw
from harness_plugins.laws.loss import Chinchilla, Power


def logistic(x: Floats) -> Floats:
    """Return 1 / (1 + e^-x), without overflow."""
    return 0.5 * (1 + np.tanh(x / 2))


class Sigmoid:
    """y(C) = lo + (hi - lo) / (1 + exp(-k (log10 C - x0))): accuracy straight from training FLOPs.

    The plain alternative to two steps. lo and hi are asymptotes, x0 the decade of compute where half the way is done,
    k the slope there. Four parameters: needs points on both sides of x0, or lo and hi are guesses.
    """

    name = "sigmoid"
    features = ("flops",)
    parameters = {"lo": (0.0, 1.0), "hi": (0.0, 1.0), "k": (0.0, 20.0), "x0": (10.0, 30.0)}
    value_range = (0.0, 1.0)
    example = {"lo": 0.25, "hi": 0.9, "k": 1.5, "x0": 20.0}

    def formula(self, flops: Floats, lo: Floats, hi: Floats, k: Floats, x0: Floats) -> Floats:
        """Return y."""
        return lo + (hi - lo) * logistic(k * (np.log10(flops) - x0))

    def guess(self, y: Floats, flops: Floats) -> dict[str, float]:
        """Take the ends of the data for asymptotes and the middle of its range for x0."""
        x = np.log10(flops)
        lo, hi = float(y.min()), float(y.max())
        middle = float(x[np.argmin(np.abs(y - (lo + hi) / 2))])
        return {"lo": lo, "hi": hi, "k": 4 / max(float(np.ptp(x)), 0.1), "x0": middle}


class AccuracyFromLoss:
    """Acc(X) = q + p / (1 + exp(-k (X - x0))): accuracy from the task's own loss (Bhagia et al. 2024, eq. 3).

    X is a task loss that falls towards 0, such as -log p of the right answer. p in [-1, 0], so accuracy rises as X
    falls; a model with X = 0 is always right, which is one more point of the fit.
    """

    name = "accuracy_from_loss"
    features = ("loss",)
    parameters = {"p": (-1.0, 0.0), "x0": (0.0, np.inf), "k": (0.0, np.inf), "q": (0.0, 1.0)}
    value_range = (0.0, 1.0)
    anchors = (({"loss": 0.0}, 1.0),)
    example = {"p": -0.7, "x0": 2.0, "k": 8.0, "q": 1.0}  # its curve passes through the anchor

    def formula(self, loss: Floats, p: Floats, x0: Floats, k: Floats, q: Floats) -> Floats:
        """Return Acc."""
        return q + p * logistic(k * (loss - x0))

    def guess(self, y: Floats, loss: Floats) -> dict[str, float]:
        """Begin at the worst accuracy seen, with the turn in the middle of the losses."""
        return {
            "p": float(y.min()) - 1,
            "x0": float(np.median(loss)),
            "k": 4 / max(float(np.ptp(loss)), 0.1),
            "q": 1.0,
        }


@dataclass(frozen=True)
class TwoStep:
    """Task loss from compute, then accuracy from task loss (Bhagia et al. 2024; Gadre et al. 2024).

    The first step is predictable because log-probability keeps its relation to scale; the second carries it to
    accuracy. Resamples of the first go through the second one by one, and the scatter of both is in the interval.
    """

    name: str
    steps: tuple[FormulaLaw, FormulaLaw]
    via: str = "logp_gold"


@harness.hookimpl
def register_laws(register: harness.Register) -> None:
    """Register them."""
    register(Sigmoid())
    register(AccuracyFromLoss())
    register(TwoStep("two_step", (Power(), AccuracyFromLoss())))
    register(TwoStep("two_step_nd", (Chinchilla(), AccuracyFromLoss())))
