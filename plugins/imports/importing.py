"""harness import: convert published tables, and lm-eval's results and samples, to points and records of a store."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import harness
from harness import Checkpoint, Table, UsageError
from harness.errors import LawError, choose
from harness.files import digest_of
from harness_plugins.imports.lm_eval import (
    RESULTS,
    SAMPLES,
    Results,
    identity,
    points_table,
    read_results,
    scored,
    settings,
)

if TYPE_CHECKING:
    import click

    from harness import PointStore
    from harness.points import Published, Reading

TABLES = (".csv", ".csv.gz", ".parquet", ".tsv")
MAPPING = ("map", "where", "label", "run", "family", "tasks", "metric", "models")


@dataclass(frozen=True)
class Imported:
    """The result of importing one file: a name for its points, the points, and the written cells."""

    file: Path
    name: str
    published: Published
    checkpoints: int
    cells: int = 0


def import_files(
    files: Sequence[Path], path: Path, how: Reading, *, command: Sequence[str] = (), registries: Any = None
) -> Table:
    """Import files, or the files of folders, into the store at a path; return a table of the imported points.

    :param files: CSV and Parquet tables (long or wide), results_*.json and samples_*.jsonl of lm-eval.
    :param how: columns, units and models; see `harness.points.Reading`.
    :param command: stored with the points, and printed if they are damaged.

    A file that was imported before replaces its points. Raises UsageError for other kinds of files, and for a point
    that the store already contains, measured or imported from another file. If one file is invalid, nothing is written.
    """
    inputs = list(_files(files))
    made = [_of_table(file, how) for file in inputs if _is_table(file)]
    results = read_results([file for file in inputs if not _is_table(file)])
    of_results = [(result_file, _of_results(result_file, how)) for result_file in results]
    store = harness.open_store(path, create=True, registries=registries)
    _refuse_known(store, [*made, *(imported for _, imported in of_results)])
    made += [_with_records(store, result_file, imported) for result_file, imported in of_results]
    for imported in made:
        published = imported.published
        about: dict[str, Any] = {"command": list(command), "files": {imported.file.name: _digest(imported.file)}}
        about |= {"notes": list(published.notes)}
        about |= {"own": published.shown_metrics, "rises": published.rises, "cells": imported.cells}
        if len(published.points):
            store.put_points(imported.name, published.points.assign(origin=imported.file.name), about)
    return _summary(made)


def _files(files: Sequence[Path]) -> Iterator[Path]:
    """Yield files, and the files of folders that are results or samples of lm-eval."""
    for file in files:
        if not file.is_dir():
            yield file
            continue
        inside = [p for p in sorted(file.rglob("*")) if RESULTS.fullmatch(p.name) or SAMPLES.fullmatch(p.name)]
        if not inside:
            raise UsageError(f"{file} is a folder without results_*.json; pass the files to import")
        yield from inside


def _is_table(path: Path) -> bool:
    return path.name.lower().endswith(TABLES)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _of_table(path: Path, how: Reading) -> Imported:
    from harness.points import published, read_table

    table, _ = read_table(path)
    return _imported(path, published(table, how, name=path.name.split(".")[0]))


def _imported(path: Path, read: Published) -> Imported:
    from harness.points import import_name

    known = [name for name in ("family", "size", "step", "seed", "run", "label") if name in read.points.columns]
    return Imported(path, import_name(path.name, path.read_bytes()), read, len(read.points[known].drop_duplicates()))


def _of_results(results: Results, how: Reading) -> Imported:
    """Return the points of a results file; ignore models of the mapping file that belong to other files."""
    from harness.points import published

    models = {name: columns for name, columns in how.models.items() if name == results.model}
    published_points = published(
        points_table(results), replace(how, models=models), name=results.model, rises=results.rises, rescales=False
    )
    return _imported(results.path, published_points)


def _refuse_known(store: PointStore, made: Sequence[Imported]) -> None:
    """Raise UsageError if the store already contains a point, measured or from another file."""
    import pandas as pd

    from harness.points import same_points

    names = {imported.name for imported in made}
    others = [store.read_import(name) for name in store.import_names() if name not in names]
    for imported in made:
        for frame, where in [*((frame, "imported") for frame in others), (_measured(store), "measured")]:
            twice = same_points(imported.published.points, frame)
            if twice:
                origin = frame["origin"].iloc[0] if "origin" in frame.columns else "by harness eval"
                raise UsageError(
                    f"{imported.file}: {'; '.join(twice)} are in the store already, {where} ({origin}); leave them out "
                    "with --where, name another --family, or import into another store"
                )
        others.append(imported.published.points.assign(origin=imported.file.name) if len(made) > 1 else pd.DataFrame())


def _measured(store: PointStore) -> Any:
    """Return the measured checkpoints and tasks under every metric, without computing metrics."""
    import pandas as pd

    cells = [(c.checkpoint, c.task) for c in store.cells()]
    rows = [{"family": c.family, "size": c.size, "step": c.step, "seed": c.seed, "task": task} for c, task in cells]
    return pd.DataFrame(rows).astype({"step": "float64"}) if rows else pd.DataFrame()


def _with_records(store: PointStore, results: Results, imported: Imported) -> Imported:
    """Write the records of samples, and omit their tasks from the points; note why samples are not records."""
    notes, points, cells = list(imported.published.notes), imported.published.points, 0
    for task in results.samples:
        try:
            task_records = scored(results, task)
        except UsageError as error:
            notes.append(f"{task}: samples are imported as points, not as records: {error}")
            continue
        row = points[points["task"] == task].iloc[0].to_dict()
        _write(store, results, task_records.task, (row, task_records.records))
        is_other = points["task"] != task
        notes.append(f"{task}: {len(task_records.task.docs)} documents with the log-probability of every choice")
        if left_out := results.left_out(task):
            notes.append(
                f"{task}: lm-eval's {choose(left_out)} is left out, since records do not give it; import "
                "results_*.json without the samples for all metrics"
            )
        points, cells = points[is_other], cells + 1
    metrics = {task: metric for task, metric in imported.published.shown_metrics.items() if task in set(points["task"])}
    published = replace(imported.published, points=points, notes=tuple(notes), shown_metrics=metrics)
    return replace(imported, published=published, cells=cells)


def _write(store: PointStore, results: Results, task: harness.Task, scores: tuple[Mapping[str, Any], Any]) -> None:
    """Write one cell and its names."""
    from harness.points import CellId

    row, records = scores
    of, digest = settings(results), digest_of(["lm_eval", *identity(results)])
    cell = CellId(digest, task.fingerprint, of.digest)
    store.put_task(task)
    store.put_settings(of)
    store.put_checkpoint(digest, _checkpoint(results, row))
    with store.lock(cell):
        store.write(cell, records)


def _checkpoint(results: Results, row: Mapping[str, Any]) -> Checkpoint:
    """Return the known attributes of a model."""
    names = ("params", "params_non_embedding", "tokens", "flops", "loss", "step")
    known = {name: float(row[name]) for name in names if np.isfinite(row.get(name, np.nan))}
    counts = {name: int(known[name]) for name in ("params", "params_non_embedding", "step") if name in known}
    return Checkpoint(
        family=str(row["family"]),
        size=str(row["size"]),
        step=counts.get("step"),
        seed=int(row["seed"]),
        source=f"lm_eval:{results.model}",
        params=counts.get("params"),
        params_non_embedding=counts.get("params_non_embedding"),
        tokens=known.get("tokens"),
        flops=known.get("flops"),
        loss=known.get("loss"),
    )


def _summary(made: Sequence[Imported]) -> Table:
    rows, notes = [], []
    for imported in made:
        points, tasks = imported.published.points, len(imported.published.shown_metrics) + imported.cells
        families = choose(set(points["family"])) if len(points) else None
        counts = (len(points), imported.cells, imported.checkpoints, tasks)
        rows.append((imported.file.name, *counts, families))
        notes += [note if len(made) == 1 else f"{imported.file.name}: {note}" for note in imported.published.notes]
    columns = ("file", "points", "cells", "checkpoints", "tasks", "families")
    return Table("import", "Imported", columns, tuple(rows), tuple(dict.fromkeys(notes)))


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the content of a mapping file (TOML): map, where, label, run, family, tasks, metric, models."""
    try:
        mapping = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: {error}; expected a mapping file in TOML") from error
    unknown = set(mapping) - set(MAPPING)
    if unknown:
        raise UsageError(f"{path} has {choose(unknown)}; expected {choose(MAPPING)}")
    return mapping


def reading(mapping: Mapping[str, Any], asked: Mapping[str, Any]) -> Reading:
    """Return how to read tables: the settings of a mapping file, overridden by options."""
    from harness.points import Reading

    given = {name: value for name, value in asked.items() if value}
    renames = (*mapping.get("map", ()), *given.pop("renames", ()))
    tasks = given.pop("tasks", None)
    listed = [name.strip() for name in tasks.split(",") if name.strip()] if tasks else mapping.get("tasks", ())
    known = {name: mapping[name] for name in ("where", "label", "run", "family", "metric", "models") if name in mapping}
    return Reading(renames=renames, tasks=tuple(listed), **(known | given))


def _words(files: Sequence[Path], store: Path, mapping: Path | None, asked: Mapping[str, Any]) -> list[str]:
    """Return the command that repeats this import."""
    words = ["harness", "import", *map(str, files), "-o", str(store)]
    words += ["--mapping", str(mapping)] if mapping else []
    for name, value in asked.items():
        option = "--" + {"renames": "map"}.get(name, name).replace("_", "-")
        for word in value if isinstance(value, tuple) else [value]:
            words += [option] if word is True else [option, str(word)] if word else []
    return words


@harness.hookimpl
def register_commands(cli: click.Group) -> None:
    """Add harness import."""
    import click

    @cli.command("import")
    @click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
    @click.option("-o", "--store", required=True, type=click.Path(path_type=Path), help="Store; created if missing.")
    @click.option(
        "--map", "renames", multiple=True, metavar="THEIRS=OURS", help="Rename or compute a column, as in harness fit."
    )
    @click.option(
        "--mapping",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="TOML file with map, where, label, run, family, tasks, metric, and columns of single models.",
    )
    @click.option("--where", metavar="EXPR", help="Expression that selects rows, after --map.")
    @click.option("--label", metavar="COLUMN", help="Column with the names of models (default: model).")
    @click.option("--run", metavar="COLUMN", help="Column that identifies the runs (default: run).")
    @click.option("--family", help="Family of all rows (default: a column, or the names of models).")
    @click.option(
        "--tasks", help="Columns of a wide table that are benchmarks, separated by commas; wildcards allowed."
    )
    @click.option("--metric", help="Metric of these benchmarks (default: by their names, else score).")
    @harness.duplicates_option
    @click.pass_obj
    def command(
        host: harness.PluginHost, /, files: tuple[Path, ...], store: Path, mapping: Path | None, **asked: Any
    ) -> None:
        """Import published results into a store, as points with their origin.

        FILES are CSV or Parquet tables (one row per value, or one row per model and one column per benchmark),
        results_*.json and samples_*.jsonl of lm-evaluation-harness, or folders of these. Samples with log-probabilities
        become records. A file that was imported before replaces its points.
        """
        how = reading(read_mapping(mapping) if mapping else {}, asked)
        words = _words(files, store, mapping, asked)
        try:
            table = import_files(files, store, how, command=words, registries=host)
        except LawError as error:
            raise UsageError(f"{choose(files)}: {error}") from error
        harness.print_tables([table], host, every_row=True)
