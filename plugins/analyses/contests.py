"""Families on one task at a large scale and at small ones, with the documents that all of them share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness import Floats, Range, UsageError
from harness.errors import choose
from harness_plugins.analyses.items import refuse_doubles

if TYPE_CHECKING:
    import pandas as pd

    from harness import PointStore

PROXIES = ("p_choices", "brier", "logp_gold")  # metrics that rank families beside the task's own


@dataclass(frozen=True)
class Asked:
    """What `decide` is asked for; documented there."""

    small: tuple[str, ...] = ()
    large: str = "largest"
    metric: str | None = None
    late: int = 3
    law: str | None = None
    level: float = 0.9
    correction: str = "holm"
    bootstrap: int = 1000
    seed: int = 0

    def range(self, value: float, draws: Floats) -> Range:
        """Return a value with the interval of its draws; open where some are not known."""
        known = draws[np.isfinite(draws)]
        ends = np.quantile(known, [(1 - self.level) / 2, (1 + self.level) / 2]) if len(known) > 1 else (np.nan, np.nan)
        return Range(float(value), float(ends[0]), float(ends[1]))


@dataclass(frozen=True)
class Scale:
    """The scores of F families on one task at one scale: values (F,) and draws (R, F) of each metric, higher better."""

    label: str
    values: dict[str, Floats]
    draws: dict[str, Floats]


@dataclass(frozen=True)
class Contest:
    """One task: its own metric, its families, all its points, the large scale and the small ones."""

    task: str
    metric: str
    families: tuple[str, ...]
    points: pd.DataFrame
    large: Scale
    small: tuple[Scale, ...]
    rises: bool


def read_contests(store: PointStore, task: str | None, where: str | None, asked: Asked) -> Iterator[Contest]:
    """Yield every task whose metric can rank families; raise UsageError for one family alone."""
    from harness.points import applicable, query, widen

    own = {meta["name"]: meta["metric"] for meta in store.task_meta.values()}
    cells = {cell.task: cell for cell in store.select(task)}
    for number, (name, cell) in enumerate(sorted(cells.items())):
        metric = asked.metric or own[name]
        there = {m.name: m for m in applicable(store.load_any(cell.id), store.registries)}
        if metric not in there:
            continue
        known = [there[m] for m in dict.fromkeys([metric, *PROXIES]) if m in there]
        points = widen(store.points(name, metrics=[m.name for m in known]))
        points = _last(query(points, where) if where else points)
        refuse_doubles(points, name)
        families = tuple(sorted(set(points["family"])))
        if len(families) < 2:
            raise UsageError(f"{name}: {choose(families)} alone; ranking needs 2 families or more")
        signs = {m.name: 1.0 if m.higher_is_better else -1.0 for m in known}
        rng = np.random.default_rng([asked.seed, number])
        drawn = store.replicates(points, list(signs), asked.bootstrap, rng)
        chosen = [("large", large_rows(points, asked.large)), *_small(points, asked)]
        large, *small = (_scale(label, points[rows], chosen=rows, drawn=drawn, signs=signs) for label, rows in chosen)
        yield Contest(name, metric, families, points, large, tuple(small), there[metric].higher_is_better)


def _last(points: pd.DataFrame) -> pd.DataFrame:
    order = ["family", "params", "size", "seed", "tokens", "step"]
    return points.sort_values([c for c in order if c in points.columns], kind="stable").reset_index(drop=True)


def large_rows(points: pd.DataFrame, large: str) -> pd.Series[bool]:
    """Mark the last checkpoints of the large size of every family."""
    from harness.points import ends, largest

    if large == "largest":
        return ends(points) & largest(points)
    return _matching(points, large)


def _matching(points: pd.DataFrame, expression: str) -> pd.Series[bool]:
    """Mark the last checkpoints for which an expression holds; raise UsageError unless it is one size a family."""
    import pandas as pd

    from harness.points import ends, query

    kept = query(points, expression)
    kept = kept[ends(kept)]
    for family in sorted(set(points["family"])):
        sizes = set(kept[kept["family"] == family]["size"])
        if len(sizes) != 1:
            raise UsageError(f"{expression!r} chooses {choose(sizes)} of {family}; expected one size of every family")
    return pd.Series(points.index.isin(kept.index), index=points.index)


def _small(points: pd.DataFrame, asked: Asked) -> Iterator[tuple[str, pd.Series[bool]]]:
    """Yield label and rows of each small scale: those asked for, or every rung that all families have below theirs."""
    if asked.small:
        yield from ((expression, _matching(points, expression)) for expression in asked.small)
        return
    from harness.points import ends

    rung = points.groupby("family")["params"].rank(method="dense").astype(int)
    large = int(rung[large_rows(points, asked.large)].min())
    for number in range(1, large):
        yield f"rung {number} of {large}", ends(points) & (rung == number)


def _scale(
    label: str, rows: pd.DataFrame, *, chosen: pd.Series[bool], drawn: dict[str, Floats], signs: dict[str, float]
) -> Scale:
    """Average the seeds of each family."""
    weights = np.stack([(rows["family"] == family).to_numpy(dtype=float) for family in sorted(set(rows["family"]))])
    weights = (weights / weights.sum(axis=1, keepdims=True)).T  # (rows, F)
    values = {name: sign * rows[name].to_numpy() @ weights for name, sign in signs.items()}
    draws = {name: sign * drawn[name][:, chosen.to_numpy()] @ weights for name, sign in signs.items()}
    return Scale(label, values, draws)
