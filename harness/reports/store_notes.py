"""Notes on the points of a store below its tables: clusters, versions, imports and damaged files."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

import numpy as np
import pandas as pd

from harness.errors import choose
from harness.store.imported import MEASURED, SAMPLES_ENGINE
from harness.store.points import PointStore

FEW_CLUSTERS = 10


RUN = ["family", "size", "seed"]
LISTED = 3  # scores that a note names


def store_notes(store: PointStore, points: pd.DataFrame, shown: pd.DataFrame, *, where: str | None = None) -> list[str]:
    """Return the notes on points, which `where` selected, and on the `shown` ones of them."""
    return [
        *_clusters(store, shown),
        *_unfinished(shown, {} if where else _last_steps(store)),
        *_twins(shown),
        *_mixed_versions(store, points),
        *_imported(points),
        *_damaged(store),
    ]


def _last_steps(store: PointStore) -> dict[tuple[str, str, int], int]:
    """Return the last step of each run that was planned, whether its scores are stored or not."""
    steps: dict[tuple[str, str, int], int] = {}
    for checkpoint in chain.from_iterable(store.checkpoints.values()):
        run = checkpoint.family, checkpoint.size, checkpoint.seed
        steps[run] = max(checkpoint.step or 0, steps.get(run, 0))
    return steps


def _unfinished(shown: pd.DataFrame, planned: Mapping[tuple[str, str, int], int]) -> list[str]:
    """Return a note on scores of an earlier step than others of their run, as in a sweep that has not ended."""
    rows = shown[shown["checkpoint"].notna()]
    rows = rows.assign(step=pd.to_numeric(rows["step"], errors="coerce")).dropna(subset=["step"])
    runs = zip(*(rows[name] for name in RUN), strict=True)
    last = np.maximum(rows.groupby(RUN)["step"].transform("max").to_numpy(), [planned.get(run, 0) for run in runs])
    earlier = rows.assign(last=last)[rows["step"] < last].sort_values([*RUN, "task"], kind="stable")
    if earlier.empty:
        return []
    steps = zip(*(earlier[name] for name in ("family", "size", "task", "step", "last")), strict=True)
    scores = [f"{family} {size} {task} (step {step:.0f} of {last:.0f})" for family, size, task, step, last in steps]
    more = f" and {len(scores) - LISTED} more" if len(scores) > LISTED else ""
    about = "not at the last step, whose scores are not in the store"
    return [f"{about}: {', '.join(scores[:LISTED])}{more}; run harness eval again, or select one step with --where"]


def _twins(shown: pd.DataFrame) -> list[str]:
    """Return a note on equal weights of several families, as after a family file was renamed and its folder moved."""
    names = shown.dropna(subset=["checkpoint"]).groupby("checkpoint")["family"].unique()
    pairs = {tuple(sorted(map(str, families))) for families in names if len(families) > 1}
    remedy = "leave one of them out with --where, unless they were trained from a common checkpoint"
    return [f"{' and '.join(families)} have checkpoints with the same weights; {remedy}" for families in sorted(pairs)]


def _mixed_versions(store: PointStore, points: pd.DataFrame) -> list[str]:
    """Return a note for each library that records have several versions of."""
    names = points[["checkpoint", "fingerprint", "settings"]].dropna().drop_duplicates()
    versions: dict[str, set[str]] = {}
    for name in names.itertuples(index=False):
        provenance = store.provenance("-".join(name))
        for key in ("harness", provenance.get("engine", ""), "torch"):
            if key in provenance:
                versions.setdefault(key, set()).add(str(provenance[key]))
    return [
        f"records were made with several versions of {key}: {choose(releases)}"
        for key, releases in versions.items()
        if len(releases) > 1
    ]


def _damaged(store: PointStore) -> list[str]:
    """Return notes on damaged files that were set aside and not yet recomputed."""
    cells = [path for path in store.lost() if path.parts[0] not in {"points", "tokens"}]
    lost = {path.parts[1] if path.parts[0] == "samples" else path.stem for path in cells}  # once per cell
    imports = [f"imported points are damaged and not in these tables: {again}" for again in store.lost_imports()]
    said = "1 damaged cell is" if len(lost) == 1 else f"{len(lost)} damaged cells are"
    again = [f"{said} not in these tables (set aside in damaged/); run harness eval again"] if lost else []
    return [*again, *imports]


def _imported(points: pd.DataFrame) -> list[str]:
    """Return a note on imported points."""
    shown = points[points["shown"]]
    others = shown[shown["checkpoint"].isna() | (shown["engine"] == SAMPLES_ENGINE)]
    others = others[others["origin"] != MEASURED] if "origin" in others.columns else others
    if others.empty:
        return []
    counts = others["origin"].value_counts() if "origin" in others.columns else pd.Series({SAMPLES_ENGINE: len(others)})
    files = ", ".join(f"{name} ({count})" for name, count in counts.sort_index().items())
    return [f"{len(others)} of {len(shown)} points are imported: {files}; prompts and engines may differ"]


def _clusters(store: PointStore, shown: pd.DataFrame) -> list[str]:
    """Return a note for each task with few clusters."""
    notes = []
    for fingerprint, task_points in shown.groupby("fingerprint"):
        meta, groups = store.task_meta[str(fingerprint)], store.docs(str(fingerprint)).group.astype(str)
        count = len(np.unique(groups))
        if meta.get("groups") == "clusters" and count < FEW_CLUSTERS:
            task = task_points["task"].iloc[0]
            notes.append(f"{task}: {count} clusters of documents; standard errors from so few are approximate")
    return notes
