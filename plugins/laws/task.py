"""Laws of downstream tasks: from compute, or from loss, to accuracy or error; in one step and in two."""

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
    """y(C) = lo + (hi - lo) / (1 + exp(-k (log10 C - x0))): accuracy straight from training FLOPs.

    The plain alternative to two steps. lo and hi are asymptotes, x0 the decade of compute where half the way is done,
    k the slope there. Four parameters: needs points on both sides of x0, or lo and hi are guesses.
    """

    name = "sigmoid"
    avoid = "if no point has left chance: the inflection point and the ceiling are then guesses"
    features = ("flops",)
    parameters = {"lo": (0.0, 1.0), "hi": (0.0, 1.0), "k": (0.0, 20.0), "x0": (10.0, 30.0)}
    value_range = (0.0, 1.0)
    example = {"lo": 0.25, "hi": 0.9, "k": 1.5, "x0": 20.0}
    published_starts = {"lo": (0.0, 0.25), "hi": (0.8,), "k": (1.0,), "x0": (20.0,)}
    takes = "5 budgets or more on both sides of the turn; a value from 0 to 1"
    source = "common; cf. Ruan et al. 2024, Bhagia et al. 2024"

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
    avoid = "if no point has left chance, and across tokenizers unless the loss is per byte"
    features = ("loss",)
    parameters = {"p": (-1.0, 0.0), "x0": (0.0, np.inf), "k": (0.0, np.inf), "q": (0.0, 1.0)}
    value_range = (0.0, 1.0)
    anchors = (({"loss": 0.0}, 1.0),)
    example = {"p": -0.7, "x0": 2.0, "k": 8.0, "q": 1.0}  # its curve passes through the anchor
    published_starts = {"p": (-0.75, -0.5), "x0": (0.9,), "k": (3.0,), "q": (1.0,)}
    takes = "4 points or more, some of which have left chance; a task loss (column loss) above 0"
    source = "Bhagia et al. 2024, eq. 3"

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


class ErrorFromLoss:
    """Err(L) = eps - k exp(-gamma L): average top-1 error from pretraining or validation loss (Gadre et al. 2024).

    eps is the error of a model that knows nothing. Least squares. The law is one of an *average over many tasks*, and
    of losses on one validation set: single tasks and other sets need their own fits, and often do not follow it.
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
        """Begin just above the worst error seen."""
        eps = min(float(y.max()) + 0.01, 1.0)
        slope, log_k = np.polyfit(loss, np.log(np.maximum(eps - y, 1e-3)), 1)
        return {"eps": eps, "k": float(np.exp(log_k)), "gamma": float(max(-slope, 1e-2))}


class SizedSigmoid:
    """y(C, s) = lo + (hi - lo) / (1 + exp(-k (log10 C - x0 - d s))): accuracy from FLOPs and the size s of a problem.

    Every step of problem size (digits of a sum, width of a board) costs 10^d times the compute. A smooth form of what
    Jones 2021 finds for board games, not his clamped formula. Needs points at several problem sizes (column
    problem_size, renamed with --map digits=problem_size), some past the turn; not where sizes differ in chance.
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
        """Take the ends of the data for asymptotes, and no effect of the problem's size."""
        plain = Sigmoid().guess(y, flops)
        return {**plain, "d": 0.1}

    def derived(self, lo: Floats, hi: Floats, k: Floats, x0: Floats, d: Floats) -> dict[str, Floats]:
        """Return how many times the compute one more of problem size costs."""
        return {"compute a size": 10.0**d}


class SingleStep:
    """y(N, D) = q + p / (1 + exp(-(e^a / N^alpha + e^b / D^beta - x0))): accuracy straight from N and D.

    The single-step variant of Bhagia et al. 2024: a sigmoid of Chinchilla's reducible loss, p in [-1, 0]. Seven
    parameters: needs more points than the two-step law, which sees the task loss between; compare the two by hold-out.
    """

    name = "single_step"
    avoid = "for fewer than 12 runs, or if no point has left chance"
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
        """Let both terms be 2 in the middle of the points, and the turn lie there."""
        a, b = (float(np.log(2) + 0.3 * np.median(np.log(x))) for x in (params, tokens))
        ends = {"p": float(y.min()) - 1, "q": 1.0}
        return {"a": a, "alpha": 0.3, "b": b, "beta": 0.3, "x0": 4.0, **ends}


class LogLaw:
    """BLEU(D) = (ln(A D^alpha))^beta: translation scores in the tokens of pretraining, where A D^alpha > 1.

    After Isik et al. 2024; experimental, as the formula is not checked against the paper. Least squares of ln BLEU.
    Its parameters make up for one another: judge it by held-out points. Not where BLEU falls while cross-entropy
    falls, as it does for pretraining data that do not suit the task.
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
        """Put a line through the square roots."""
        alpha, log_A = np.polyfit(np.log(tokens), np.sqrt(y), 1)
        return {"log_A": float(log_A), "alpha": float(max(alpha, 1e-3)), "beta": 2.0}

    def derived(self, log_A: Floats, alpha: Floats, beta: Floats) -> dict[str, Floats]:
        """Return A."""
        return {"A": np.exp(log_A)}


@dataclass(frozen=True)
class TwoStep:
    """Task loss from compute or from N and D, then accuracy or error from it (Bhagia et al. 2024; Gadre et al. 2024).

    The first step is predictable because log-probability keeps its relation to scale; the second carries it to
    accuracy. Resamples of the first go through the second one by one, and the scatter of both is in the interval.
    """

    name: str
    steps: tuple[FormulaLaw, FormulaLaw]
    via: str = "logp_gold"
    takes: str = "a task loss or log-probability (--via) beside the value"
    avoid: str = "if the largest sizes have not left chance, or if task loss and accuracy move apart between families"
    source: str = "Bhagia et al. 2024"


@harness.hookimpl
def register_laws(register: harness.Register) -> None:
    """Register them."""
    for law in (Sigmoid(), SizedSigmoid(), SingleStep(), AccuracyFromLoss(), ErrorFromLoss(), LogLaw()):
        register(law)
    register(TwoStep("two_step", (Power(), AccuracyFromLoss())))
    register(TwoStep("two_step_nd", (Chinchilla(), AccuracyFromLoss())))
    register(TwoStep("two_step_error", (OverTrained(), ErrorFromLoss()), "loss", source="Gadre et al. 2024"))
