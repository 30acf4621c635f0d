"""Metrics of generated texts and their checker outcomes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import harness
from harness import Samples
from harness.types import PASS_AT
from harness_plugins.metrics.pass_at_k import pass_at_k


def pass_rate(samples: Samples) -> harness.Floats:
    """Return an unbiased estimate of each document's pass rate; with one sample, 1 if it passed, else 0."""
    return np.asarray(samples.pass_rates())


def pass_at(k: int) -> Callable[[Samples], harness.Floats]:
    """Return the metric pass@k: 1 - C(n - c, k) / C(n, k) for c passes among n samples (Chen et al. 2021, eq. 1)."""

    def fn(samples: Samples) -> harness.Floats:
        estimates: harness.Floats = pass_at_k(samples.passed, samples.drawn, k)
        return estimates

    return fn


def solved(samples: Samples) -> harness.Floats:
    """Return 1 if at least one sample of the document passed, else 0; it rises with the number of samples."""
    return np.asarray(samples.passed > 0, dtype=np.float64)


def timed_out(samples: Samples) -> tuple[harness.Floats, harness.Floats]:
    """Return (samples whose check timed out, samples)."""
    return samples.count("timed out").astype(np.float64), samples.drawn.astype(np.float64)


def crashed(samples: Samples) -> tuple[harness.Floats, harness.Floats]:
    """Return (samples whose check crashed, samples)."""
    return samples.count("crashed").astype(np.float64), samples.drawn.astype(np.float64)


@harness.hookimpl
def register_metrics(register: harness.Register) -> None:
    """Register the metrics with their requirements."""
    register(pass_rate, needs=["samples"], bounds=(0, 1))
    register(solved, needs=["samples"], bounds=(0, 1))
    for k in PASS_AT:
        register(pass_at(k), name=f"pass_at_{k}", needs=["samples", f"samples_{k}"], bounds=(0, 1))
    register(timed_out, needs=["samples"], aggregate="ratio", higher_is_better=False, bounds=(0, 1))
    register(crashed, needs=["samples"], aggregate="ratio", higher_is_better=False, bounds=(0, 1))
