"""Rows that each step of a two-step law is fitted to: run ends for the first and all checkpoints for the next, say."""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.errors import LawError, UsageError
from harness.fitting.columns import query
from harness.fitting.options import Options
from harness.fitting.runs import ends
from harness.types import Bools
from harness.types.laws import ComposedLaw, Law

ENDS = "ends"  # the last checkpoint of every run


def step_rows(points: pd.DataFrame, law: Law, options: Options) -> tuple[Bools | None, ...]:
    """Return the rows (n,) of points that each step is fitted to; None means all of them.

    Raises UsageError if the law does not have two steps, and LawError if an expression selects no point.
    """
    if not isinstance(law, ComposedLaw) or len(law.steps) != 2:
        raise UsageError(
            f"law {law.name!r} does not have two steps, which step1_where, step2_where and step1_objective need"
        )
    asked = {"step1_where": options.step1_where, "step2_where": options.step2_where}
    return tuple(_rows(points, where, option) for option, where in asked.items())


def _rows(points: pd.DataFrame, where: str | None, option: str) -> Bools | None:
    if where is None:
        return None
    if where == ENDS:
        return ends(points).to_numpy(dtype=bool)
    selected = np.zeros(len(points), dtype=bool)
    selected[points.index.get_indexer(query(points, where).index)] = True
    if not selected.any():
        raise LawError(f"{option}={where!r} selects 0 of {len(points)} points to fit; change the expression")
    return selected
