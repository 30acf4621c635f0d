"""Split points into those that are fitted and those that are held out and only predicted (--hold-out)."""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.errors import LawError, choose
from harness.fitting.columns import query
from harness.fitting.runs import largest, numeric
from harness.types import Bools

LARGEST = "largest"


def held_out(frame: pd.DataFrame, hold_out: str | float | None) -> Bools:
    """Mark the held-out rows (n,); raise LawError if these are none or all rows.

    `hold_out` is an expression, "largest" (the largest size of each family, by params, or by FLOPs where the family has
    none), a share of the rows (those with the most flops), or None.
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
    if hold_out == LARGEST:
        return largest(_with_scale(frame))
    share = _fraction(hold_out)
    if share is None:
        return pd.Series(frame.index.isin(query(frame, str(hold_out)).index), index=frame.index)
    if not 0 < share < 1 or "flops" not in frame.columns:
        raise LawError(f"hold_out={hold_out!r}: expected a share between 0 and 1, and a column flops")
    return frame["flops"].rank(method="first", ascending=False) <= round(share * len(frame))


def hold_out_notes(frame: pd.DataFrame, hold_out: str | float | None) -> tuple[str, ...]:
    """Return a sentence if "largest" is the size with the most FLOPs in some families."""
    by_flops = _without_params(frame) if hold_out == LARGEST else pd.Series(dtype=bool)
    if not by_flops.any():
        return ()
    names = sorted(set(frame["family"][by_flops].astype(str))) if "family" in frame.columns else []
    of = f" of {choose(names)}" if names else ""
    return (f"no params{of} are known; the largest size is the one with the most FLOPs",)


def _with_scale(frame: pd.DataFrame) -> pd.DataFrame:
    """Return points whose params are the most FLOPs of the size, in families without params."""
    by_flops = _without_params(frame)
    if not by_flops.any():
        return frame
    known = numeric(frame, "params") if "params" in frame.columns else np.full(len(frame), np.nan)
    sizes = [_families(frame), *(frame[name] for name in ("size", "run") if name in frame.columns)]
    most = pd.Series(numeric(frame, "flops"), index=frame.index).groupby(sizes, dropna=False).transform("max")
    return frame.assign(params=most.where(by_flops, known))


def _without_params(frame: pd.DataFrame) -> pd.Series[bool]:
    """Mark the rows of families of which no params and all FLOPs are known."""
    no_params, no_flops = (
        pd.to_numeric(frame[name], errors="coerce").isna() if name in frame.columns else pd.Series(True, frame.index)
        for name in ("params", "flops")
    )
    return (no_params & ~no_flops).groupby(_families(frame), dropna=False).transform("all")


def _families(frame: pd.DataFrame) -> pd.Series:
    return frame["family"] if "family" in frame.columns else pd.Series("", index=frame.index)


def _fraction(hold_out: str | float) -> float | None:
    try:
        return float(hold_out)
    except ValueError:
        return None
