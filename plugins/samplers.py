"""How many samples to draw of each document: a fixed number, or until enough have passed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import harness
from harness import Ints, UsageError


def _least(least: int, **options: int) -> None:
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UsageError(f"{name}={value!r}: expected a whole number from {least} on")


@dataclass(frozen=True)
class Fixed:
    """`n` samples of every document, as pass@k needs them."""

    n: int = 1

    def __post_init__(self) -> None:
        _least(1, n=self.n)

    @property
    def at_most(self) -> int:
        """Return n."""
        return self.n

    def more(self, drawn: Ints, passed: Ints) -> Ints:  # noqa: ARG002  # the contract of samplers
        """Return what is missing of n."""
        return np.maximum(self.n - drawn, 0)


@dataclass(frozen=True)
class PassUntil:
    """Samples of every document until `successes` of them pass, or `max_samples` are drawn (Hu et al. 2023, PassUntil).

    Batches grow: first as many as must pass, then as many as were drawn so far, or as many as the rate so far asks for
    if that is less. Those that come behind the last success that counts are kept, and left out of all estimates.
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
    """Register them."""
    register("n", Fixed)
    register("pass_until", PassUntil)
