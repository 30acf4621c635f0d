"""Ladders as arrays: the ends of runs of one task and family, in rungs of size, and cuts that hide the upper rungs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from harness.checkpoints.flops import training_flops
from harness.errors import LawError, choose, suggest
from harness.fitting.published_values import falls
from harness.fitting.runs import ORDER, ends
from harness.types import Bools, Floats, Ints

SCALES = ("params", "tokens", "flops")
SAME_CHANCE = 1e-6


@dataclass(frozen=True)
class Targets:
    """Models to forecast: params, tokens and flops (T,), NaN where unknown, and the documents (T,) they answer."""

    params: Floats
    tokens: Floats
    flops: Floats
    docs: Floats

    def __len__(self) -> int:
        return len(self.params)


@dataclass(frozen=True)
class ForecastLadder:
    """The ends of the runs of one task and family: n rows, and the models to forecast.

    `rung` numbers sizes from 1; `docs` is the number of documents behind a value, NaN where unknown; `via` is a task
    loss (bits per byte, or negated log-probability) or None; `chance` is the accuracy of guessing, NaN where unknown.
    """

    task: str
    family: str
    params: Floats
    tokens: Floats
    flops: Floats
    value: Floats
    docs: Floats
    rung: Ints
    chance: float
    via: Floats | None = None
    targets: Targets | None = None

    @property
    def name(self) -> str:
        """Return task and family, as messages name a ladder."""
        return ", ".join(part for part in (self.task, self.family) if part) or "the ladder"

    @property
    def rungs(self) -> int:
        """Return the number of sizes."""
        return int(self.rung.max())

    @cached_property
    def order(self) -> Floats:
        """Return ln FLOPs (n,), or the logarithm of the scale that is known."""
        return log_scale(self.params, self.tokens, self.flops)

    @cached_property
    def tops(self) -> Ints:
        """Return the row of the longest run of every rung, (rungs,)."""
        rows = np.lexsort((self.order, self.rung))
        return rows[np.searchsorted(self.rung[rows], np.arange(1, self.rungs + 1), side="right") - 1]

    def cut(self, k: int) -> ForecastLadder:
        """Return the lowest k rungs, with the top runs of the rungs above as targets."""
        keep, above = self.rung <= k, self.tops[k:]
        rows = {name: getattr(self, name)[keep] for name in (*SCALES, "value", "docs", "rung")}
        via = None if self.via is None else self.via[keep]
        targets = Targets(self.params[above], self.tokens[above], self.flops[above], self.docs[above])
        return replace(self, **rows, via=via, targets=targets)

    def beyond(self, targets: Targets) -> Floats:
        """Return ln of how far targets (T,) lie above the largest run, in FLOPs (or in the scale that is known)."""
        return np.asarray(log_scale(targets.params, targets.tokens, targets.flops) - self.order.max())


def log_scale(params: Floats, tokens: Floats, flops: Floats) -> Floats:
    """Return ln flops where known, else ln 6 N D, else ln params."""
    with np.errstate(invalid="ignore"):
        known = np.where(np.isfinite(flops), flops, training_flops(1.0, 1.0) * params * tokens)
        return np.log(np.where(np.isfinite(known), known, params))


def expect_same_scale(ladders: Sequence[ForecastLadder], asked: Targets) -> None:
    """Raise LawError if a model to forecast lies on another scale than a ladder: FLOPs (or 6 N D), or params alone."""
    with np.errstate(invalid="ignore"):
        of_target = bool(np.isfinite(asked.flops).all() or np.isfinite(asked.params * asked.tokens).all())
        for ladder in ladders:
            of_ladder = bool(np.isfinite(ladder.flops).all() or np.isfinite(ladder.params * ladder.tokens).all())
            if of_ladder and not of_target:
                raise LawError(
                    f"{ladder.name} has training FLOPs, which are unknown for the model to forecast; give its FLOPs, "
                    "or its tokens as well"
                )
            if of_target and not of_ladder:
                raise LawError(
                    f"neither tokens nor FLOPs of {ladder.name} are known, only params; forecast from params alone, or "
                    "add a column tokens or flops"
                )


def read_ladders(points: pd.DataFrame, value: str, via: str | None = None) -> list[ForecastLadder]:
    """Return the ladder of every task and family of wide points, in order of their names.

    :param points: one row per checkpoint and task: `value`, at least one of params and flops; family, task, size, seed,
        step, tokens, chance, `value`_n, n, `value`_stderr where known. Of every run only the last checkpoint is used.
    :param via: the column of a task loss, where there is one.

    Raises LawError where values are not accuracies or a scale is missing.
    """
    frame = points.reset_index(drop=True)
    if value not in frame.columns:
        raise LawError(f"the points have no column {value!r}; {suggest(value, frame.columns)}")
    frame = frame[pd.to_numeric(frame[value], errors="coerce").notna()]
    _expect_accuracies(frame, value)
    if not {"params", "flops"} & set(frame.columns):
        raise LawError(f"a forecast needs a column params or flops; the points have: {choose(frame.columns)}")
    keys = [name for name in ("task", "family") if name in frame.columns]
    groups = frame.groupby(keys, sort=True) if keys else [((), frame)]
    ladders = []
    for key, rows in groups:
        names = dict(zip(keys, key if isinstance(key, tuple) else (key,), strict=True))
        ladders.append(_ladder(str(names.get("task", "")), str(names.get("family", "")), _ends(rows), value, via))
    return ladders


def _expect_accuracies(frame: pd.DataFrame, value: str) -> None:
    if frame.empty:
        raise LawError(f"no point has a value of {value}; choose another metric")
    if falls(value):
        raise LawError(
            f"lower {value} is better, and a forecast needs accuracies: fit a law to {value} with harness fit, or "
            "rename the column if it is an accuracy"
        )
    low, high = float(frame[value].min()), float(frame[value].max())
    if low < 0 or high > 1:
        raise LawError(
            f"{value} ranges from {low:.4g} to {high:.4g}; a forecast needs accuracies from 0 to 1: divide percentages "
            "by 100, and fit a law to other values with harness fit"
        )


def _ends(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the last checkpoint of every run, in an order that does not depend on that of the rows."""
    run = [name for name in ("run", "size", "seed") if name in rows.columns]
    order = [name for name in (*ORDER, "params", "seed", "run") if name in rows.columns]
    ordered = rows.sort_values(order, kind="stable", key=_sortable) if order else rows
    if not {"run", "size"} & set(run):
        return ordered[ends(ordered)]
    return ordered.groupby(run, sort=False, dropna=False).tail(1)


def _sortable(column: pd.Series) -> pd.Series:
    """Return a column as numbers where it has any, else as text."""
    numbers = pd.to_numeric(column, errors="coerce")
    return column.astype(str) if numbers.isna().all() else numbers


def _numbers(rows: pd.DataFrame, name: str) -> Floats:
    if name not in rows.columns:
        return np.full(len(rows), np.nan)
    return pd.to_numeric(rows[name], errors="coerce").to_numpy(dtype=np.float64)


def _ladder(task: str, family: str, rows: pd.DataFrame, value: str, via: str | None) -> ForecastLadder:
    name = ", ".join(part for part in (task, family) if part) or "the ladder"
    params, tokens, flops = (_numbers(rows, name) for name in SCALES)
    size = params if np.isfinite(params).all() else flops
    if not np.isfinite(size).all() or (size <= 0).any():
        raise LawError(f"{name}: params and flops are missing or not above 0; add one, or leave the rows out")
    order = log_scale(params, tokens, flops)
    partly = np.isfinite(flops) | np.isfinite(params * tokens)
    if not np.isfinite(order).all() or (partly.any() and not partly.all()):
        raise LawError(f"{name}: FLOPs (or tokens) are known for some rows only; add them, or leave rows out")
    loss = _numbers(rows, via) if via else np.array([np.nan])
    return ForecastLadder(
        task=task,
        family=family,
        params=params,
        tokens=tokens,
        flops=flops,
        value=_numbers(rows, value),
        docs=_documents(rows, value),
        rung=np.unique(size, return_inverse=True)[1].astype(np.int64) + 1,
        chance=_chance(rows, name),
        via=np.abs(loss) if np.isfinite(loss).all() and _one_sign(loss) else None,
    )


def _one_sign(loss: Floats) -> bool:
    return bool((loss > 0).all() or (loss < 0).all())


def _chance(rows: pd.DataFrame, name: str) -> float:
    """Return the accuracy of guessing, NaN if unknown; raise LawError if rows differ."""
    known = _numbers(rows, "chance")
    known = known[np.isfinite(known)]
    if len(known) and np.ptp(known) > SAME_CHANCE:
        raise LawError(
            f"{name}: chance is {choose(f'{level:.4g}' for level in np.unique(known))}; expected one value per task"
        )
    return float(known[0]) if len(known) else float("nan")


def _documents(rows: pd.DataFrame, value: str) -> Floats:
    """Return the documents behind each value (n,): counted, or those that the standard error is worth."""
    for name in (f"{value}_n", "n"):
        if name in rows.columns and rows[name].notna().any():
            return _at_least_one(rows, name)
    y, stderr = _numbers(rows, value), _numbers(rows, f"{value}_stderr")
    with np.errstate(all="ignore"):
        worth = y * (1 - y) / stderr**2
    known = worth[np.isfinite(worth) & (worth > 0)]
    return np.full(len(rows), np.round(np.median(known)) if len(known) else np.nan)


def _at_least_one(rows: pd.DataFrame, name: str) -> Floats:
    """Return numbers of documents (n,), NaN where unknown; raise LawError for a number below 1."""
    count = _numbers(rows, name)
    if (count < 1).any():
        raise LawError(
            f"{name} has {np.nanmin(count):.4g} documents; expected 1 or more, or an empty cell where it is unknown"
        )
    return count


@dataclass(frozen=True)
class Batch:
    """P ladders side by side, padded to n rows and T targets: arrays (P, n) and (P, T), and what is not padding."""

    ladders: tuple[ForecastLadder, ...]
    real: Bools
    groups: Ints
    context: tuple[ForecastLadder, ...] = ()

    @classmethod
    def of(
        cls, ladders: Sequence[ForecastLadder], context: Sequence[ForecastLadder] = (), pools: Bools | None = None
    ) -> Batch:
        """Put ladders side by side; `context` are all that are known, of which `ladders` may be cuts.

        `groups` (P,) numbers those that share priors: ladders of as many rungs, but those alone that do not pool.
        """
        n = max(len(ladder.value) for ladder in ladders)
        real = np.array([np.arange(n) < len(ladder.value) for ladder in ladders])
        groups = np.array([ladder.rungs for ladder in ladders])
        if pools is not None:
            groups = np.where(pools, groups, -np.arange(len(groups)))
        return cls(tuple(ladders), real, groups.astype(np.int64), tuple(context))

    def take(self, rows: Sequence[int]) -> Batch:
        """Return some of the ladders."""
        taken = Batch.of([self.ladders[p] for p in rows], self.context)
        return Batch(taken.ladders, taken.real, self.groups[list(rows)], self.context)

    def rows(self, name: str, fill: float = 0.0) -> Floats:
        """Return an attribute of the rows (P, n)."""
        padded = np.full(self.real.shape, fill)
        for p, ladder in enumerate(self.ladders):
            values = np.asarray(getattr(ladder, name), dtype=np.float64)
            padded[p, : len(values)] = values
        return padded

    def targets(self, name: str) -> Floats:
        """Return an attribute of the targets (P, T), NaN in the padding."""
        width = max(len(ladder.targets or ()) for ladder in self.ladders)
        padded = np.full((len(self.ladders), width), np.nan)
        for p, ladder in enumerate(self.ladders):
            if ladder.targets is not None:
                values = getattr(ladder.targets, name)
                padded[p, : len(values)] = values
        return padded


def earlier(ladder: ForecastLadder, first: int) -> Iterator[ForecastLadder]:
    """Yield the cuts of a ladder from `first` rungs on, each with the rungs above as targets."""
    for k in range(first, ladder.rungs):
        yield ladder.cut(k)
