"""Files of a store: written whole, with their name and a digest of all their bytes, and verified at every read.

The name of a file is its path within the store without the suffix, such as `records/CELL`. Name and digest are in the
file itself. A file is therefore one atomic write, and damage, truncation and swapped names are detected:

    Parquet   key-value metadata `harness` (JSON: schema, name, provenance) and `harness.digest` (32 hexadecimal digits)
    JSON      {"digest": ..., "schema": 2, "name": ..., "content": {...}}

The digest is the first half of the SHA-256 of all bytes of the file except its own 32 digits. Any other program can
read the Parquet files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import DamagedFile, StoreError
from harness.files import expect_regular, how_to_write, write_whole
from harness.types.json import Json, JsonObject

SCHEMA = 2
OLD = 1  # readable: no names and digests in files, only the checksums of Parquet's pages
AGAIN = "run harness eval again"  # remedy for files that harness eval computes again
DIGITS = 32
SMALL = 1 << 16  # bytes up to which zstd, whose start takes 40 us a column, saves next to nothing
LARGE = 1 << 20  # bytes from which threads pay for reading a table
TABLE_MARK = b"\x18\x0eharness.digest\x18\x20"  # Thrift: a key of 14 bytes, then the length of a value of 32
JSON_MARK = b'{\n "digest": "'
UNREADABLE = (OSError, pa.ArrowException, ValueError, KeyError, TypeError)  # what reading a damaged file may raise


Columns = Mapping[str, pa.Array]


class Content(NamedTuple):
    """A table of the store with the JSON value written with it."""

    table: pa.Table
    meta: dict[str, Json]


# --- content <-> bytes -------------------------------------------------------------------------------------------


def pack_table(name: str, columns: Columns, meta: JsonObject) -> bytes:
    """Return columns and a JSON value as a Parquet file that carries its name and digest."""
    table, buffer = pa.table(dict(columns)), BytesIO()
    envelope = {"schema": SCHEMA, "name": name, "content": dict(meta)}
    compression = "zstd" if table.nbytes > SMALL else "snappy"
    with pq.ParquetWriter(buffer, table.schema, compression=compression, store_schema=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"harness": json.dumps(envelope), "harness.digest": "0" * DIGITS})
    return _with_digest(buffer.getvalue(), TABLE_MARK)


def unpack_table(content: bytes, name: str) -> Content:
    """Invert pack_table; raise ValueError, with the reason, for any other bytes or name."""
    verify(content, TABLE_MARK)
    table = pq.ParquetFile(pa.BufferReader(content)).read(use_threads=len(content) > LARGE)
    return Content(table, _expected(json.loads(table.schema.metadata[b"harness"]), name))


def pack_json(name: str, value: JsonObject) -> bytes:
    """Return a JSON value as a file that carries its name and digest."""
    envelope = {"digest": "0" * DIGITS, "schema": SCHEMA, "name": name, "content": dict(value)}
    return _with_digest(json.dumps(envelope, indent=1).encode(), JSON_MARK)


def unpack_json(content: bytes, name: str) -> dict[str, Json]:
    """Invert pack_json; raise ValueError, with the reason, for any other bytes or name."""
    verify(content, JSON_MARK)
    return _expected(json.loads(content), name)


def verify(content: bytes, mark: bytes) -> str:
    """Return the digest in a file; raise ValueError if it is missing or not that of the bytes."""
    start = content.rfind(mark) + len(mark)
    if start < len(mark) or len(content) < start + DIGITS:
        raise ValueError("it is empty" if not content else "its digest is missing: truncated, or not of this store")
    stored, expected = content[start : start + DIGITS], _digest(content, start)
    if stored != expected:
        raise ValueError(f"its bytes have the digest {expected.decode()}, not {stored.decode('ascii', 'replace')}")
    return expected.decode()


def is_named(content: bytes, name: str) -> bool:
    """Tell whether the footer of a Parquet file contains a name, without decoding the file."""
    footer = content[-8 - int.from_bytes(content[-8:-4], "little") :]
    return json.dumps({"schema": SCHEMA, "name": name})[:-1].encode() in footer


def _with_digest(content: bytes, mark: bytes) -> bytes:
    start = content.rindex(mark) + len(mark)
    return content[:start] + _digest(content, start) + content[start + DIGITS :]


def _digest(content: bytes, start: int) -> bytes:
    """Return the digest of all bytes except the DIGITS from `start` on."""
    view = memoryview(content)
    digest = hashlib.sha256(view[:start])
    digest.update(view[start + DIGITS :])
    return digest.hexdigest()[:DIGITS].encode()


def _expected(envelope: JsonObject, name: str) -> dict[str, Json]:
    content = envelope["content"]
    if envelope["schema"] != SCHEMA:
        raise ValueError(f"it has schema {envelope['schema']}; the schema of the store is {SCHEMA}")
    if envelope["name"] != name:
        raise ValueError(f"it is {envelope['name']} under another name")
    if not isinstance(content, dict):
        raise ValueError(f"its content is a {type(content).__name__}; expected an object")
    return content


def unpack_old_table(content: bytes) -> Content:
    """Return a table of schema 1, whose pages have checksums."""
    table = pq.ParquetFile(BytesIO(content), page_checksum_verification=True).read()
    meta = json.loads(table.schema.metadata[b"harness"])
    if meta.pop("schema") != OLD:
        raise ValueError("another schema version")
    return Content(table, dict(meta))


# --- files -------------------------------------------------------------------------------------------------------


class StoreFiles:
    """The files of one store, by name. Damaged ones are moved to damaged/, unless `sets_aside` is false."""

    def __init__(self, path: Path, *, schema: int = SCHEMA, sets_aside: bool = True) -> None:
        self.path, self.schema = path, schema
        self.sets_aside = sets_aside and schema == SCHEMA

    def table(self, name: str) -> Path:
        """Return the path of a table."""
        return self.path / f"{name}.parquet"

    def json(self, name: str) -> Path:
        """Return the path of a JSON file."""
        return self.path / f"{name}.json"

    def read_table(self, name: str) -> Content:
        """Return a table; raise DamagedFile for a damaged file and StoreError for a missing one."""
        path = self.table(name)
        content = self._bytes(path)
        try:
            return unpack_table(content, name) if self.schema == SCHEMA else unpack_old_table(content)
        except UNREADABLE as error:
            raise self.damaged(path, _first_line(error)) from error

    def read_json(self, name: str) -> dict[str, Json]:
        """Return a JSON value; raises as read_table does."""
        path = self.json(name)
        content = self._bytes(path)
        try:
            return unpack_json(content, name) if self.schema == SCHEMA else dict(json.loads(content))
        except UNREADABLE as error:
            raise self.damaged(path, _first_line(error)) from error

    def check_table(self, name: str) -> None:
        """Verify all bytes and the name of a table, which takes a fifth of reading it; raises as read_table does."""
        path = self.table(name)
        content = self._bytes(path)
        try:
            verify(content, TABLE_MARK)
            if not is_named(content, name):
                unpack_table(content, name)
        except UNREADABLE as error:
            raise self.damaged(path, _first_line(error)) from error

    def digest(self, name: str) -> str:
        """Return the digest in the file of a table; raises as read_table does."""
        path = self.table(name)
        content = self._bytes(path)
        try:
            return verify(content, TABLE_MARK)
        except ValueError as error:
            raise self.damaged(path, str(error)) from error

    def write_table(self, name: str, columns: Columns, meta: JsonObject, *, temporary: str | None = None) -> str:
        """Write a table, whole or not at all, and return its digest; `temporary` is that of write_whole."""
        self.expect_current()
        content = pack_table(name, columns, meta)
        self._write(self.table(name), content, temporary)
        return verify(content, TABLE_MARK)

    def keep_json(self, name: str, value: JsonObject) -> None:
        """Write a JSON value, unless the file has it already."""
        self.expect_current()
        if not self._has_json(name, value):
            self.write_json(name, value)

    def _has_json(self, name: str, value: JsonObject) -> bool:
        try:
            return self.json(name).exists() and self.read_json(name) == json.loads(json.dumps(value))
        except (StoreError, OSError):
            return False

    def write_json(self, name: str, value: JsonObject) -> None:
        """Write a JSON value, whole or not at all."""
        self.expect_current()
        self._write(self.json(name), pack_json(name, value), None)

    def expect_current(self) -> None:
        """Raise StoreError for a store of an old schema, which is read-only."""
        if self.schema != SCHEMA:
            raise StoreError(
                f"{self.path} has schema {self.schema}, which this version reads but does not extend; evaluate into "
                "another folder with -o"
            )

    def damaged(self, path: Path, why: str) -> DamagedFile:
        """Set a damaged file aside, if this is possible, and return the error."""
        if self.schema != SCHEMA:
            return DamagedFile(path, why, remedy="evaluate its cell into another folder with -o")
        if not self.sets_aside:
            return DamagedFile(path, why)
        aside = self.path / "damaged" / path.relative_to(self.path)
        try:
            aside.parent.mkdir(parents=True, exist_ok=True)
            path.replace(aside)
        except OSError as error:
            return DamagedFile(path, why, f" and cannot be moved to {aside} ({error.strerror})")
        return DamagedFile(path, why, f" and was moved to {aside}")

    def _write(self, path: Path, content: bytes, temporary: str | None) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{path.parent} cannot be made: {error.strerror}; {how_to_write(error)}") from error
        write_whole(path, content, temporary=path.with_name(temporary) if temporary else None)

    def _bytes(self, path: Path) -> bytes:
        try:
            expect_regular(path)
            return path.read_bytes()
        except ValueError as error:
            raise self.damaged(path, str(error)) from error
        except FileNotFoundError as error:
            raise StoreError(f"{path} is missing; {AGAIN}") from error
        except PermissionError as error:
            raise StoreError(
                f"{path} cannot be read: {error.strerror}; change its permissions, or copy the store"
            ) from error
        except OSError as error:
            raise self.damaged(path, str(error.strerror or error)) from error


def names_in(folder: Path, suffix: str = "") -> list[str]:
    """Return the names in a folder that end with `suffix`, without it; none if there is no folder.

    Raises StoreError for an unreadable folder, which `Path.glob` takes for an empty one.
    """
    try:
        names = [file.name for file in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StoreError(
            f"{folder} cannot be listed: {error.strerror}; change its permissions, or copy the store"
        ) from error
    return [name.removesuffix(suffix) for name in names if name.endswith(suffix)]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
