"""A plugin-based evaluation harness for downstream capability scaling of language models.

import harness
harness.evaluate(["aster"], ["nano_addition"], store="results")
points = harness.open_store("results").points(task="nano_addition")
fit = harness.fit(points, "two_step", value="acc", hold_out="largest")
fit.predict(flops=1e16)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.cli.output import duplicates_option, interval_options, print_tables, row_options, table_options
    from harness.errors import (
        DamagedFile,
        EngineError,
        FamilyError,
        HarnessError,
        LawError,
        MetricError,
        OutOfMemory,
        PluginError,
        StoreError,
        SuiteError,
        TaskError,
        TokenError,
        UsageError,
    )
    from harness.evaluation.suite import evaluate
    from harness.fitting.crossings import crossing, crossovers
    from harness.fitting.fit import fit, fit_families
    from harness.fitting.forecast_files import forecast_file
    from harness.fitting.forecast_results import Forecast
    from harness.fitting.forecasts import forecast
    from harness.fitting.laws import Fitted
    from harness.fitting.result import LawFit, load_fits
    from harness.hookspecs import Register, hookimpl
    from harness.host import PluginHost, load_plugins
    from harness.metrics.samples import Samples
    from harness.metrics.scores import PerDoc, Scores
    from harness.reports.back_test import BackTest, back_test
    from harness.reports.compare import compare
    from harness.reports.diff import Diff, diff
    from harness.reports.panels import Panel, ReportData
    from harness.reports.report import write_report
    from harness.store.points import PointStore, open_store
    from harness.store.subsets import Subset, load_subsets, save_subsets
    from harness.tables import Measured, Range, Table
    from harness.tasks.loading import fingerprint
    from harness.tasks.prompting import chat_context
    from harness.types import (
        Bools,
        Checker,
        Checkpoint,
        ChoiceScore,
        Doc,
        Engine,
        EngineInfo,
        Family,
        Floats,
        Generation,
        Ints,
        Outcome,
        Request,
        Sample,
        Sampler,
        SampleRequest,
        SourceMetric,
        Task,
        Tokenizer,
    )

__all__ = [
    "BackTest",
    "Bools",
    "Checker",
    "Checkpoint",
    "ChoiceScore",
    "DamagedFile",
    "Diff",
    "Doc",
    "Engine",
    "EngineError",
    "EngineInfo",
    "Family",
    "FamilyError",
    "Fitted",
    "Floats",
    "Forecast",
    "Generation",
    "HarnessError",
    "Ints",
    "LawError",
    "LawFit",
    "Measured",
    "MetricError",
    "OutOfMemory",
    "Outcome",
    "Panel",
    "PerDoc",
    "PluginError",
    "PluginHost",
    "PointStore",
    "Range",
    "Register",
    "ReportData",
    "Request",
    "Sample",
    "SampleRequest",
    "Sampler",
    "Samples",
    "Scores",
    "SourceMetric",
    "StoreError",
    "Subset",
    "SuiteError",
    "Table",
    "Task",
    "TaskError",
    "TokenError",
    "Tokenizer",
    "UsageError",
    "back_test",
    "chat_context",
    "compare",
    "crossing",
    "crossovers",
    "diff",
    "duplicates_option",
    "evaluate",
    "fingerprint",
    "fit",
    "fit_families",
    "forecast",
    "forecast_file",
    "hookimpl",
    "interval_options",
    "load_fits",
    "load_plugins",
    "load_subsets",
    "open_store",
    "print_tables",
    "row_options",
    "save_subsets",
    "table_options",
    "write_report",
]

_MODULES = {
    "tasks.prompting": "chat_context",
    "reports.report": "write_report",
    "reports.panels": "Panel ReportData",
    "fitting.forecast_files": "forecast_file",
    "tasks.loading": "fingerprint",
    "reports.back_test": "BackTest back_test",
    "reports.compare": "compare",
    "fitting.crossings": "crossing crossovers",
    "reports.diff": "Diff diff",
    "errors": (
        "DamagedFile EngineError FamilyError HarnessError LawError MetricError OutOfMemory PluginError StoreError "
        "SuiteError TaskError TokenError UsageError"
    ),
    "fitting.fit": "fit fit_families",
    "fitting.forecast_results": "Forecast",
    "fitting.forecasts": "forecast",
    "hookspecs": "Register hookimpl",
    "host": "PluginHost load_plugins",
    "fitting.result": "LawFit load_fits",
    "cli.output": "duplicates_option interval_options print_tables row_options table_options",
    "fitting.laws": "Fitted",
    "store.points": "PointStore open_store",
    "metrics.samples": "Samples",
    "metrics.scores": "PerDoc Scores",
    "store.subsets": "Subset load_subsets save_subsets",
    "evaluation.suite": "evaluate",
    "tables": "Measured Range Table",
    "types": (
        "Bools Checker Checkpoint ChoiceScore Doc Engine EngineInfo Family Floats Generation Ints Outcome Request "
        "Sample SampleRequest Sampler SourceMetric Task Tokenizer"
    ),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `harness --help` stays quick."""
    if name not in _HOME:
        raise AttributeError(f"module 'harness' has no attribute {name!r}")
    return getattr(importlib.import_module(f"harness.{_HOME[name]}"), name)
