"""Tables for display, and their cells: values with a standard error or an interval."""

from __future__ import annotations

import html
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

from harness.tables.escaping import printable
from harness.tables.rounding import last_digit, measured, number, rounded
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
        return f"{value} ± <{last_digit(self.value, width)}" if value == low == high else f"{value} [{low}, {high}]"


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
        columns = [name for c, kind in zip(self.columns, kinds, strict=True) for name in names_of(c, kind)]
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


def names_of(column: str, kind: type | None) -> tuple[str, ...]:
    """Return the names of the machine-readable columns of a column: its value, and its error or bounds."""
    if kind is Measured:
        return column, f"{column} stderr"
    return (column, f"{column} low", f"{column} high") if kind is Range else (column,)


def _values(cell: Cell, kind: type | None) -> list[Scalar]:
    size = len(names_of("", kind))
    parts = list(vars(cell).values())[:size] if isinstance(cell, (Measured, Range)) else [cell]
    parts += [None] * (size - len(parts))
    return [_plain(part) for part in parts]


def _plain(value: Scalar) -> Scalar:
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None


def text(cell: Cell) -> str:
    """Return a cell as printed, control characters as escapes."""
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return number(cell)
    return "yes" if cell is True else "no" if cell is False else printable(cell)
