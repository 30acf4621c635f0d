"""The reserved column names of points, scores and samples, which features, attributes and metrics must not use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import TypeVar

from harness.types import Checkpoint

V = TypeVar("V")
COLUMNS = frozenset(field.name for field in fields(Checkpoint)) | {
    # of a cell
    "task", "engine", "dtype", "quantisation", "max_length", "truncation", "sampling", "settings", "fingerprint",
    "checkpoint", "origin", "label",
    # of a value
    "metric", "value", "stderr", "low", "high", "n", "ties", "truncated", "chance",
    "drawn", "passed", "trials", "successes",
    # of a document, a choice or a text
    "doc", "doc_id", "group", "choice", "is_gold", "logprob", "logprob_unconditional", "is_greedy",
    "n_tokens", "n_chars", "n_bytes", "sample", "sample_seed", "text", "finish", "outcome", "detail",
}  # fmt: skip
ACTIVE_PARAMS = "params_active"  # parameters of a mixture of experts that one token uses
OF_METRICS = ("", "_stderr", "_n")  # endings of the columns of a metric in wide points


def reserved(names: Iterable[str], metrics: Iterable[str] = ()) -> set[str]:
    """Return the names that are reserved: columns of every store, and columns of a metric in wide points."""
    return set(names) & (COLUMNS | {f"{metric}{ending}" for metric in metrics for ending in OF_METRICS})


def renamed(columns: Mapping[str, V], prefix: str) -> dict[str, V]:
    """Return columns with a prefix added to reserved names: `value` becomes `doc_value`."""
    return {f"{prefix}{name}" if name in COLUMNS else name: column for name, column in columns.items()}
