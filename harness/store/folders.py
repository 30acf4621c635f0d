"""What makes a folder a store: its folders, and the mark store.json, which says its schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.errors import DamagedFile, StoreError
from harness.files import write_whole
from harness.inputs import expect_regular
from harness.store.files import AGAIN, OLD, SCHEMA, UNREADABLE, StoreFiles, pack_json, unpack_json

FOLDERS = ("records", "samples", "tokens", "tasks", "checkpoints", "settings", "points", "damaged", ".locks")


def read_schema(path: Path) -> int:
    """Return the schema of a store; raise StoreError where there is none, or this version cannot read it."""
    mark = path / "store.json"
    try:
        expect_regular(mark)
        content = mark.read_bytes()
    except ValueError as error:
        raise StoreError(f"{mark}: {error}; remove it, and {AGAIN}") from error
    except FileNotFoundError as error:
        raise StoreError(f"{path} is not a store; harness eval ... -o {path} makes one") from error
    except OSError as error:
        raise StoreError(f"{mark} cannot be read: {error.strerror}; allow it, or copy the store") from error
    schema = _schema_of(content)
    if schema is None:
        raise DamagedFile(f"{mark} is damaged; {AGAIN}, which writes it anew and keeps what is there")
    if schema not in (OLD, SCHEMA):
        raise StoreError(
            f"{path} has schema {schema}, this harness reads {OLD} and {SCHEMA}; use the version that wrote it"
        )
    return schema


def write_mark(path: Path) -> int:
    """Make a folder a store, or mend the folders and the mark of one; return its schema, which is the current one."""
    mark = path / "store.json"
    try:
        known = read_schema(path) if mark.exists() else None
    except DamagedFile:
        known = None
    if not mark.exists() and path.is_dir() and any(_is_strange(file.name) for file in path.iterdir()):
        raise StoreError(f"{path} is neither empty nor a store; name another folder")
    StoreFiles(path, schema=known or _schema_of_files(path)).expect_current()
    try:
        for folder in FOLDERS:
            (path / folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"no store can be made at {path}: {error.strerror}; name another folder") from error
    if known is None:
        write_whole(mark, pack_json("store", {}))
    return SCHEMA


def _schema_of(content: bytes) -> int | None:
    """Return the schema that a mark says; None where it is damaged."""
    try:
        found: Any = json.loads(content)
        if set(found) == {"schema"} and found["schema"] != SCHEMA:  # as schema 1 wrote it
            return int(found["schema"])
        unpack_json(content, "store")
    except UNREADABLE:
        return None
    return SCHEMA


def _schema_of_files(path: Path) -> int:
    """Return the schema by the files that a store holds, where its mark does not say it."""
    for file in sorted(path.glob("settings/*.json")):
        try:
            found = json.loads(file.read_bytes())
            return SCHEMA if "digest" in found else OLD
        except UNREADABLE:
            continue
    return SCHEMA


def _is_strange(name: str) -> bool:
    """Say whether a name is none that making a store leaves, finished, killed or under way in another process."""
    return name not in FOLDERS and not name.lstrip(".").startswith("store.json")
