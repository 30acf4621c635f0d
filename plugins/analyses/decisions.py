"""Agreement of two scales in ranking families (decision accuracy), and the signal-to-noise ratio of scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness import Floats, LawError, Range


def agreement(small: Floats, large: Floats) -> Floats:
    """Return for each pair of F families whether two scales agree: (..., F), (..., F) to (..., F (F - 1) / 2).

    1 if they agree, 0 if not, 1/2 for a tie at the small scale, NaN for a tie at the large scale or an unknown value.

    >>> agreement(np.array([0.3, 0.2, 0.2]), np.array([0.9, 0.8, 0.7])).tolist()
    [1.0, 1.0, 0.5]
    """
    first, second = np.triu_indices(small.shape[-1], 1)
    before, after = small[..., first] - small[..., second], large[..., first] - large[..., second]
    alike = np.where(before == 0, 0.5, (np.sign(before) == np.sign(after)).astype(np.float64))
    return np.where((after == 0) | np.isnan(before) | np.isnan(after), np.nan, alike)


def decision_accuracy(small: Floats, large: Floats) -> Floats:
    """Return the share of pairs of families (...,) that two scales (..., F) order alike (Magnusson et al. 2025).

    NaN if the large scale has ties only.
    """
    return mean_known(agreement(small, large))


def mean_known(values: Floats) -> Floats:
    """Return the mean of the finite values over the last axis; NaN if there are none."""
    finite = np.isfinite(values)
    count = finite.sum(axis=-1)
    total = np.where(finite, values, 0.0).sum(axis=-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def signal_to_noise(finals: Floats, late: Sequence[Floats], *, level: float = 0.9) -> Range:
    """Return the signal-to-noise ratio of a benchmark (Heineman et al. 2025).

    :param finals: the scores (F,) of F models.
    :param late: for each run, its scores (T,) at the last T checkpoints; runs may differ in T.

    Signal is the largest difference of two models over their mean. Noise is the standard deviation over a run's late
    checkpoints over their mean, pooled over runs with T - 1 degrees of freedom each. The interval is that of the noise
    (chi-squared); it does not include the sampling of models. Infinite for constant scores. Raises LawError if no run
    has two checkpoints, or a mean is 0.
    """
    from scipy.stats import chi2

    runs = [np.asarray(run, dtype=np.float64) for run in late if len(run) > 1]
    dof = sum(len(run) - 1 for run in runs)
    mean = float(np.mean(finals))
    if not dof or len(finals) < 2 or mean == 0 or any(run.mean() == 0 for run in runs):
        raise LawError("signal to noise needs 2 models, a run with 2 late checkpoints, and non-zero means")
    noise = np.sqrt(sum((len(run) - 1) * (run.std(ddof=1) / run.mean()) ** 2 for run in runs) / dof)
    signal = float(np.ptp(finals)) / abs(mean)
    if noise == 0:
        return Range(float("inf"), float("nan"), float("nan"))
    ends = np.sqrt(chi2.ppf([(1 - level) / 2, (1 + level) / 2], dof) / dof)
    return Range(signal / noise, signal / noise * ends[0], signal / noise * ends[1])
