"""Table formats: Markdown, CSV, JSON and LaTeX."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence

import harness
from harness import Table, printable
from harness.tables import text

TAG = re.compile(r"<(?=[A-Za-z/!?])")


def markdown(tables: Sequence[Table]) -> str:
    """Return tables in GitHub's Markdown; columns are padded so that the source is readable too."""
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
    """Return text on one line, with HTML tags escaped."""
    return TAG.sub(r"\\<", printable(value))


def comma_separated(tables: Sequence[Table]) -> str:
    """Return tables separated by empty lines; values, errors and bounds have one column each."""
    return "\n".join(map(_csv, tables))


def _csv(table: Table) -> str:
    columns, rows = table.flat()
    stream = io.StringIO()
    shown = [[printable(cell) if isinstance(cell, str) else cell for cell in row] for row in (columns, *rows)]
    csv.writer(stream, lineterminator="\n").writerows(shown)
    return stream.getvalue()


def as_json(tables: Sequence[Table]) -> str:
    """Return tables as one JSON object, with a list of rows per table."""
    content = {}
    for table in tables:
        columns, rows = table.flat()
        content[table.name] = {
            "title": table.title,
            "rows": [dict(zip(columns, row, strict=True)) for row in rows],
            "notes": list(table.notes),
        }
    return _printable_json(json.dumps(content, indent=1, ensure_ascii=False)) + "\n"


def _printable_json(content: str) -> str:
    """Return JSON with control characters as JSON escapes: a terminal does not obey them, and values are unchanged."""
    return "".join(c if c == "\n" or printable(c) == c else json.dumps(c)[1:-1] for c in content)


def latex(tables: Sequence[Table]) -> str:
    """Return tables as LaTeX tabular environments with booktabs rules."""
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
    """Register the formats by file suffix."""
    register("md", markdown)
    register("csv", comma_separated)
    register("json", as_json)
    register("tex", latex)
