"""Public names for analyses of a store and of points: reading, columns, runs, and metrics. Re-exports only."""

from harness.fitting.columns import column, query, readable, renamed
from harness.fitting.runs import ends, label, largest, largest_known, refuse_twice, runs_of
from harness.fitting.wide_points import widen
from harness.metrics.aggregation import applicable, evaluate, paired_difference
from harness.metrics.per_document import per_document
from harness.store.identity import CellId
from harness.store.points import PointStore, checkpoint_columns, open_store, read_points, read_table

__all__ = [
    "CellId",
    "PointStore",
    "applicable",
    "checkpoint_columns",
    "column",
    "ends",
    "evaluate",
    "label",
    "largest",
    "largest_known",
    "open_store",
    "paired_difference",
    "per_document",
    "query",
    "read_points",
    "read_table",
    "readable",
    "refuse_twice",
    "renamed",
    "runs_of",
    "widen",
]
