"""Imported points: published results, stored with their origin in addition to measured points.

    STORE/points/NAME.parquet   one row per value: columns of points, and the file that it was read from (origin)
    STORE/points/NAME.json      how it was made: files with their digests, the command, the metric of each task

NAME is the name of the first file, followed by 8 digits of the digest of its content. Importing the same file again
replaces its points. The JSON file is separate, so that the import can be repeated if the table is damaged.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from functools import cached_property
from pathlib import Path
from typing import NotRequired, TypedDict

import pandas as pd
import pyarrow as pa

from harness.errors import DamagedFile, StoreError, choose
from harness.store.cells import Store
from harness.store.files import names_in
from harness.types import JsonObject

IMPORT_NAME = re.compile(r"[a-z0-9_.-]+-[0-9a-f]{8}")
SAMPLES_ENGINE = "lm_eval"  # the engine of cells made from lm-eval's samples
MEASURED = "measured"  # the origin of points that were not imported
UNKNOWN_IMPORT = "import the file that it was made from again: harness import FILE -o STORE"


def import_name(file: str, content: bytes) -> str:
    """Return the name under which the points of a file are stored.

    >>> import_name("My Results.csv", b"")
    'my_results-e3b0c442'
    """
    stem = re.sub(r"[^a-z0-9_.-]+", "_", Path(file).name.split(".")[0].lower()) or "points"
    return f"{stem}-{hashlib.sha256(content).hexdigest()[:8]}"


class ImportMeta(TypedDict):
    """How points were imported: arguments, the metric of each task, whether metrics rise, and digests of files.

    In the file, `shown_metrics` is the key "own".
    """

    command: list[str]
    shown_metrics: dict[str, str]
    rises: dict[str, bool]
    files: NotRequired[JsonObject]


def import_meta_of(stored: JsonObject) -> ImportMeta:
    """Return how points were imported; raise StoreError where the file does not say so."""
    command, metrics, rises = stored.get("command"), stored.get("own"), stored.get("rises")
    if not isinstance(command, list) or not isinstance(metrics, dict) or not isinstance(rises, dict):
        raise StoreError(f"an import has the keys {choose(stored)}; expected command, own and rises")
    meta = ImportMeta(
        command=[str(argument) for argument in command],
        shown_metrics={task: str(metric) for task, metric in metrics.items()},
        rises={metric: bool(value) for metric, value in rises.items()},
    )
    files = stored.get("files")
    if isinstance(files, dict):
        meta["files"] = files
    return meta


class ImportedStore(Store):
    """A store that also contains imported points."""

    def put_points(self, name: str, points: pd.DataFrame, about: JsonObject) -> None:
        """Store imported points under a name, with their origin: `command` (arguments), `own`, `rises`, `files`."""
        columns = {str(column): _array(points[column]) for column in points.columns}
        self.files.write_json(f"points/{name}", about)
        self.files.write_table(f"points/{name}", columns, {"rows": len(points)})
        for cached in ("imports", "imported"):
            self.__dict__.pop(cached, None)

    def import_names(self) -> list[str]:
        """Return the names of all imports, sorted; opens no file."""
        return sorted(
            {
                name
                for suffix in (".json", ".parquet")
                for name in names_in(self.path / "points", suffix)
                if IMPORT_NAME.fullmatch(name)
            }
        )

    @cached_property
    def imports(self) -> dict[str, ImportMeta]:
        """The origin of each import, including those whose table was set aside."""
        names = [name for name in self.import_names() if self.files.json(f"points/{name}").is_file()]
        return {name: self._about(name) for name in names}

    @cached_property
    def imported(self) -> pd.DataFrame:
        """All imported points, possibly none. A damaged file is set aside, and DamagedFile names it."""
        names = [name for name in self.import_names() if self.files.table(f"points/{name}").is_file()]
        frames = [self.read_import(name) for name in names]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    def read_import(self, name: str) -> pd.DataFrame:
        """Return the points of one import."""
        try:
            frame: pd.DataFrame = self.files.read_table(f"points/{name}").table.to_pandas()
        except DamagedFile as error:
            error.remedy = self.again(name)
            raise
        return frame

    def _about(self, name: str) -> ImportMeta:
        try:
            return import_meta_of(self.files.read_json(f"points/{name}"))
        except DamagedFile as error:
            error.remedy = UNKNOWN_IMPORT
            raise

    def again(self, name: str) -> str:
        """Return the sentence that says how to repeat an import."""
        try:
            command = self._about(name)["command"]
        except StoreError:
            return UNKNOWN_IMPORT
        return f"repeat the import: {shlex.join(command)}"

    def lost_imports(self) -> list[str]:
        """Return how to repeat each import whose points were damaged and set aside."""
        names = sorted({path.stem for path in self.lost() if path.parts[0] == "points"})
        return [f"{name}: {self.again(name)}" for name in names]


def _array(column: pd.Series) -> pa.Array:
    """Return a column for a file; mixed types of values become text."""
    try:
        return pa.array(column, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array(column.map(str, na_action="ignore"), pa.string(), from_pandas=True)
