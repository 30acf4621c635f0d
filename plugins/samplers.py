"""Samplers: draw a fixed number of samples per document, or sample until enough have passed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import harness
from harness import Ints, UsageError


def _least(least: int, **options: int) -> None:
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UsageError(f"{name}={value!r}: expected an integer of at least {least}")


@dataclass(frozen=True)
class Fixed:
    """Draw `n` samples per document, as pass@k needs."""

    n: int = 1

    def __post_init__(self) -> None:
        _least(1, n=self.n)

    @property
    def at_most(self) -> int:
        """Return n."""
        return self.n

    def more(self, drawn: Ints, passed: Ints) -> Ints:  # noqa: ARG002  # the contract of samplers
        """Return the number of missing samples per document."""
        return np.maximum(self.n - drawn, 0)


@dataclass(frozen=True)
class PassUntil:
    """Sample each document until `successes` samples pass or `max_samples` are drawn (Hu et al. 2023, PassUntil).

    The first batch of a document has `successes` samples. Each later batch is as large as all earlier ones together,
    or smaller if the pass rate so far predicts that fewer suffice. Samples after the last required success are stored,
    but all estimates ignore them.
    """

    successes: int = 5
    max_samples: int = 1000

    def __post_init__(self) -> None:
        _least(2, successes=self.successes)
        _least(self.successes, max_samples=self.max_samples)

    @property
    def at_most(self) -> int:
        """Return max_samples."""
        return self.max_samples

    def more(self, drawn: Ints, passed: Ints) -> Ints:
        """Return the next batch of each document."""
        missing = np.maximum(self.successes - passed, 0)
        by_rate = np.ceil(missing * drawn / np.maximum(passed, 1)).astype(np.int64)
        batch = np.where(passed > 0, np.minimum(by_rate, drawn), np.maximum(drawn, self.successes))
        return np.where(missing > 0, np.minimum(batch, self.max_samples - drawn), 0)


@harness.hookimpl
def register_samplers(register: harness.Register) -> None:
    """Register the samplers."""
    register("n", Fixed)
    register("pass_until", PassUntil)
