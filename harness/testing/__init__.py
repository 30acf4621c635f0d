"""Conformance checks for plugin authors, one line per test, and an engine without a model.

    from harness.testing import check_law, check_metric, check_task, check_engine, check_checker

    def test_law():
        check_law(MyLaw())

Each check raises one AssertionError (ConformanceError) that lists all failures: what was found and what the contract
requires. `harness plugins --check` runs the checks on all installed plugins. The built-in plugins pass the same checks.
"""

from __future__ import annotations

from harness.testing.checkers import check_checker
from harness.testing.engines import check_engine
from harness.testing.fake_engine import ByteTokenizer, FakeEngine, inspect_fake, open_fake
from harness.testing.findings import ConformanceError
from harness.testing.forecasters import check_forecaster
from harness.testing.laws import DOMAINS, check_law
from harness.testing.metrics import check_metric, example_samples, example_scores
from harness.testing.output import check_command, check_panel, check_reporter, example_report, example_table
from harness.testing.samplers import check_sampler
from harness.testing.tasks import check_family, check_source, check_task

__all__ = [
    "DOMAINS",
    "ByteTokenizer",
    "ConformanceError",
    "FakeEngine",
    "check_checker",
    "check_command",
    "check_engine",
    "check_family",
    "check_forecaster",
    "check_law",
    "check_metric",
    "check_panel",
    "check_reporter",
    "check_sampler",
    "check_source",
    "check_task",
    "example_report",
    "example_samples",
    "example_scores",
    "example_table",
    "inspect_fake",
    "open_fake",
]
