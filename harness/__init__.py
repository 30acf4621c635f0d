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
    from harness.back_tests import BackTest, back_test
    from harness.comparisons import compare
    from harness.crossings import crossing, crossovers
    from harness.diffs import Diff, diff
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
    from harness.fits import fit, fit_families
    from harness.fitting.forecast_results import Forecast
    from harness.fitting.forecasts import forecast
    from harness.hookspecs import Register, hookimpl
    from harness.host import PluginHost, load_plugins
    from harness.lawfits import LawFit, load_fits
    from harness.laws import Fitted
    from harness.outputs import interval_options, print_tables, table_options
    from harness.points import PointStore, open_store
    from harness.samples import Samples
    from harness.scores import PerDoc, Scores
    from harness.subsets import Subset, load_subsets, save_subsets
    from harness.suite import evaluate
    from harness.tables import Measured, Range, Table
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
    "PerDoc",
    "PluginError",
    "PluginHost",
    "PointStore",
    "Range",
    "Register",
    "Request",
    "Sample",
    "SampleRequest",
    "Sampler",
    "Samples",
    "Scores",
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
    "compare",
    "crossing",
    "crossovers",
    "diff",
    "evaluate",
    "fit",
    "fit_families",
    "forecast",
    "hookimpl",
    "interval_options",
    "load_fits",
    "load_plugins",
    "load_subsets",
    "open_store",
    "print_tables",
    "save_subsets",
    "table_options",
]

_MODULES = {
    "back_tests": "BackTest back_test",
    "comparisons": "compare",
    "crossings": "crossing crossovers",
    "diffs": "Diff diff",
    "errors": (
        "DamagedFile EngineError FamilyError HarnessError LawError MetricError OutOfMemory PluginError StoreError "
        "SuiteError TaskError TokenError UsageError"
    ),
    "fits": "fit fit_families",
    "fitting.forecast_results": "Forecast",
    "fitting.forecasts": "forecast",
    "hookspecs": "Register hookimpl",
    "host": "PluginHost load_plugins",
    "lawfits": "LawFit load_fits",
    "outputs": "interval_options print_tables table_options",
    "laws": "Fitted",
    "points": "PointStore open_store",
    "samples": "Samples",
    "scores": "PerDoc Scores",
    "subsets": "Subset load_subsets save_subsets",
    "suite": "evaluate",
    "tables": "Measured Range Table",
    "types": (
        "Bools Checker Checkpoint ChoiceScore Doc Engine EngineInfo Family Floats Generation Ints Outcome Request "
        "Sample SampleRequest Sampler Task Tokenizer"
    ),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `harness --help` stays quick."""
    if name not in _HOME:
        raise AttributeError(f"module 'harness' has no attribute {name!r}")
    return getattr(importlib.import_module(f"harness.{_HOME[name]}"), name)
