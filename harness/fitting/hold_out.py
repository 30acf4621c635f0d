"""Split points into those that are fitted and those that are held out and only predicted (--hold-out)."""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.errors import LawError, choose
from harness.fitting.columns import query
from harness.fitting.runs import largest
from harness.types import Bools


def held_out(frame: pd.DataFrame, hold_out: str | float | None) -> Bools:
    """Mark the held-out rows (n,); raise LawError if these are none or all rows.

    `hold_out` is an expression, "largest" (the largest size of each family, by params), a share of the rows (those with
    the most flops), or None.
    """
    if hold_out is None:
        return np.zeros(len(frame), dtype=bool)
    held = _held_out(frame, hold_out).to_numpy(dtype=bool)
    if held.all():
        raise LawError(f"hold_out={hold_out!r} holds out all {len(frame)} points; at least one must remain to fit")
    if not held.any():
        raise LawError(f"hold_out={hold_out!r} holds out 0 of {len(frame)} points; columns: {choose(frame.columns)}")
    return held


def _held_out(frame: pd.DataFrame, hold_out: str | float) -> pd.Series[bool]:
    if hold_out == "largest":
        return largest(frame)
    share = _fraction(hold_out)
    if share is None:
        return pd.Series(frame.index.isin(query(frame, str(hold_out)).index), index=frame.index)
    if not 0 < share < 1 or "flops" not in frame.columns:
        raise LawError(f"hold_out={hold_out!r}: expected a share between 0 and 1, and a column flops")
    return frame["flops"].rank(method="first", ascending=False) <= round(share * len(frame))


def _fraction(hold_out: str | float) -> float | None:
    try:
        return float(hold_out)
    except ValueError:
        return None
