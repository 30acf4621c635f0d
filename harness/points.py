"""Public names for analyses of a store and of points: reading, columns, runs, and metrics. Re-exports only."""

from harness.fitting.columns import column, labelled, query, readable, renamed
from harness.fitting.point_source import Source, TablePoints, benchmark_table, open_asked, open_points, table_points
from harness.fitting.published import Published, Reading, published, same_points, shown_metrics
from harness.fitting.runs import doubled, ends, label, largest, largest_known, refuse_twice, runs_of
from harness.fitting.wide_points import widen
from harness.metrics.aggregation import applicable, evaluate, paired_difference
from harness.metrics.intervals import shown_error
from harness.metrics.per_document import per_document
from harness.store.choice_cells import Records
from harness.store.identity import CellId, Settings
from harness.store.imported import SAMPLES_ENGINE, import_name
from harness.store.point_files import read_points, read_table
from harness.store.points import PointStore, checkpoint_columns, open_store

__all__ = [
    "SAMPLES_ENGINE",
    "CellId",
    "PointStore",
    "Published",
    "Reading",
    "Records",
    "Settings",
    "Source",
    "TablePoints",
    "applicable",
    "benchmark_table",
    "checkpoint_columns",
    "column",
    "doubled",
    "ends",
    "evaluate",
    "import_name",
    "label",
    "labelled",
    "largest",
    "largest_known",
    "open_asked",
    "open_points",
    "open_store",
    "paired_difference",
    "per_document",
    "published",
    "query",
    "read_points",
    "read_table",
    "readable",
    "refuse_twice",
    "renamed",
    "runs_of",
    "same_points",
    "shown_error",
    "shown_metrics",
    "table_points",
    "widen",
]
