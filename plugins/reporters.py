"""Formats for tables: Markdown, CSV, JSON and LaTeX."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence

import harness
from harness import Table, printable
from harness.tables import text
from harness.types import Scalar

TAG = re.compile(r"<(?=[A-Za-z/!?])")


def markdown(tables: Sequence[Table]) -> str:
    """Return tables as GitHub prints them; columns are padded, so that the text reads well as it is."""
    return "\n".join(map(_markdown, tables))


def _markdown(table: Table) -> str:
    cells = [[text(cell) for cell in row] for row in (table.columns, *table.rows)]
    cells = [[_inline(cell).replace("|", "\\|") for cell in row] for row in cells]
    widths = [max(len(row[i]) for row in cells) for i in range(len(table.columns))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    notes = "".join(f"\n- {_inline(note)}" for note in table.notes)
    return f"## {_inline(table.title)}\n\n" + "\n".join(lines) + "\n" + (notes + "\n" if notes else "")


def _inline(value: str) -> str:
    """Return text on one line, in which nothing is a tag of HTML."""
    return TAG.sub(r"\\<", printable(value))


def comma_separated(tables: Sequence[Table]) -> str:
    """Return tables one after the other, an empty line between them; values, errors and bounds a column each."""
    return "\n".join(map(_csv, tables))


def _csv(table: Table) -> str:
    columns, rows = table.flat()
    stream = io.StringIO()
    lines: list[Sequence[Scalar]] = [columns, *rows]
    shown = [[printable(cell) if isinstance(cell, str) else cell for cell in line] for line in lines]
    csv.writer(stream, lineterminator="\n").writerows(shown)
    return stream.getvalue()


def as_json(tables: Sequence[Table]) -> str:
    """Return tables as one JSON object, a list of rows each."""
    found = {}
    for table in tables:
        columns, rows = table.flat()
        found[table.name] = {
            "title": table.title,
            "rows": [dict(zip(columns, row, strict=True)) for row in rows],
            "notes": list(table.notes),
        }
    return _printable_json(json.dumps(found, indent=1, ensure_ascii=False)) + "\n"


def _printable_json(content: str) -> str:
    """Return JSON with the escapes of JSON for characters that a terminal would obey, so that values stay the same."""
    return "".join(c if c == "\n" or printable(c) == c else json.dumps(c)[1:-1] for c in content)


def latex(tables: Sequence[Table]) -> str:
    """Return tables as tabular environments for booktabs."""
    return "\n".join(map(_latex, tables))


ESCAPES = {c: "\\" + c for c in "&%$#_{}"} | {
    "±": "$\\pm$",
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def _latex(table: Table) -> str:
    def row(cells: Sequence[str]) -> str:
        return " & ".join("".join(ESCAPES.get(c, c) for c in cell) for cell in cells) + r" \\"

    body = [row([text(cell) for cell in cells]) for cells in table.rows]
    lines = [
        f"% {printable(table.title)}",
        r"\begin{tabular}{" + "l" * len(table.columns) + "}",
        r"\toprule",
        row([text(column) for column in table.columns]),
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        *(f"% {printable(note)}" for note in table.notes),
    ]
    return "\n".join(lines) + "\n"


@harness.hookimpl
def register_reporters(register: harness.Register) -> None:
    """Register them by the suffix of their files."""
    register("md", markdown)
    register("csv", comma_separated)
    register("json", as_json)
    register("tex", latex)
