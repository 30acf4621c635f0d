"""Compare two evaluations of the same checkpoints: differences of log-probabilities, and documents that change answer.

Cells of A and B are paired by the digest of the checkpoint and the fingerprint of the prompts, so that differences are
due to engine, dtype, settings or versions. All differences are B - A, in nats. Two tables: `differences` (one row per
checkpoint and task, and a total) and `flips` (documents whose most probable choice changes).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from harness.errors import StoreError
from harness.fitting.columns import query
from harness.host.registries import Registries
from harness.metrics.aggregation import paired_difference
from harness.metrics.scores import Scores
from harness.reports.diff_pairs import Key, Pair, Side
from harness.store.cells import Cell
from harness.store.points import PointStore, checkpoint_columns, open_store
from harness.tables import Cell as TableCell
from harness.tables import Measured, Table
from harness.types import Metric

NAMED = 5  # cells or checkpoints that a message names
COUNTS = ("truncated", "joined")  # provenance that counts documents and does not describe the engine


@dataclass(frozen=True)
class Diff:
    """The differences between two sides; `harness.diff` returns it."""

    pairs: tuple[Pair, ...]
    notes: tuple[str, ...]

    @property
    def largest(self) -> float:
        """The largest absolute difference of a log-probability, nats."""
        return max(float(np.abs(pair.difference).max()) for pair in self.pairs)

    def choices(self) -> pd.DataFrame:
        """Return one row per choice: checkpoint, task, doc_id, choice, is_gold, logprob_a, logprob_b, difference."""
        return pd.concat([_choice_frame(pair) for pair in self.pairs], ignore_index=True)

    def tables(self, n: int = 20) -> list[Table]:
        """Return the table of differences, and that of the `n` flipped documents furthest from a tie."""
        return [_differences(self), _flips(self.pairs, n)]


def diff(
    a: PointStore | str | Path,
    b: PointStore | str | Path,
    *,
    of_a: str | None = None,
    of_b: str | None = None,
    where: str | None = None,
    task: str | None = None,
    registries: Registries | None = None,
) -> Diff:
    """Compare the log-probabilities of two stores, or of two kinds of cells in one.

    :param a: the store of A, open or by its folder; `b` that of B, which may be the same.
    :param of_a: an expression over columns of cells (engine, dtype, family, size, step, task, settings, quantisation,
        bos, max_length, truncation ...) that selects those of A; `of_b` likewise.
    :param where: an expression for both sides; `task` names one task.

    Raises StoreError if a side has several cells of one checkpoint and task, or no cells can be paired.
    """
    expressions = [f"task == {task!r}" if task else None, where]
    first = _side("A", _opened(a, registries), [*expressions, of_a])
    second = _side("B", _opened(b, registries), [*expressions, of_b])
    shared = [key for key in first.cells if key in second.cells]
    if not shared:
        raise StoreError(
            f"no checkpoint and task are in both stores; {first}; {second}; a different --limit or a changed task "
            "changes the fingerprint"
        )
    notes = [*_described(first, shared), *_described(second, shared), *_unpaired(first, second)]
    return Diff(tuple(_pair(first, second, key) for key in shared), tuple(notes))


# --- pairs -----------------------------------------------------------------------------------------------------------


def _opened(store: PointStore | str | Path, registries: Registries | None) -> PointStore:
    return store if isinstance(store, PointStore) else open_store(store, registries=registries)


def _side(name: str, store: PointStore, expressions: Sequence[str | None]) -> Side:
    """Choose the cells of a side; raise StoreError where none is left, or a checkpoint and task has several."""
    cells = [cell for cell in store.select() if not store.is_sampled(cell.id)]  # texts have no log-probabilities
    frame = pd.DataFrame([{**checkpoint_columns(cell), **asdict(cell.settings)} for cell in cells])
    for expression in filter(None, expressions):
        frame = query(frame, expression)
    if frame.empty:
        asked = " and ".join(filter(None, expressions))
        raise StoreError(f"{name}: no cell of {store.path} meets {asked}; harness diff --help names the columns")
    frame = frame.sort_values(["family", "params", "size", "step", "seed", "task"], kind="stable")
    chosen: dict[Key, Cell] = {}
    for cell in (cells[i] for i in frame.index):
        key = (cell.id.checkpoint, cell.id.fingerprint)
        if chosen.setdefault(key, cell).id != cell.id:  # equal weights under two names are one cell
            raise StoreError(_several(name, chosen[key], cell))
    return Side(name, store, chosen)


def _several(name: str, cell: Cell, other: Cell) -> str:
    settings = asdict(cell.settings)
    differing = {key: (settings[key], value) for key, value in asdict(other.settings).items() if settings[key] != value}
    conflicts = ", ".join(f"{key} {first} and {second}" for key, (first, second) in differing.items())
    key, (first, _) = next(iter(differing.items()))
    return (
        f"{name} has {cell.checkpoint.label} {cell.task} more than once: {conflicts}; choose with --{name.lower()} "
        f'"{key} == {first!r}"'
    )


def _pair(first: Side, second: Side, key: Key) -> Pair:
    cell, metric = first.cells[key], first.store.task_meta[key[1]]["metric"]
    a, b = first.scores(key), second.scores(key)
    return Pair(cell.checkpoint.label, cell.task, metric, _change(first.store, key[1], a, b), a, b)


def _change(store: PointStore, fingerprint: str, a: Scores, b: Scores) -> Measured | None:
    """Return the change of the task's metric; None if it is not registered, or the scores lack what it needs."""
    meta, metrics = store.task_meta[fingerprint], store.registries.metrics
    if meta["metric"] not in metrics:
        return None
    metric: Metric = metrics[meta["metric"]]
    if not set(metric.needs) <= a.offers & b.offers:
        return None
    return Measured(*paired_difference(metric, a, b, meta["average"]))


# --- notes -----------------------------------------------------------------------------------------------------------


def _described(side: Side, shared: Sequence[Key]) -> Iterator[str]:
    """Yield how the cells of a side were scored: settings, versions, device, and notes of the engine."""
    known: dict[str, set[str]] = {}
    remarks: set[str] = set()
    for key in shared:
        cell = side.cells[key]
        provenance = dict(side.store.read(cell.id.name).provenance or {})
        notes = provenance.pop("notes", ())
        remarks |= set(map(str, notes)) if isinstance(notes, (list, tuple)) else set()
        for name, value in {**provenance, **asdict(cell.settings)}.items():
            if name not in COUNTS and value != "":  # settings that are not used
                known.setdefault(name, set()).add(str(value))
    yield f"{side.name} is {side.store.path}: " + ", ".join(
        f"{name} {' / '.join(sorted(known[name]))}" for name in known
    )
    if remarks:
        yield f"{side.name}: {'; '.join(sorted(remarks))}"


def _unpaired(first: Side, second: Side) -> Iterator[str]:
    """Yield the cells without a partner, and a note if both sides are the same cells."""
    for side, other in ((first, second), (second, first)):
        alone = [f"{cell.checkpoint.label} {cell.task}" for key, cell in side.cells.items() if key not in other.cells]
        if alone:
            named = ", ".join(islice(alone, NAMED)) + (", ..." if len(alone) > NAMED else "")
            yield f"{len(alone)} of {len(side.cells)} cells of {side.name} are not in {other.name}: {named}"
    if first.store.path.resolve() == second.store.path.resolve() and first.cells == second.cells:
        yield "A and B are the same cells."


# --- tables ----------------------------------------------------------------------------------------------------------


def _choice_frame(pair: Pair) -> pd.DataFrame:
    a = pair.a
    return pd.DataFrame(
        {
            "checkpoint": pair.checkpoint,
            "task": pair.task,
            "doc_id": a.doc_ids[a.doc],
            "choice": np.arange(len(a.doc)) - a.first[a.doc],
            "is_gold": a.is_gold,
            "logprob_a": a.logprob,
            "logprob_b": pair.b.logprob,
            "difference": pair.difference,
        }
    )


SPREAD = ("choices", "mean", "mean abs", "median abs", "99 % abs", "max abs", "at", "max abs a token")
FLIPS = ("documents", "flips", "share", "lost", "gained")


def _differences(result: Diff) -> Table:
    pairs = result.pairs
    rows = [(p.checkpoint, p.task, *_spread([p]), *_flip_counts([p]), p.metric, p.change) for p in pairs]
    if len(pairs) > 1:
        rows.append(("all", "all", *_spread(pairs), *_flip_counts(pairs), None, None))
    about = (
        "Quantiles of absolute differences over choices. Flips: documents whose most probable choice changes. Lost: "
        "correct in A only. Gained: correct in B only. Change: of the metric, ± standard error over paired documents."
    )
    columns = ("checkpoint", "task", *SPREAD, *FLIPS, "metric", "change")
    return Table("differences", "Log-probabilities, B - A (nats)", columns, tuple(rows), (about, *result.notes))


Flip = tuple[str, str, str, int, int, float, float, str]  # a row of the table of flips


def _spread(pairs: Sequence[Pair]) -> tuple[TableCell, ...]:
    difference = np.concatenate([pair.difference for pair in pairs])
    size = np.abs(difference)
    middle, high = np.quantile(size, [0.5, 0.99])
    furthest = max(pairs, key=lambda pair: float(np.abs(pair.difference).max()))
    at = furthest.a.where(int(np.abs(furthest.difference).argmax()))
    a_token = max(float((np.abs(pair.difference) / pair.a.n_tokens).max()) for pair in pairs)
    numbers = (difference.mean(), size.mean(), middle, high, size.max())
    return len(size), *map(float, numbers), at, a_token


def _flip_counts(pairs: Sequence[Pair]) -> tuple[TableCell, ...]:
    """Return counts of flipped documents; None for texts and clozes, which have no choices."""
    pairs = [pair for pair in pairs if "choices" in pair.a.offers]
    if not pairs:
        return (None,) * len(FLIPS)
    documents, flips = sum(len(pair.a) for pair in pairs), sum(len(pair.flipped) for pair in pairs)
    gains = np.concatenate([in_b - in_a for in_a, in_b in (pair.right() for pair in pairs)])
    return documents, flips, flips / documents, int((gains < 0).sum()), int((gains > 0).sum())


def _flips(pairs: Sequence[Pair], n: int) -> Table:
    rows = sorted((row for pair in pairs for row in _flip_rows(pair)), key=lambda row: -(row[5] + row[6]))
    about = (
        "Margins (nats): log-probability of the side's choice minus that of the other side's choice; the difference "
        f"between the sides is at least their sum. {min(n, len(rows))} of {len(rows)} flips, the largest sum first."
    )
    columns = ("checkpoint", "task", "document", "choice A", "choice B", "margin A", "margin B", "right")
    return Table("flips", "Documents whose most probable choice changes", columns, tuple(rows[:n]), (about,))


def _flip_rows(pair: Pair) -> Iterator[Flip]:
    names = {(1, 0): "A", (0, 1): "B", (1, 1): "both", (0, 0): "neither"}
    picks = (side[pair.flipped] - pair.a.first[pair.flipped] for side in pair.picks)
    for doc, *values in zip(pair.flipped, *picks, *pair.margins(), *pair.right(), strict=True):
        in_a, in_b, margin_a, margin_b, right_a, right_b = values
        margins, right = (float(margin_a), float(margin_b)), names[int(right_a), int(right_b)]
        yield pair.checkpoint, pair.task, str(pair.a.doc_ids[doc]), int(in_a), int(in_b), *margins, right
