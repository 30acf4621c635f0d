"""Read every file of a store and list damaged, missing and unexpected ones, without changing anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from harness.errors import DamagedFile, StoreError
from harness.store.choice_cells import CELL_NAME
from harness.store.files import SCHEMA
from harness.store.identity import CellId
from harness.store.imported import IMPORT_NAME, ImportedStore
from harness.store.names import CHECKPOINT_NAME, DIGEST
from harness.store.sample_cells import PART_NAME
from harness.tables import Table

NAMES = {
    "records": (CELL_NAME, ".parquet"),
    "tokens": (CELL_NAME, ".parquet"),
    "tasks": (DIGEST, ".parquet"),
    "checkpoints": (CHECKPOINT_NAME, ".json"),
    "settings": (DIGEST, ".json"),
}  # stem and suffix of the files of each folder


class Finding(NamedTuple):
    """One finding: `kind` is damaged, missing, unsealed, strange, set aside or trusted; `path` is in the store.

    Cells that are trusted ran code of their checkpoint, or read its weights from a pickle.
    """

    kind: str
    path: str
    what: str


def check_store(path: str | Path) -> list[Finding]:
    """Return all findings of a store, sorted; changes nothing.

    Raises StoreError if the folder is not a store or its store.json is damaged.
    """
    store = ImportedStore(path, sets_aside=False)
    findings = [*_cells(store), *_names(store), *_imports(store), *_strange(store)]
    findings += [Finding("set aside", str(path), _aside(store, path)) for path in store.lost()]
    return sorted(set(findings))


def _aside(store: ImportedStore, path: Path) -> str:
    """Return the state of a file that was set aside, and how to restore it."""
    again = f"; {store.again(path.stem)}" if path.parts[0] == "points" else ""
    return f"it was damaged and is not computed again yet{again}"


def findings_table(path: str | Path) -> Table:
    """Return the findings of check_store as a table."""
    store, findings = ImportedStore(path, sets_aside=False), check_store(path)
    schema = (
        "" if store.files.schema == SCHEMA else f" of schema {store.files.schema}, in which footers have no checksums"
    )
    note = f"{len(store.cell_names())} cells{schema}; {len(findings)} findings."
    repair = "Repeat the harness eval command to recompute damaged and missing cells."
    rows = tuple(tuple(finding) for finding in findings)
    is_wrong = any(finding.kind != "trusted" for finding in findings)
    return Table("check", f"Findings in {path}", ("kind", "file", "what"), rows, (note, *([repair] * is_wrong)))


def _cells(store: ImportedStore) -> Iterator[Finding]:
    """Read every cell with its documents, and the parts of incomplete cells."""
    complete, of_choices = store.cell_names(), store.choice_cells.names()
    for name in sorted(complete):
        try:
            store.check(name)
            if name in of_choices:
                store.load(CellId.of(name))
            if store.token_cells.has(name):
                store.read_tokens(name)
            yield from _trusted(store, name)
        except (StoreError, KeyError) as error:
            yield _finding(store, f"cell {name}", error)
    for folder in sorted((store.path / "samples").glob("*")):
        if CELL_NAME.fullmatch(folder.name) and folder.name not in complete:
            yield Finding(
                "unsealed", f"samples/{folder.name}", "not all of its samples are drawn, or its seal is missing"
            )
            yield from _parts(store, folder.name)


def _trusted(store: ImportedStore, name: str) -> Iterator[Finding]:
    """Yield findings for checkpoints whose loading may have run their own code."""
    provenance = store.provenance(name)
    for key, meaning in (("remote_code", "code of the checkpoint ran"), ("pickles", "weights were read from a pickle")):
        files = provenance.get(key)
        if files and isinstance(files, (list, dict)):
            yield Finding(
                "trusted", f"cell {name}", f"{meaning}: {', '.join(map(str, files))} ({_labels(store, name)})"
            )


def _labels(store: ImportedStore, name: str) -> str:
    named = store.checkpoints.get(CellId.of(name).checkpoint, ())
    return " and ".join(checkpoint.label for checkpoint in named) or "unnamed"


def _parts(store: ImportedStore, name: str) -> Iterator[Finding]:
    for part in store.sample_cells.parts(name):
        try:
            store.files.read_table(part)
        except StoreError as error:
            yield _finding(store, part, error)


def _names(store: ImportedStore) -> Iterator[Finding]:
    """Read all tasks, settings and checkpoints, and report those that cells need and that are missing."""
    readable: dict[str, set[str]] = {"tasks": set(), "settings": set(), "checkpoints": set()}
    for folder, read_names in readable.items():
        pattern, suffix = NAMES[folder]
        read = store.files.read_json if suffix == ".json" else store.files.read_table
        for file in sorted((store.path / folder).glob(f"*{suffix}")):
            if pattern.fullmatch(file.stem):
                try:
                    read(f"{folder}/{file.stem}")
                    read_names.add(file.stem.split("-")[0])
                except StoreError as error:
                    yield _finding(store, f"{folder}/{file.name}", error)
    for name in sorted(store.cell_names()):
        cell = CellId.of(name)
        used = {"tasks": cell.fingerprint, "settings": cell.settings, "checkpoints": cell.checkpoint}
        for folder, digest in used.items():
            if digest not in readable[folder]:
                yield Finding("missing", f"{folder}/{digest}", "cells need it, and it is missing or damaged")


def _imports(store: ImportedStore) -> Iterator[Finding]:
    """Read imported points and how they were made."""
    for name in store.import_names():
        for suffix in ("json", "parquet"):
            path = f"points/{name}.{suffix}"
            if not (store.path / path).is_file():
                yield Finding("missing", path, f"its other half is in the store; {store.again(name)}")
                continue
            try:
                store.files.read_json(f"points/{name}") if suffix == "json" else store.read_import(name)
            except StoreError as error:
                finding = _finding(store, path, error)
                yield finding._replace(what=f"{finding.what}; {store.again(name)}")


def _strange(store: ImportedStore) -> Iterator[Finding]:
    """Report the files that no version of the harness writes; they are not read."""
    for file in sorted(store.path.rglob("*")):
        inside = file.relative_to(store.path)
        if file.is_file() and not _is_ours(inside):
            yield Finding("strange", str(inside), "unexpected file; it is not read and may be removed")


def _is_ours(inside: Path) -> bool:
    folder = inside.parts[0]
    if folder == "points":
        return IMPORT_NAME.fullmatch(inside.stem) is not None and inside.suffix in {".json", ".parquet"}
    if folder in ("store.json", "damaged", ".locks") or inside.name.startswith("."):
        return True
    if folder == "samples" and len(inside.parts) == 3:
        is_part = PART_NAME.fullmatch(inside.stem) is not None and inside.suffix == ".parquet"
        return CELL_NAME.fullmatch(inside.parts[1]) is not None and (is_part or inside.name == "seal.json")
    pattern, suffix = NAMES.get(folder, (None, ""))
    return pattern is not None and pattern.fullmatch(inside.stem) is not None and inside.suffix == suffix


def _finding(store: ImportedStore, where: str, error: Exception) -> Finding:
    if isinstance(error, DamagedFile):
        return Finding("damaged", str(Path(str(error.path)).relative_to(store.path)), error.why)
    return Finding("damaged", where, " ".join(str(error).split()))
