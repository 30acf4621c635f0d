"""A power law for every choice of every document, and the accuracy that follows from all of them.

Accuracy depends on the probability of the wrong choices, so that the law of the correct choice is not enough (Schaeffer
et al. 2024). -ln p of each choice is a power law of scale: a line in logarithms, which keeps p below 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from harness import Floats, Ints, LawError, Range, Scores
from harness_plugins.analyses.document_scores import DocumentScores, check_scores

NEAREST = 1e-12  # lower bound of -ln p, nats
BATCH = 4_000_000  # maximum number of values in memory


@dataclass(frozen=True)
class ChoiceLaws:
    """ln(-ln p) = a + b (log10 C - centre) for every choice (m,), fitted to M checkpoints of G training runs.

    `residuals` (M, m) are those of the fit. `runs` (M,) numbers the runs. `hat` (2, M) is the pseudo-inverse design.
    """

    a: Floats
    b: Floats
    centre: float
    residuals: Floats
    runs: Ints
    hat: Floats

    def logprob(self, x: float) -> Floats:
        """Return the log-probability (m,) of every choice at log10 C = x, nats."""
        return -np.exp(self.a + self.b * (x - self.centre))


def fit_choices(x: Floats, logprob: Floats, runs: Ints) -> ChoiceLaws:
    """Fit a line to ln(-ln p) of every choice by least squares: x (M,), logprob (M, m), runs (M,).

    Raises LawError for fewer than three checkpoints or two runs, or a constant scale.
    """
    if len(x) < 3 or len(set(runs)) < 2 or np.ptp(x) == 0:
        raise LawError(
            f"{len(x)} checkpoints of {len(set(runs))} runs: laws of choices need 3 checkpoints of 2 runs at different "
            "scales"
        )
    y = np.log(-np.minimum(logprob, -NEAREST))
    centre = float(x.mean())
    design = np.stack([np.ones_like(x), x - centre], axis=1)
    hat = np.asarray(np.linalg.pinv(design), dtype=np.float64)
    a, b = hat @ y
    numbers = np.unique(runs, return_inverse=True)[1]
    return ChoiceLaws(a, b, centre, y - design @ np.stack([a, b]), numbers, hat)


def accuracy(logprob: Floats, scores: Scores) -> Floats:
    """Return the accuracy (...,) of the most probable choices, from logprob (..., m).

    The first of tied choices counts, as in the metric acc.
    """
    return np.asarray(right(logprob, scores).mean(axis=-1))


def right(logprob: Floats, scores: Scores) -> Floats:
    """Return 1 for each document (..., n) whose most probable choice is correct, else 0."""
    best = np.maximum.reduceat(logprob, scores.first, axis=-1)[..., scores.doc]
    rows = np.where(logprob == best, np.arange(logprob.shape[-1]), logprob.shape[-1])
    return scores.is_gold[np.minimum.reduceat(rows, scores.first, axis=-1)].astype(np.float64)


@dataclass(frozen=True)
class JointPrediction:
    """Accuracy of the largest checkpoint predicted from laws of its choices, and as measured.

    `predicted` uses the laws of all choices. `gold_only` uses the law of the correct choice, with the wrong choices as
    at the largest checkpoint fitted. `last` is the accuracy of that checkpoint.
    """

    target: int
    measured: float
    predicted: Range
    gold_only: float
    last: float

    @property
    def inside(self) -> bool:
        """Return whether the interval covers the measured accuracy, up to rounding."""
        return self.predicted.low - 1e-9 <= self.measured <= self.predicted.high + 1e-9


def predict_accuracy(
    documents: DocumentScores, *, level: float = 0.9, bootstrap: int = 1000, seed: int = 0
) -> JointPrediction:
    """Predict the accuracy of the largest size from laws of all choices, fitted to the smaller sizes.

    The interval is a prediction interval. Each resample perturbs the fitted points, run by run, and the target by
    residuals of whole checkpoints, because all choices of all documents are dependent. Quantiles of target minus
    prediction are added to the prediction. The interval includes neither misspecification of the law nor the sampling
    of documents. Raises LawError for unknown sizes and for too few points.
    """
    scores = check_scores(documents)
    if "params" not in documents.points.columns or documents.points["params"].isna().any():
        raise LawError(
            f"{documents.task}, {documents.family}: holding out the largest size needs params for every checkpoint"
        )
    params = documents.points["params"].to_numpy()
    fitted, target = params < params.max(), int(np.flatnonzero(params == params.max())[-1])
    logprob = np.stack([cell.logprob for cell in scores])  # (M, m)
    last = int(np.flatnonzero(fitted)[-1]) if fitted.any() else 0
    laws = fit_choices(documents.x[fitted], logprob[fitted], documents.runs[fitted])
    predicted = laws.logprob(documents.x[target])
    value = float(accuracy(predicted, scores[0]))
    errors = np.concatenate(
        list(_errors(laws, documents.x[target], scores[0], count=bootstrap, rng=np.random.default_rng(seed)))
    )
    low, high = np.clip(value + np.quantile(errors, [(1 - level) / 2, (1 + level) / 2]), 0, 1)
    alone = np.where(scores[0].is_gold, predicted, logprob[last])
    return JointPrediction(
        target,
        float(accuracy(logprob[target], scores[0])),
        Range(value, float(low), float(high)),
        float(accuracy(alone, scores[0])),
        float(accuracy(logprob[last], scores[0])),
    )


def _errors(laws: ChoiceLaws, x: float, scores: Scores, *, count: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Yield the accuracy of a simulated target minus that of laws fitted to a simulated ladder, in batches.

    Degrees of freedom are those of runs, because checkpoints of one run are not independent.
    """
    m, g = len(laws.runs), int(laws.runs.max()) + 1
    dof = max(min(m - 2, g - 2), 1)
    at, line = np.array([1.0, x - laws.centre]) @ laws.hat, laws.a + laws.b * (x - laws.centre)  # (M,), (m,)
    size = max(BATCH // len(line), 1)
    for begin in range(0, count, size):
        b = min(size, count - begin)
        inflated = np.sqrt(m / max(m - 2, 1) * dof / rng.chisquare(dof, size=(b, 1)))
        moved = (rng.normal(size=(b, g))[:, laws.runs] * at * inflated) @ laws.residuals
        scatter = rng.normal(size=(b, 1)) * inflated * laws.residuals[rng.integers(m, size=b)]
        with np.errstate(over="ignore"):
            yield accuracy(-np.exp(line + scatter), scores) - accuracy(-np.exp(line + moved), scores)
