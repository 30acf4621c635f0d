"""Value types of the harness: checkpoints, documents, tasks, requests, scores, samples, metrics and checkers."""

from __future__ import annotations

from harness.types.arrays import Bools, Column, Floats, Ints
from harness.types.checkers import OUTCOMES, PASS_AT, Check, Checker, Outcome, Sampler
from harness.types.checkpoints import Checkpoint, Family, checkpoint_label
from harness.types.engines import Engine, EngineInfo, EngineType, InspectCheckpoint, OpenEngine, Tokenizer
from harness.types.json import Json, JsonObject, Scalar
from harness.types.metrics import Metric, MetricValues, PerDoc, SourceMetric
from harness.types.requests import ChoiceScore, Request, Sample, SampleRequest
from harness.types.tasks import Doc, Generation, Task

__all__ = [
    "OUTCOMES",
    "PASS_AT",
    "Bools",
    "Check",
    "Checker",
    "Checkpoint",
    "ChoiceScore",
    "Column",
    "Doc",
    "Engine",
    "EngineInfo",
    "EngineType",
    "Family",
    "Floats",
    "Generation",
    "InspectCheckpoint",
    "Ints",
    "Json",
    "JsonObject",
    "Metric",
    "MetricValues",
    "OpenEngine",
    "Outcome",
    "PerDoc",
    "Request",
    "Sample",
    "SampleRequest",
    "Sampler",
    "Scalar",
    "SourceMetric",
    "Task",
    "Tokenizer",
    "checkpoint_label",
]
