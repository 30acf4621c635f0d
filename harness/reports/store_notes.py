"""Notes on the points of a store below its tables: clusters, versions, imports and damaged files."""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.errors import choose
from harness.store.imported import MEASURED, SAMPLES_ENGINE
from harness.store.points import PointStore

FEW_CLUSTERS = 10


def store_notes(store: PointStore, points: pd.DataFrame, shown: pd.DataFrame) -> list[str]:
    """Return the notes on points and on the `shown` ones of them."""
    return [*_clusters(store, shown), *_mixed_versions(store, points), *_imported(points), *_damaged(store)]


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
