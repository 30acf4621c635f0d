"""Laws of downstream tasks: accuracy or error as a function of compute or loss, in one step or in two."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import harness
from harness import Floats
from harness.laws import FormulaLaw
from harness_plugins.laws.loss import UNKNOWN, Chinchilla, OverTrained, Power


def logistic(x: Floats) -> Floats:
    """Return 1 / (1 + e^-x), without overflow."""
    return 0.5 * (1 + np.tanh(x / 2))


class Sigmoid:
    """y(C) = lo + (hi - lo) / (1 + exp(-k (log10 C - x0))): accuracy directly from training FLOPs.

    The simple alternative to two steps. lo and hi are the asymptotes, x0 is log10 of the compute at the inflection
    point, k the steepness there. Four parameters: without points on both sides of x0, lo or hi is poorly determined.
    """

    name = "sigmoid"
    avoid = "if no point is above chance: inflection point and ceiling are then poorly determined"
    features = ("flops",)
    parameters = {"lo": (0.0, 1.0), "hi": (0.0, 1.0), "k": (0.0, 20.0), "x0": (10.0, 30.0)}
    value_range = (0.0, 1.0)
    example = {"lo": 0.25, "hi": 0.9, "k": 1.5, "x0": 20.0}
    published_starts = {"lo": (0.0, 0.25), "hi": (0.8,), "k": (1.0,), "x0": (20.0,)}
    takes = "5 budgets or more on both sides of the inflection point; a value from 0 to 1"
    source = "common; cf. Ruan et al. 2024, Bhagia et al. 2024"

    def formula(self, flops: Floats, lo: Floats, hi: Floats, k: Floats, x0: Floats) -> Floats:
        """Return y, as tanh: with few operations on whole arrays, because thousands of points have a thousand fits."""
        half = 0.5 * (hi - lo)
        return (lo + half) + half * np.tanh(0.5 * k * (np.log10(flops) - x0))

    def guess(self, y: Floats, flops: Floats) -> dict[str, float]:
        """Take the smallest and largest value as asymptotes, and the point closest to their middle as x0."""
        x = np.log10(flops)
        lo, hi = float(y.min()), float(y.max())
        middle = float(x[np.argmin(np.abs(y - (lo + hi) / 2))])
        return {"lo": lo, "hi": hi, "k": 4 / max(float(np.ptp(x)), 0.1), "x0": middle}


class AccuracyFromLoss:
    """Acc(X) = q + p / (1 + exp(-k (X - x0))): accuracy from the task's own loss (Bhagia et al. 2024, eq. 3).

    X is a task loss that falls towards 0, such as -log p of the correct answer. p is in [-1, 0], so accuracy rises as X
    falls. A model with X = 0 is always right; this adds the point (0, 1) to the fit.
    """

    name = "accuracy_from_loss"
    avoid = "if no point is above chance, or across tokenizers unless the loss is per byte"
    features = ("loss",)
    parameters = {"p": (-1.0, 0.0), "x0": (0.0, np.inf), "k": (0.0, np.inf), "q": (0.0, 1.0)}
    value_range = (0.0, 1.0)
    anchors = (({"loss": 0.0}, 1.0),)
    example = {"p": -0.7, "x0": 2.0, "k": 8.0, "q": 1.0}  # its curve passes through the anchor
    published_starts = {"p": (-0.75, -0.5), "x0": (0.9,), "k": (3.0,), "q": (1.0,)}
    takes = "4 points or more, some of them above chance; a task loss (column loss) above 0"
    source = "Bhagia et al. 2024, eq. 3"

    def formula(self, loss: Floats, p: Floats, x0: Floats, k: Floats, q: Floats) -> Floats:
        """Return Acc."""
        return q + p * logistic(k * (loss - x0))

    def guess(self, y: Floats, loss: Floats) -> dict[str, float]:
        """Start at the lowest accuracy, with the inflection point at the median loss."""
        return {
            "p": float(y.min()) - 1,
            "x0": float(np.median(loss)),
            "k": 4 / max(float(np.ptp(loss)), 0.1),
            "q": 1.0,
        }


class ErrorFromLoss:
    """Err(L) = eps - k exp(-gamma L): average top-1 error from pretraining or validation loss (Gadre et al. 2024).

    eps is the error of an untrained model. Least squares. The law describes an *average over many tasks* and the losses
    on one validation set. Single tasks and other validation sets need their own fits and often do not follow the law.
    """

    name = "error_from_loss"
    avoid = "for single tasks, and for losses of different validation sets"
    features = ("loss",)
    parameters = {"eps": (0.0, 1.0), "k": (0.0, np.inf), "gamma": (0.0, np.inf)}
    linear = {"eps": "linear", "k": "linear"}
    value_range = (0.0, 1.0)
    example = {"eps": 0.86, "k": 0.8, "gamma": 0.71}
    published_starts = {"eps": (1.0,), "k": (1.0,), "gamma": (1.0,)}
    takes = "4 points or more; an error averaged over tasks, and a column loss"
    source = "Gadre et al. 2024, error law"

    def formula(self, loss: Floats, eps: Floats, k: Floats, gamma: Floats) -> Floats:
        """Return Err."""
        return eps - k * np.exp(-gamma * loss)

    def guess(self, y: Floats, loss: Floats) -> dict[str, float]:
        """Start just above the largest error."""
        eps = min(float(y.max()) + 0.01, 1.0)
        slope, log_k = np.polyfit(loss, np.log(np.maximum(eps - y, 1e-3)), 1)
        return {"eps": eps, "k": float(np.exp(log_k)), "gamma": float(max(-slope, 1e-2))}


class SizedSigmoid:
    """y(C, s) = lo + (hi - lo) / (1 + exp(-k (log10 C - x0 - d s))): accuracy from FLOPs and problem size s.

    Each unit of problem size (digits of a sum, width of a board) multiplies the required compute by 10^d. This is a
    smooth variant of the result of Jones 2021 for board games, not its clamped formula. Needs points at several problem
    sizes (column problem_size, renamed with --map digits=problem_size), some beyond the inflection point. Not if the
    chance level differs between problem sizes.
    """

    name = "sized_sigmoid"
    avoid = "if chance or the ceiling differs between problem sizes"
    features = ("flops", "problem_size")
    parameters = {
        "lo": (0.0, 1.0),
        "hi": (0.0, 1.0),
        "k": (0.0, 20.0),
        "x0": (0.0, 40.0),
        "d": (-5.0, 5.0),
    }
    value_range = (0.0, 1.0)
    example = {"lo": 0.1, "hi": 0.95, "k": 2.5, "x0": 18.5, "d": 0.6}
    takes = "several budgets at several problem sizes (column problem_size)"
    source = "after Jones 2021 (board games)"

    def formula(
        self, flops: Floats, problem_size: Floats, lo: Floats, hi: Floats, k: Floats, x0: Floats, d: Floats
    ) -> Floats:
        """Return y."""
        return lo + (hi - lo) * logistic(k * (np.log10(flops) - x0 - d * problem_size))

    def guess(self, y: Floats, flops: Floats, problem_size: Floats) -> dict[str, float]:
        """Start as for a sigmoid, with a weak effect of the problem size."""
        plain = Sigmoid().guess(y, flops)
        return {**plain, "d": 0.1}

    def derived(self, lo: Floats, hi: Floats, k: Floats, x0: Floats, d: Floats) -> dict[str, Floats]:
        """Return the factor in compute per unit of problem size."""
        return {"compute a size": 10.0**d}


class SingleStep:
    """y(N, D) = q + p / (1 + exp(-(e^a / N^alpha + e^b / D^beta - x0))): accuracy directly from N and D.

    The single-step variant of Bhagia et al. 2024: a sigmoid of Chinchilla's reducible loss, p in [-1, 0]. Its seven
    parameters need more points than the two-step law, which also uses the task loss. Compare the two by hold-out.
    """

    name = "single_step"
    avoid = "for fewer than 12 runs, or if no point is above chance"
    features = ("params", "tokens")
    parameters = {
        "a": (-np.inf, np.inf),
        "alpha": (0.0, 5.0),
        "b": (-np.inf, np.inf),
        "beta": (0.0, 5.0),
        "x0": (-50.0, 50.0),
        "p": (-1.0, 0.0),
        "q": (0.0, 1.0),
    }
    linear = {"p": "linear", "q": "linear"}
    value_range = (0.0, 1.0)
    example = {"a": 7.7, "alpha": 0.35, "b": 8.7, "beta": 0.35, "x0": 2.5, "p": -0.7, "q": 0.95}
    takes = "12 runs or more that vary params and tokens separately; a value from 0 to 1"
    source = "Bhagia et al. 2024, single-step variant"

    def formula(self, params: Floats, tokens: Floats, **p: Floats) -> Floats:
        """Return y."""
        reducible = np.exp(p["a"] - p["alpha"] * np.log(params)) + np.exp(p["b"] - p["beta"] * np.log(tokens))
        return p["q"] + p["p"] * logistic(reducible - p["x0"])

    def guess(self, y: Floats, params: Floats, tokens: Floats) -> dict[str, float]:
        """Set both terms to 2 at the median point, and put the inflection point there."""
        a, b = (float(np.log(2) + 0.3 * np.median(np.log(x))) for x in (params, tokens))
        ends = {"p": float(y.min()) - 1, "q": 1.0}
        return {"a": a, "alpha": 0.3, "b": b, "beta": 0.3, "x0": 4.0, **ends}


class LogLaw:
    """BLEU(D) = (ln(A D^alpha))^beta: translation score from pretraining tokens, where A D^alpha > 1.

    After Isik et al. 2024; experimental, because the formula was not compared with the paper. Least squares of ln BLEU.
    Its parameters are strongly correlated: judge the law by held-out points. Not if BLEU falls while cross-entropy
    falls, which happens if the pretraining data do not match the task.
    """

    name = "log_law"
    avoid = "for accuracies and bounded scores, and if the score falls with more pretraining tokens"
    experimental = UNKNOWN
    features = ("tokens",)
    parameters = {"log_A": (-np.inf, np.inf), "alpha": (0.0, 10.0), "beta": (1e-2, 20.0)}
    objective = "log_least_squares"
    value_range = (0.0, np.inf)
    example = {"log_A": -2.0, "alpha": 0.2, "beta": 3.0}
    takes = "4 budgets or more of pretraining tokens; a score above 0 that rises"
    source = "after Isik et al. 2024"

    def formula(self, tokens: Floats, log_A: Floats, alpha: Floats, beta: Floats) -> Floats:
        """Return BLEU; NaN where A D^alpha < 1."""
        return np.exp(beta * np.log(log_A + alpha * np.log(tokens)))

    def guess(self, y: Floats, tokens: Floats) -> dict[str, float]:
        """Fit a line to the square roots."""
        alpha, log_A = np.polyfit(np.log(tokens), np.sqrt(y), 1)
        return {"log_A": float(log_A), "alpha": float(max(alpha, 1e-3)), "beta": 2.0}

    def derived(self, log_A: Floats, alpha: Floats, beta: Floats) -> dict[str, Floats]:
        """Return A."""
        return {"A": np.exp(log_A)}


@dataclass(frozen=True)
class TwoStep:
    """Task loss from compute or from N and D, then accuracy or error from it (Bhagia et al. 2024; Gadre et al. 2024).

    The first step is predictable because log-probability correlates with scale; the second step converts it to
    accuracy. Each resample of the first step passes through one of the second, and the interval contains the scatter of
    both.
    """

    name: str
    steps: tuple[FormulaLaw, FormulaLaw]
    via: str = "logp_gold"
    takes: str = "a task loss or log-probability (--via) in addition to the value"
    avoid: str = "if the largest sizes are at chance, or if families differ in accuracy at equal task loss"
    source: str = "Bhagia et al. 2024"


@harness.hookimpl
def register_laws(register: harness.Register) -> None:
    """Register the laws of downstream tasks."""
    for law in (Sigmoid(), SizedSigmoid(), SingleStep(), AccuracyFromLoss(), ErrorFromLoss(), LogLaw()):
        register(law)
    register(TwoStep("two_step", (Power(), AccuracyFromLoss())))
    register(TwoStep("two_step_nd", (Chinchilla(), AccuracyFromLoss())))
    register(TwoStep("two_step_error", (OverTrained(), ErrorFromLoss()), "loss", source="Gadre et al. 2024"))
