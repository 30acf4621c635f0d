"""A store with more sizes than the small test store: every checkpoint of aster is a separate size."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from harness.store.points import PointStore


def many_sizes(store: PointStore, path: Path) -> PointStore:
    """Return a copy of the store in which each step of aster counts as a run of its own size."""
    copy = PointStore(shutil.copytree(store.path, path), registries=store.registries)
    for digest, named in copy.checkpoints.items():
        for family_runs in named:
            if family_runs.family == "aster":
                size, params = (
                    f"{family_runs.size}s{family_runs.step}",
                    (family_runs.params or 0) + (family_runs.step or 0),
                )
                copy.put_checkpoint(digest, replace(family_runs, size=size, params=params))
    return PointStore(path, registries=store.registries)
