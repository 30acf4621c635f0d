"""Fit laws to the points of a store or a table file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from harness.errors import LawError, UsageError, choose
from harness.fitting.columns import labelled, renamed
from harness.fitting.fit import FitRequest, each_family, fit_points
from harness.fitting.options import Options
from harness.fitting.result import LawFit
from harness.host import default_host
from harness.host.registries import Registries
from harness.store.point_files import read_points
from harness.store.points import PointStore
from harness.types.json import JsonObject
from harness.types.laws import ComposedLaw


@dataclass(frozen=True)
class PointsFile:
    """A store or a table file, and the points to read from it.

    `metric` is the metric of a store (default: the task's) and `value` the column of a table. `renames` are pairs
    theirs=ours (`fitting.columns.renamed`), `params_column` is the column to use as params, `run` the column that
    identifies runs, `label` the column with the names of models; `drop_duplicates` keeps one of several equal rows of a
    table.
    """

    path: Path
    task: str | None = None
    metric: str | None = None
    value: str | None = None
    renames: Sequence[str] = ()
    params_column: str | None = None
    run: str | None = None
    drop_duplicates: bool = False
    label: str | None = None

    def read(self, registries: Registries, vias: Sequence[str | None] = ()) -> PointsRead:
        """Read the points, with the columns `vias` if the scores of a store offer them.

        Raises UsageError if no metric or column is named and the file does not name one.
        """
        metrics = [self.metric or self.value, *vias]
        read = read_points(self.path, self.task, metrics, registries, drop_duplicates=self.drop_duplicates)
        points = renamed(read.points, labelled(self.renames, self.label), self.params_column, self.run)
        value = self.metric or self.value or read.metric
        if value is None:
            raise UsageError(f"{self.path} has columns {choose(points.columns)}; name the one to fit with --value")
        return PointsRead(points, value, read.store, read.notes)


class PointsRead(NamedTuple):
    """Points of a file, the column to fit, the store if the file is one, and notes on the rows."""

    points: pd.DataFrame
    value: str
    store: PointStore | None
    notes: tuple[str, ...]


def via_of(law: str, registries: Registries) -> str | None:
    """Return the default column between the steps of a registered law; None for a law of one step."""
    registered = registries.laws[law]
    return registered.via if isinstance(registered, ComposedLaw) else None


def fit_file(
    source: PointsFile,
    law: str,
    *,
    via: str | None = None,
    where: str | None = None,
    hold_out: str | float | None = None,
    pool: bool = False,
    earlier: bool = False,
    law_options: JsonObject | None = None,
    options: Options | None = None,
    registries: Registries | None = None,
) -> tuple[list[LawFit], list[str]]:
    """Fit a law to the points of a file, to each family separately unless `pool`; arguments are those of `fit`.

    With `earlier`, the earlier sizes of every ladder are predicted as well, for the coverage in the report. Returns the
    fits, and the errors of the families that could not be fitted.
    """
    registries = registries or default_host()
    read = source.read(registries, [via, via_of(law, registries)])
    options = options or Options()
    request = FitRequest(read.value, via, where, hold_out, read.store, options, law_options or {}, earlier=earlier)
    chosen = registries.laws[law]
    if pool:
        return [replace(fit_points(read.points, chosen, request), notes=read.notes)], []
    results = list(each_family(read.points, chosen, request))
    errors = [f"{family or source.path}: {error}" for family, error in results if isinstance(error, LawError)]
    return [replace(fitted, notes=read.notes) for _, fitted in results if isinstance(fitted, LawFit)], errors
