"""The folders of a store, and the file store.json with its schema."""

from __future__ import annotations

import json
import os
from pathlib import Path

from harness.errors import DamagedFile, StoreError
from harness.files import expect_regular, how_to_write, write_whole
from harness.store.files import AGAIN, JSON_MARK, OLD, SCHEMA, UNREADABLE, StoreFiles, pack_json, unpack_json, verify

FOLDERS = ("records", "samples", "tokens", "tasks", "checkpoints", "settings", "points", "damaged", ".locks")


def read_schema(path: Path) -> int:
    """Return the schema of a store; raise StoreError if the folder is not a store or this version cannot read it."""
    mark = path / "store.json"
    try:
        expect_regular(mark)
        content = mark.read_bytes()
    except ValueError as error:
        raise StoreError(f"{mark}: {error}; remove it, and {AGAIN}") from error
    except FileNotFoundError as error:
        raise StoreError(f"{path} is not a store; harness eval ... -o {path} makes one") from error
    except OSError as error:
        raise StoreError(
            f"{mark} cannot be read: {error.strerror}; change its permissions, or copy the store"
        ) from error
    schema = _schema_of(content)
    if schema is None:
        raise DamagedFile(mark, "it has no valid schema", remedy=f"{AGAIN}, which rewrites it and keeps the cells")
    if schema not in (OLD, SCHEMA):
        raise StoreError(
            f"{path} has schema {schema}; this version reads {OLD} and {SCHEMA}; use the version that wrote it"
        )
    return schema


def expect_usable(path: Path) -> int | None:
    """Return the schema of the store that a folder is, or None if it is none yet; changes nothing.

    Raises StoreError if no store can be made there, or the store cannot be extended.
    """
    mark = path / "store.json"
    try:
        known = read_schema(path) if mark.exists() else None
    except DamagedFile:
        known = None
    if not mark.exists() and path.is_dir() and any(_is_strange(file.name) for file in path.iterdir()):
        raise StoreError(f"{path} is neither empty nor a store; choose another folder")
    if path.is_symlink() and not path.exists():
        raise StoreError(
            f"no store can be made at {path}: {path.readlink()}, where it points, is missing; make it, or "
            "choose another folder"
        )
    StoreFiles(path, schema=known or _schema_of_files(path)).expect_current()
    nearest = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise StoreError(f"no store can be made at {path}: {nearest} is not a folder; choose another folder")
    if nearest != path and not os.access(nearest, os.W_OK | os.X_OK):
        raise StoreError(f"no store can be made at {path}: {nearest} is not writable; choose another folder")
    return known


def write_mark(path: Path) -> int:
    """Make a folder a store, or repair the folders and the mark of one; return its schema, the current one."""
    known = expect_usable(path)
    try:
        for folder in FOLDERS:
            (path / folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"no store can be made at {path}: {error.strerror}; {how_to_write(error)}") from error
    if known is None:
        write_whole(path / "store.json", pack_json("store", {}))
    return SCHEMA


def _schema_of(content: bytes) -> int | None:
    """Return the schema in the mark; None if it is damaged."""
    try:
        mark = json.loads(content)
        if mark["schema"] != SCHEMA:
            if set(mark) != {"schema"}:  # the format of schema 1 has no digest
                verify(content, JSON_MARK)
            return int(mark["schema"])
        unpack_json(content, "store")
    except UNREADABLE:
        return None
    return SCHEMA


def _schema_of_files(path: Path) -> int:
    """Return the schema of the files of a store without a valid mark."""
    for file in sorted(path.glob("settings/*.json")):
        try:
            settings = json.loads(file.read_bytes())
            return SCHEMA if "digest" in settings else OLD
        except UNREADABLE:
            continue
    return SCHEMA


def _is_strange(name: str) -> bool:
    """Return whether a name is neither a folder of a store nor a file of one that is being made."""
    return name not in FOLDERS and not name.lstrip(".").startswith("store.json")
