"""Tables for display: their cells, rounding (`rounding`), safe text (`escaping`) and comparison with expected ones."""

from harness.tables.escaping import printable
from harness.tables.expected import differences, read_csv
from harness.tables.rounding import measured, number, rounded
from harness.tables.table import Cell, Measured, Range, Table, as_cell, noted, text

__all__ = [
    "Cell",
    "Measured",
    "Range",
    "Table",
    "as_cell",
    "differences",
    "measured",
    "noted",
    "number",
    "printable",
    "read_csv",
    "rounded",
    "text",
]
