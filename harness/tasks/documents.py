"""Read the documents of a task as rows of fields: JSON lines, JSON, CSV or blocks of lines, gzipped or not."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import TextIO

from harness.errors import TaskError, choose
from harness.files import MOST_LINE, expect_regular, parse_json, read_all, read_lines
from harness.types import Json

UTF8 = "utf-8-sig"  # some programs write a byte order mark before the text
UNREADABLE = (ValueError, EOFError, OSError, csv.Error, zlib.error)  # what reading a file may raise


def look_for(patterns: Sequence[str], folders: Sequence[Path]) -> list[Path]:
    """Return the files that match names or wildcards, sorted, from the first folder that has some of each, or none.

    Raises TaskError for a name that leads out of the folders.
    """
    for pattern in patterns:
        expect_inside(pattern, "documents")
    for folder in folders:
        matches = [_glob(folder, pattern) for pattern in patterns]
        if all(matches):
            return sorted({file for files in matches for file in files})
    return []


def expect_inside(name: str, key: str) -> None:
    """Raise TaskError where a name in task.yaml leads out of the folder it is looked for in."""
    path = PurePath(name)
    if path.is_absolute() or ".." in path.parts:
        raise TaskError(f"{key}: {name!r} leads out of the folder of the task; name that folder with --data instead")


def expect_own(file: Path, folder: Path) -> None:
    """Raise TaskError where a file of a task is a link to somewhere outside of its folder."""
    if not file.resolve().is_relative_to(folder.resolve()):
        raise TaskError(
            f"{file} is a link to {file.resolve()}, outside of the folder of the task; copy the file, or name its "
            "folder with --data"
        )


def _glob(folder: Path, pattern: str) -> list[Path]:
    try:
        return list(folder.glob(pattern))
    except (ValueError, NotImplementedError, OSError) as error:
        raise TaskError(f"documents: {pattern!r}: {error}; expected the name of a file, or a wildcard") from error


def find_files(patterns: str | Sequence[str], folders: Sequence[Path]) -> list[Path]:
    """Return the files that match, as look_for does; raise TaskError if there are none."""
    patterns = [patterns] if isinstance(patterns, str) else patterns
    files = look_for(patterns, folders)
    if not files:
        raise TaskError(f"no file {' or '.join(patterns)} in {choose(folders)}; pass its folder with --data")
    return files


def read_rows(file: Path, columns: Sequence[str] = (), rows: str = "") -> Iterator[dict[str, Json]]:
    """Yield the documents of a file; each row also has `file`, the name without suffixes, unless it has one itself.

    `columns` names the columns of a CSV file that has no header, and the lines of a block in a text file; without them
    a text file is one document with the field `text`. `rows` is the field with a list of documents; each also gets the
    fields outside the list. Raises TaskError with file and line.
    """
    stem, _, suffix = file.name.removesuffix(".gz").rpartition(".")
    if suffix not in READERS:
        raise TaskError(f"{file}: expected {choose(READERS)}, or one of them with .gz")
    try:
        expect_regular(file)
        with gzip.open(file, "rt", encoding=UTF8) if file.suffix == ".gz" else file.open(encoding=UTF8) as stream:
            for row in READERS[suffix](stream, file, columns):
                yield from ({"file": stem, **inner} for inner in (_inner(row, rows, file) if rows else [row]))
    except TaskError:
        raise
    except UNREADABLE as error:
        raise TaskError(f"{file}: {error}; expected text in UTF-8") from error


def _inner(row: dict[str, Json], rows: str, file: Path) -> list[dict[str, Json]]:
    documents = row.get(rows)
    if not isinstance(documents, list):
        raise TaskError(f"{file}: expected a list of documents in the field {rows!r}; its fields: {choose(row)}")
    outside = {name: value for name, value in row.items() if name != rows}
    return [{**outside, **_object(inner, f"{file}, {rows} {k}")} for k, inner in enumerate(documents)]


def _json_lines(stream: TextIO, file: Path, _: Sequence[str]) -> Iterator[dict[str, Json]]:
    for number, line in enumerate(read_lines(stream), 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line, once=True)
        except ValueError as error:
            raise TaskError(f"{file}, line {number}: {error}; expected one JSON object per line") from error
        yield _object(row, f"{file}, line {number}")


def _json_file(stream: TextIO, file: Path, _: Sequence[str]) -> Iterator[dict[str, Json]]:
    try:
        value = parse_json(read_all(stream), once=True)
    except UnicodeDecodeError:
        raise
    except ValueError as error:
        raise TaskError(f"{file}: {error}; expected JSON") from error
    for number, row in enumerate(value if isinstance(value, list) else [value]):
        yield _object(row, f"{file}, document {number}")


def _object(row: Json, where: str) -> dict[str, Json]:
    if not isinstance(row, dict):
        raise TaskError(f"{where}: expected a JSON object, found {type(row).__name__}")
    return row


def _csv_rows(stream: TextIO, file: Path, columns: Sequence[str]) -> Iterator[dict[str, Json]]:
    csv.field_size_limit(MOST_LINE)
    reader = csv.DictReader(read_lines(stream), fieldnames=list(columns) or None)
    names = reader.fieldnames or ()
    if twice := {name for name in names if list(names).count(name) > 1}:
        raise TaskError(f"{file}: several columns have the name {choose(twice)}; rename all but one")
    for row in reader:
        if None in row or None in row.values():
            raise TaskError(
                f"{file}, line {reader.line_num}: expected {len(reader.fieldnames or ())} columns "
                f"({', '.join(reader.fieldnames or ())}) in every row"
            )
        yield row


def _blocks(stream: TextIO, file: Path, columns: Sequence[str]) -> Iterator[dict[str, Json]]:
    """Yield the blocks of a text file; without columns, the whole file as one document, white space included."""
    if not columns:
        yield {"text": read_all(stream)}
        return
    for number, block in enumerate(read_all(stream).strip().split("\n\n")):
        lines = block.split("\n")
        if len(lines) != len(columns):
            raise TaskError(
                f"{file}, block {number}: expected {len(columns)} lines ({', '.join(columns)}), found {len(lines)}"
            )
        yield dict(zip(columns, lines, strict=True))


READERS = {"jsonl": _json_lines, "json": _json_file, "csv": _csv_rows, "txt": _blocks}
