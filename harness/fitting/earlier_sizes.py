"""Back-test on a ladder: coverage of the intervals of earlier sizes, predicted from the sizes below them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Protocol, TypedDict

import numpy as np
import pandas as pd

from harness.errors import LawError
from harness.fitting.columns import column
from harness.fitting.held_out_scores import HeldOut
from harness.fitting.runs import along, label
from harness.fitting.wide_points import by_family

FIRST = 3  # number of sizes in the first fit
FEW_DRAWS = 200  # resamples of each interval
ALIKE = 2.0  # factor within which two distances beyond the fitted range count as similar
TARGET = "is_target"  # column that marks what is held out


class EarlierSize(TypedDict):
    """One prediction: sizes fitted, target, factor beyond them (None: infinite), inside (None: no interval)."""

    sizes: int
    target: str
    beyond: float | None
    inside: bool | None


class Held(Protocol):
    """A fit with held-out points."""

    @property
    def hold_out(self) -> tuple[HeldOut, ...]: ...  # noqa: D102


def with_rungs(frame: pd.DataFrame, first: int) -> pd.DataFrame:
    """Return points with the rank of their size in their family, from 1; raise LawError for too few sizes."""
    names = {position: name for name, family_rows in by_family(frame) for position in family_rows.index}
    families = pd.Series(names, dtype=object).reindex(frame.index)
    params = pd.Series(column(frame, "params"), index=frame.index)
    frame = frame.assign(
        point=np.arange(len(frame)), rung=params.groupby(families).rank(method="dense").astype(int), of_family=families
    )
    if frame["rung"].max() <= first:
        raise LawError(
            f"the largest family has {frame['rung'].max()} sizes; a back-test from {first} sizes needs {first + 1}"
        )
    return frame.reset_index(drop=True)


def tests_of(frame: pd.DataFrame, first: int) -> Iterator[pd.DataFrame]:
    """Yield, for each k, the sizes up to k of all families, and the last checkpoint of the next size, if any."""
    for k in range(first, int(frame["rung"].max())):
        following = frame[frame["rung"] == k + 1]
        targets = following.iloc[along(following)]
        targets = targets.groupby([name for name in ("of_family", "seed") if name in frame], sort=False).tail(1)
        test = pd.concat([frame[frame["rung"] <= k], targets], ignore_index=True)
        yield test.assign(is_target=test["rung"] > k)


def earlier_sizes(points: pd.DataFrame, fit: Callable[[pd.DataFrame], Held]) -> list[EarlierSize]:
    """Predict each size, from the fourth on, from the sizes below it; return none without enough sizes or a fit.

    The column TARGET of the points that `fit` gets marks the held-out points. Families are fitted
    together if the points were.
    """
    if "params" not in points.columns or points["params"].isna().any():
        return []
    rows: list[EarlierSize] = []
    with suppress(LawError):
        for test in tests_of(with_rungs(points, FIRST), FIRST):
            with suppress(LawError):
                rows += _rows(test, fit(test))
    return rows


def _rows(points: pd.DataFrame, fitted: Held) -> list[EarlierSize]:
    sizes = int(points["rung"].max()) - 1
    names = [label(row) for _, row in points[points[TARGET]].iterrows()]
    return [
        {"sizes": sizes, "target": name, "beyond": held["beyond"], "inside": held["inside"]}
        for name, held in zip(names, fitted.hold_out, strict=True)
    ]


def coverage_at(rows: Sequence[EarlierSize], level: float, beyond: float | None = None) -> str:
    """Return a sentence on the coverage of earlier sizes of the ladder, at a similar distance if possible.

    `beyond` is the factor by which a target lies beyond the fitted range.
    """
    known = [(_far(row), bool(row["inside"])) for row in rows if row["inside"] is not None]
    if not known:
        return "no back-test: no earlier size of this ladder was predicted with an interval (4 sizes are needed)"
    near = [case for case in known if beyond is None or beyond / ALIKE <= case[0] <= beyond * ALIKE]
    used = near or known
    low, high = min(far for far, _ in used), max(far for far, _ in used)
    distance = f"{low:.3g} to {high:.3g}" if f"{low:.3g}" != f"{high:.3g}" else f"{low:.3g}"
    covered = sum(inside for _, inside in used)
    said = f"back-test on this ladder: {level:.0%} intervals covered {covered} of {len(used)} earlier sizes"
    further = "" if near else f"; none lay as far as {beyond:.3g} times"
    return f"{said}, {distance} times beyond the fitted range{further}"


def _far(row: EarlierSize) -> float:
    """Return the factor by which a size lay beyond the fit; None in a file means infinity."""
    return float("inf") if row["beyond"] is None else float(row["beyond"])
