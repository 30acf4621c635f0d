"""Tables for display: the only module that rounds numbers, to two digits of their error."""

from __future__ import annotations

import csv
import html
import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import UsageError
from harness.escaping import printable
from harness.types.json import Scalar


@dataclass(frozen=True)
class Measured:
    """A value with its standard error."""

    value: float
    stderr: float

    def __str__(self) -> str:
        return measured(self.value, self.stderr)


@dataclass(frozen=True)
class Range:
    """A value with an interval; `step` is the distance of the values that its ends can have (0: any value)."""

    value: float
    low: float
    high: float
    step: float = 0.0

    def __str__(self) -> str:
        if math.isnan(self.low) or math.isnan(self.high):
            return f"{number(self.value)} [?]"
        width = (self.high - self.low) / 4  # about a standard error
        if not math.isfinite(width):
            return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"
        value, low, high = (rounded(x, width) for x in (self.value, self.low, self.high))
        return f"{value} ± <{_last_digit(self.value, width)}" if value == low == high else f"{value} [{low}, {high}]"


Cell = Scalar | Measured | Range


@dataclass(frozen=True)
class Table:
    """A named table: `name` is the file name; `notes` are printed below it.

    On a terminal, `best` cells (row, column) are bold, and columns in `optional` are left out first, in this order, if
    the terminal is too narrow for all.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    best: tuple[tuple[int, int], ...] = ()
    optional: tuple[str, ...] = ()

    def flat(self) -> tuple[list[str], list[list[Scalar]]]:
        """Return machine-readable columns and rows: one column per value, error and bound, with six digits."""
        kinds = self.kinds
        columns = [name for c, kind in zip(self.columns, kinds, strict=True) for name in _names(c, kind)]
        rows = [[v for cell, kind in zip(row, kinds, strict=True) for v in _values(cell, kind)] for row in self.rows]
        return columns, rows

    def _repr_html_(self) -> str:
        """Return the table for a notebook; text is escaped."""
        head = "".join(f"<th>{_html(name)}</th>" for name in self.columns)
        rows = "".join("<tr>" + "".join(f"<td>{_html(text(cell))}</td>" for cell in row) + "</tr>" for row in self.rows)
        notes = "".join(f"<li>{_html(note)}</li>" for note in self.notes)
        body = f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody>"
        below = f"<ul>{notes}</ul>" if notes else ""
        return f"<table><caption>{_html(self.title)}</caption>{body}</table>{below}"

    @property
    def kinds(self) -> list[type | None]:
        """Return the type of each column: Measured, Range or None."""
        return [
            next((type(row[i]) for row in self.rows if isinstance(row[i], (Measured, Range))), None)
            for i in range(len(self.columns))
        ]


def as_cell(value: Hashable) -> Cell:
    """Return a value of a frame as a cell: numbers and text as they are, anything else as text."""
    return value if value is None or isinstance(value, (str, int, float)) else str(value)


def _html(shown: str) -> str:
    return html.escape(printable(shown))


def noted(tables: Sequence[Table], notes: Sequence[str]) -> list[Table]:
    """Return tables with notes added to the first."""
    first, *others = tables
    return [replace(first, notes=(*first.notes, *notes)), *others]


def _names(column: str, kind: type | None) -> tuple[str, ...]:
    if kind is Measured:
        return column, f"{column} stderr"
    return (column, f"{column} low", f"{column} high") if kind is Range else (column,)


def _values(cell: Cell, kind: type | None) -> list[Scalar]:
    size = len(_names("", kind))
    parts = list(vars(cell).values())[:size] if isinstance(cell, (Measured, Range)) else [cell]
    parts += [None] * (size - len(parts))
    return [_plain(part) for part in parts]


def _plain(value: Scalar) -> Scalar:
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None


def rounded(value: float, error: float) -> str:
    """Round a value to two digits of its error, or of the value if the error is larger.

    >>> rounded(0.96834, 0.0087)
    '0.9683'
    >>> rounded(1234.5, 120.0)
    '1230'
    >>> rounded(54000, 6.8e7)
    '54000'
    """
    if not (math.isfinite(value) and math.isfinite(error)) or error <= 0:
        return number(value)
    if abs(value) >= 1e6:
        return f"{value:.3g}"
    digits = 1 - math.floor(math.log10(min(error, abs(value)) if value else error))
    if abs(value) >= 0.01:
        digits = min(digits, 4)
    return f"{round(value, digits):.{max(digits, 0)}f}"


def measured(value: float, error: float) -> str:
    """Return value ± error, both to two digits of the error; a missing error is `?`.

    >>> measured(0.96834, 0.0087)
    '0.9683 ± 0.0087'
    """
    if not math.isfinite(error):
        return f"{number(value)} ± ?"
    return f"{rounded(value, error)} ± {rounded(error, error)}"


def _last_digit(value: float, error: float) -> str:
    """Return the unit of the last digit with which `rounded` prints a value.

    >>> _last_digit(1.0, 1e-7), _last_digit(1.0, 0.0), _last_digit(0.7143, 0.0), _last_digit(1.2e20, 1e12)
    ('0.0001', '0.001', '0.0001', '1e+18')
    """
    if not value:
        return "1e-09"
    digits = 4 if error <= 0 else 3 if abs(value) >= 1e6 else None
    if digits is not None:
        return f"{10.0 ** (math.floor(math.log10(abs(value))) + 1 - digits):.6g}"
    return f"{10.0 ** -len(rounded(value, error).partition('.')[2]):.6g}"


def number(value: float) -> str:
    """Return a number without an error, to four digits; rounding noise is 0."""
    return f"{0.0 if abs(value) < 1e-9 else value:.4g}" if math.isfinite(value) else "-"


def text(cell: Cell) -> str:
    """Return a cell as printed, control characters as escapes."""
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return number(cell)
    return "yes" if cell is True else "no" if cell is False else printable(cell)


def differences(found: Table, expected: tuple[Sequence[str], Sequence[Sequence[str]]]) -> Iterator[str]:
    """Yield the cells of a table that differ from an expected one (columns and rows of text, as from its CSV file).

    The tolerance is 0.001 (relative above 1); for values with an interval also one unit of the last printed digit, and
    one step of its ends. Rows are compared in order.
    """
    columns, rows = found.flat()
    kinds = found.kinds
    units = [[u for cell, kind in zip(row, kinds, strict=True) for u in _units(cell, kind)] for row in found.rows]
    if list(expected[0]) != columns:
        yield f"{found.name}: columns {', '.join(columns)}; expected {', '.join(expected[0])}"
        return
    if len(rows) != len(expected[1]):
        yield f"{found.name}: {len(rows)} rows; expected {len(expected[1])}"
    for number_, (row, wanted) in enumerate(zip(rows, expected[1], strict=False), 1):
        for i, (column, value, other) in enumerate(zip(columns, row, wanted, strict=True)):
            if not _equal(value, other, units[number_ - 1][i]):
                yield f"{found.name}, row {number_} ({row[0]} {row[1]}), {column}: {value}; expected {other or '-'}"


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
    n = len(_names("", kind))
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
