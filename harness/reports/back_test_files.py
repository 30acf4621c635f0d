"""Back-tests of the points of a store or a table file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.fitting.earlier_sizes import FIRST
from harness.fitting.fit_files import PointsFile, via_of
from harness.fitting.options import Options
from harness.fitting.published_values import scored_tasks
from harness.host import default_host
from harness.host.registries import Registries
from harness.reports.back_test import back_test
from harness.reports.back_test_result import BackTest, joined
from harness.store.points import open_store
from harness.types.json import JsonObject


def back_test_file(
    source: PointsFile,
    laws: Sequence[str] = (),
    *,
    via: str | None = None,
    where: str | None = None,
    first: int = FIRST,
    law_options: JsonObject | None = None,
    options: Options | None = None,
    registries: Registries | None = None,
) -> BackTest:
    """Back-test laws on a store (one task, or all with correct answers) or a table; arguments as in `back_test`."""
    registries, options = registries or default_host(), options or Options()
    vias = [via, *(via_of(name, registries) for name in laws or registries.laws)]
    is_one = source.task or not source.path.is_dir()
    tested = []
    for task in [source.task] if is_one else _scored_tasks(source.path, registries):
        read = replace(source, task=task).read(registries, vias)
        result = back_test(
            read.points,
            laws or None,
            value=read.value,
            via=via,
            where=where,
            first=first,
            store=read.store if options.resample in {"documents", "joint"} else None,
            objective=options.objective,
            resample=options.resample,
            bootstrap=options.bootstrap,
            level=options.level,
            starts=options.starts,
            seed=options.seed,
            law_options=law_options,
            registries=registries,
        )
        tested.append(replace(result, said=read.notes))
    return joined(tested)


def _scored_tasks(path: Path, registries: Registries) -> list[str]:
    """Return the tasks of a store that have right answers: choices, and texts that pass or fail."""
    store = open_store(path, registries=registries)
    return sorted(scored_tasks(store))
