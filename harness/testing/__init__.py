"""Checks that a plugin passes in one line of its author's tests, and an engine without a model.

    from harness.testing import check_law, check_metric, check_task, check_engine, check_checker

    def test_law():
        check_law(MyLaw())

Each raises AssertionError, saying what was found and what the contract is. Our own plugins pass the same checks.
"""

from __future__ import annotations

from harness.testing.checkers import check_checker
from harness.testing.checks import (
    DOMAINS,
    check_law,
    check_metric,
    check_sampler,
    check_task,
    example_samples,
    example_scores,
)
from harness.testing.engines import check_engine
from harness.testing.fake_engine import ByteTokenizer, FakeEngine, inspect_fake, open_fake
from harness.testing.forecasters import check_forecaster

__all__ = [
    "DOMAINS",
    "ByteTokenizer",
    "FakeEngine",
    "check_checker",
    "check_engine",
    "check_forecaster",
    "check_law",
    "check_metric",
    "check_sampler",
    "check_task",
    "example_samples",
    "example_scores",
    "inspect_fake",
    "open_fake",
]
