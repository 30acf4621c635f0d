"""Read the documents of a task as rows of fields: JSON lines, JSON, CSV or blocks of lines, gzipped or not."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from harness.errors import TaskError, choose


def look_for(patterns: Sequence[str], folders: Sequence[Path]) -> list[Path]:
    """Return the files that match names or wildcards, sorted, from the first folder with files for each pattern."""
    for folder in folders:
        found = [list(folder.glob(pattern)) for pattern in patterns]
        if all(found):
            return sorted({file for files in found for file in files})
    return []


def find_files(patterns: str | Sequence[str], folders: Sequence[Path]) -> list[Path]:
    """Return the files that match, as look_for does; raise TaskError if there are none."""
    patterns = [patterns] if isinstance(patterns, str) else patterns
    files = look_for(patterns, folders)
    if not files:
        raise TaskError(f"no file {' or '.join(patterns)} in {choose(folders)}; pass its folder with --data")
    return files


def read_rows(file: Path, columns: Sequence[str] = (), rows: str = "") -> Iterator[dict[str, Any]]:
    """Yield the documents of a file; each row also has `file`, the name without suffixes, unless it has one itself.

    `columns` names the columns of a CSV file that has no header, and the lines of a block in a text file. `rows` is
    the field with a list of documents; each also gets the fields outside the list. Raises TaskError with file
    and line.
    """
    stem, _, suffix = file.name.removesuffix(".gz").rpartition(".")
    if suffix not in READERS:
        raise TaskError(f"{file}: expected {choose(READERS)}, or one of them with .gz")
    try:
        with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as stream:
            for row in READERS[suffix](stream, file, columns):
                yield from ({"file": stem, **inner} for inner in (_inner(row, rows, file) if rows else [row]))
    except (UnicodeDecodeError, EOFError, OSError) as error:
        raise TaskError(f"{file}: {error}; expected text in UTF-8") from error


def _inner(row: dict[str, Any], rows: str, file: Path) -> list[dict[str, Any]]:
    found = row.get(rows)
    if not isinstance(found, list):
        raise TaskError(f"{file}: expected a list of documents in the field {rows!r}; its fields: {choose(row)}")
    outside = {name: value for name, value in row.items() if name != rows}
    return [{**outside, **inner} for inner in found]


def _json_lines(stream: TextIO, file: Path, _: Sequence[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise TaskError(f"{file}, line {number}: {error}; expected one JSON object per line") from error
        yield _object(row, f"{file}, line {number}")


def _json_file(stream: TextIO, file: Path, _: Sequence[str]) -> Iterator[dict[str, Any]]:
    try:
        value = json.load(stream)
    except json.JSONDecodeError as error:
        raise TaskError(f"{file}: {error}; expected JSON") from error
    for number, row in enumerate(value if isinstance(value, list) else [value]):
        yield _object(row, f"{file}, document {number}")


def _object(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise TaskError(f"{where}: expected a JSON object, found {type(row).__name__}")
    return row


def _csv_rows(stream: TextIO, file: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    reader = csv.DictReader(stream, fieldnames=list(columns) or None)
    for row in reader:
        if None in row or None in row.values():
            raise TaskError(
                f"{file}, line {reader.line_num}: expected {len(reader.fieldnames or ())} columns "
                f"({', '.join(reader.fieldnames or ())}) in every row"
            )
        yield row


def _blocks(stream: TextIO, file: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    for number, block in enumerate(stream.read().strip().split("\n\n")):
        lines = block.split("\n")
        if len(lines) != len(columns):
            raise TaskError(
                f"{file}, block {number}: expected {len(columns)} lines ({', '.join(columns)}), found {len(lines)}"
            )
        yield dict(zip(columns, lines, strict=True))


READERS = {"jsonl": _json_lines, "json": _json_file, "csv": _csv_rows, "txt": _blocks}
