"""Compare tables with expected ones, which were written as CSV files."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.errors import UsageError
from harness.tables.escaping import printable
from harness.tables.table import Cell, Range, Table, names_of
from harness.types.json import Scalar


def differences(table: Table, expected: tuple[Sequence[str], Sequence[Sequence[str]]]) -> Iterator[str]:
    """Yield the cells of a table that differ from an expected one (columns and rows of text, as from its CSV file).

    The tolerance is 0.001 (relative above 1); for values with an interval also one unit of the last printed digit, and
    one step of its ends. Rows are compared in order.
    """
    columns, rows = table.flat()
    kinds = table.kinds
    units = [[u for cell, kind in zip(row, kinds, strict=True) for u in _units(cell, kind)] for row in table.rows]
    if list(expected[0]) != columns:
        yield f"{table.name}: columns {', '.join(columns)}; expected {', '.join(expected[0])}"
        return
    if len(rows) != len(expected[1]):
        yield f"{table.name}: {len(rows)} rows; expected {len(expected[1])}"
    for number_, (row, wanted) in enumerate(zip(rows, expected[1], strict=False), 1):
        for i, (column, value, other) in enumerate(zip(columns, row, wanted, strict=True)):
            if not _equal(value, other, units[number_ - 1][i]):
                yield f"{table.name}, row {number_} ({row[0]} {row[1]}), {column}: {value}; expected {other or '-'}"


def read_csv(path: Path) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows, as text, of a table written as CSV."""
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            columns, *rows = csv.reader(stream)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: {error or 'empty'}; expected a table written by harness compare -o") from error
    return columns, rows


def _units(cell: Cell, kind: type | None) -> list[float]:
    """Return the unit of the last printed digit of each value of a range; 0 for other cells."""
    n = len(names_of("", kind))
    if not isinstance(cell, Range):
        return [0.0] * n
    width = (cell.high - cell.low) / 4
    return [max(_unit(value, width), cell.step) for value in (cell.value, cell.low, cell.high)]


def _unit(value: float, width: float) -> float:
    if not math.isfinite(value) or value == 0:
        return 0.0
    if abs(value) >= 1e6 or not math.isfinite(width):
        return float(10.0 ** (math.floor(math.log10(abs(value))) - 2))  # three digits are printed
    return float(10.0 ** (math.floor(math.log10(width)) - 1)) if width > 0 else 0.0


def _equal(value: Scalar, other: str, unit: float) -> bool:
    if value is None or isinstance(value, (str, bool)):
        return ("" if value is None else printable(value)) == other
    try:
        expected = float(other)
    except ValueError:
        return False
    return bool(abs(value - expected) <= max(1e-3, 1e-3 * abs(expected), unit))
