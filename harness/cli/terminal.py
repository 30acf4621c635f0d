"""Tables on a terminal: lines fit its width and tables fit one screen, with colour and right-aligned numbers.

A table that is too wide first loses its optional columns, in the order that it states. Long text is wrapped. Columns
that still do not fit continue in blocks below, while the screen has room. A line below names the omitted columns.
`--wide` prints everything.
"""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from harness.tables import Measured, Range, Table, printable, text

if TYPE_CHECKING:
    from rich.console import Console

NARROWEST = 16  # smallest width of a wrapped text column, in characters
LONGEST_WORD = 32  # longer words are split
GAP = 2  # characters between columns
FRAME = 6  # lines of a table besides its rows: title, heading, omitted columns
FEWEST_ROWS = 5
MOST_NOTES = 5
WIDE = "--wide"


@dataclass(frozen=True)
class Screen:
    """The size of a terminal in characters; with `whole`, nothing is left out at any size."""

    width: int
    height: int
    whole: bool = False


@dataclass(frozen=True)
class Column:
    """A column as printed: its heading, its cells, and whether they are numbers."""

    name: str
    cells: tuple[str, ...]
    is_number: bool

    @cached_property
    def natural(self) -> int:
        """Return the width of the column if only the heading is wrapped."""
        return max([self.narrowest, *map(length, self.cells)])

    @cached_property
    def narrowest(self) -> int:
        """Return the smallest possible width of the column: whole numbers, the longest word of a text."""
        heading = max([0, *(length(word) for word in self.name.split())])
        if self.is_number:
            return max([heading, *map(length, self.cells)])
        words = max([0, *(length(word) for cell in self.cells for word in cell.split())])
        wrapped = min(NARROWEST, max([0, *map(length, self.cells)]))
        return max(heading, min(words, LONGEST_WORD), wrapped)


@dataclass(frozen=True)
class Layout:
    """Blocks of columns (numbers of columns and their widths), the columns left out, and how many rows are shown."""

    blocks: tuple[dict[int, int], ...]
    left_out: tuple[int, ...]
    rows: int


def is_terminal() -> bool:
    """Tell whether standard output is a terminal."""
    return bool(sys.stdout.isatty())


def screen(*, whole: bool = False) -> Screen:
    """Return the size of standard output's terminal; COLUMNS and LINES replace it."""
    try:
        size = os.get_terminal_size(sys.stdout.fileno())
    except (OSError, ValueError):
        size = os.terminal_size((80, 24))
    width, height = (
        int(asked) if (asked := os.environ.get(name, "")).isdigit() and int(asked) else measured or default
        for name, measured, default in (("COLUMNS", size.columns, 80), ("LINES", size.lines, 24))
    )
    return Screen(width, height, whole)


def length(string: str) -> int:
    """Return the width of a text on a terminal, in characters."""
    from rich.cells import cell_len

    return cell_len(string)


def show_tables(tables: Sequence[Table], at: Screen, *, every_row: bool = False) -> None:
    """Print the first of several tables, or all if nothing may be left out; list the tables that are not shown."""
    console = _console(at.width)
    shown, others = (tables, ()) if at.whole else (tables[:1], tables[1:])
    for number, table in enumerate(shown):
        if number:
            console.print()
        _show(console, table, at, every_row=every_row)
    if others:
        names = ", ".join(f"{table.name} ({len(table.rows)} rows)" for table in others)
        _say(console, f"More tables: {names}; --table NAME prints one, {WIDE} prints all.", at.width)


def show_text(lines: str, at: Screen) -> None:
    """Print indented lines; wrap long lines and indent their continuation further."""
    console = _console(at.width)
    for line in lines.splitlines():
        indent = " " * (len(line) - len(line.lstrip()) + 4)
        for part in _wrapped(line, at.width, indent) or [""]:
            _print(console, part)


def _console(width: int) -> Console:
    from rich.console import Console

    return Console(file=sys.stdout, width=width, highlight=False, markup=False, emoji=False)


def _show(console: Console, table: Table, at: Screen, *, every_row: bool) -> None:
    columns = [_column(table, i) for i in range(len(table.columns))]
    layout = arrange(columns, table, at, every_row=every_row)
    for part in _wrapped(table.title, at.width, ""):
        _print(console, part, "bold")
    for block in layout.blocks:
        _print_block(console, table, columns, block, layout.rows)
    for note in _notes(table, columns, layout, replace(at, whole=at.whole or every_row)):
        _say(console, note, at.width)


def _column(table: Table, i: int) -> Column:
    cells = [row[i] for row in table.rows]
    known = [cell for cell in cells if cell is not None]
    is_number = bool(known) and all(
        isinstance(cell, (int, float, Measured, Range)) and not isinstance(cell, bool) for cell in known
    )
    return Column(printable(table.columns[i]), tuple(printable(text(cell)) for cell in cells), is_number)


def arrange(columns: Sequence[Column], table: Table, at: Screen, *, every_row: bool = False) -> Layout:
    """Return the layout: the columns and rows to show, in blocks.

    Optional columns are left out first, in the table's order. Columns that still do not fit continue in blocks below,
    which repeat the first columns. Blocks that do not fit the screen are left out.
    """
    count = len(table.rows)
    if at.whole:
        return Layout(({i: column.natural for i, column in enumerate(columns)},), (), count)
    rows = count if every_row else min(count, max(at.height - FRAME - len(table.notes[:MOST_NOTES]), FEWEST_ROWS))
    columns_left = list(range(len(columns)))
    for name in table.optional:
        if _fits(columns, columns_left, at.width):
            break
        columns_left = [i for i in columns_left if table.columns[i] != name]
    blocks = list(_blocks(columns, columns_left, at.width))
    room = max((at.height - FRAME) // (rows + 3), 1)
    widths = tuple(_widths(columns, block, at.width) for block in blocks[:room])
    shown = {i for block in widths for i in block}
    return Layout(widths, tuple(i for i in range(len(columns)) if i not in shown), rows)


def _fits(columns: Sequence[Column], numbers: Sequence[int], width: int) -> bool:
    return sum(columns[i].narrowest for i in numbers) + GAP * (len(numbers) - 1) <= width


def _blocks(columns: Sequence[Column], numbers: Sequence[int], width: int) -> Iterator[list[int]]:
    """Yield groups of columns that fit; each starts with the columns that name the rows (the text on the left)."""
    names = list[int]()
    for i in numbers:
        if columns[i].is_number or not _fits(columns, [*names, i], width // 2):
            break
        names.append(i)
    names = names or list(numbers[:1])
    block = list(names)
    for i in numbers[len(names) :]:
        if len(block) > len(names) and not _fits(columns, [*block, i], width):
            yield block
            block = list(names)
        block.append(i)
    yield block


def _widths(columns: Sequence[Column], block: Sequence[int], width: int) -> dict[int, int]:
    """Return the width of each column of a block; the widest text columns shrink first."""
    room = width - GAP * (len(block) - 1)
    widths = {i: columns[i].natural for i in block}
    while sum(widths.values()) > room:
        loose = [i for i in block if widths[i] > columns[i].narrowest] or [i for i in block if widths[i] > 1]
        widest = max(loose, key=lambda i: widths[i])
        widths[widest] -= 1
    return widths


def _print_block(console: Console, table: Table, columns: Sequence[Column], block: dict[int, int], rows: int) -> None:
    from rich.table import Table as RichTable
    from rich.text import Text

    grid = RichTable(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold cyan", collapse_padding=True)
    for i, width in block.items():
        justify: Literal["left", "right"] = "right" if columns[i].is_number else "left"
        grid.add_column(Text(columns[i].name), width=width, justify=justify, overflow="fold", no_wrap=False)
    grid.add_row(*(Text("-" * width, style="dim") for width in block.values()))
    for number in range(rows):
        bold = [(number, i) in table.best for i in block]
        cells = zip(block, bold, strict=True)
        grid.add_row(*(Text(columns[i].cells[number], style="bold green" if b else "") for i, b in cells))
    total = sum(block.values()) + GAP * (len(block) - 1)
    console.print()
    _console(max(total, console.width)).print(grid)
    console.print()


def _notes(table: Table, columns: Sequence[Column], layout: Layout, at: Screen) -> Iterator[str]:
    """Yield the lines below a table: omitted rows and columns, the meaning of signs, and notes."""
    if layout.rows < len(table.rows):
        yield f"{layout.rows} of {len(table.rows)} rows; {WIDE} prints all."
    if layout.left_out:
        names = ", ".join(columns[i].name for i in layout.left_out)
        yield f"Columns left out because the terminal is {at.width} characters wide: {names}; {WIDE} prints all."
    shown = [cell for block in layout.blocks for i in block for cell in columns[i].cells[: layout.rows]]
    if table.best:
        yield "Bold: the best of each row, and values within two standard errors of the difference from it."
    if "-" in shown:
        yield "-: no value."
    if any(cell.endswith((" ?", "[?]")) for cell in shown):
        yield "?: the error or interval is unknown."
    notes = table.notes if at.whole else table.notes[:MOST_NOTES]
    yield from map(printable, notes)
    if len(notes) < len(table.notes):
        yield f"{len(table.notes) - len(notes)} more notes; {WIDE} prints all."


def _say(console: Console, note: str, width: int) -> None:
    for part in _wrapped(f"· {note}", width, "  "):
        _print(console, part, "dim")


def _wrapped(line: str, width: int, indent: str) -> list[str]:
    return textwrap.wrap(line, width, subsequent_indent=indent[: width // 2], drop_whitespace=True)


def _print(console: Console, line: str, style: str = "") -> None:
    from rich.text import Text

    console.print(Text(line, style=style), soft_wrap=True)
