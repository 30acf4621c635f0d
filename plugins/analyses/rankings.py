"""Scores of all families on one task at a large scale and at small ones, on the documents that they share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness import Floats, Range, UsageError
from harness.errors import choose
from harness_plugins.analyses.document_scores import refuse_doubles

if TYPE_CHECKING:
    import pandas as pd

    from harness import PointStore

PROXIES = ("p_choices", "brier", "logp_gold")  # metrics that rank families besides the task's


@dataclass(frozen=True)
class DecideOptions:
    """Options of `decide`, documented there."""

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
        """Return a value with the interval of its finite draws (NaN ends for fewer than two)."""
        known = draws[np.isfinite(draws)]
        ends = np.quantile(known, [(1 - self.level) / 2, (1 + self.level) / 2]) if len(known) > 1 else (np.nan, np.nan)
        return Range(float(value), float(ends[0]), float(ends[1]))


@dataclass(frozen=True)
class Scale:
    """The scores of F families on one task at one scale: values (F,) and draws (R, F) per metric; higher is better.

    Draws are NaN where the standard error is unknown.
    """

    values: dict[str, Floats]
    draws: dict[str, Floats]


@dataclass(frozen=True)
class Ranking:
    """The families of one task: their points, and their scores at the large scale and at the small ones.

    `small` are the small scales by label. Tasks that were evaluated on other sizes have other small scales.
    """

    task: str
    metric: str
    families: tuple[str, ...]
    points: pd.DataFrame
    large: Scale
    small: dict[str, Scale]
    rises: bool


def read_rankings(store: PointStore, task: str | None, where: str | None, options: DecideOptions) -> Iterator[Ranking]:
    """Yield every task whose metric can rank families; raise UsageError for a single family."""
    for number, (name, task_metric) in enumerate(sorted(store.tasks(task).items())):
        metric = options.metric or task_metric
        metrics = store.metrics_of(name)
        if metric in metrics:
            known = [m for m in dict.fromkeys([metric, *PROXIES]) if m in metrics]
            yield _ranking(store, name, known, where, options, np.random.default_rng([options.seed, number]))


def _ranking(
    store: PointStore, task: str, metrics: Sequence[str], where: str | None, options: DecideOptions,
    rng: np.random.Generator,
) -> Ranking:  # fmt: skip
    """Return the ranking of one task by the first of some metrics, with the scores in those that all points have."""
    from harness.points import query, widen

    points = widen(store.points(task, metrics=metrics))
    known = [m for m in metrics if points[m].notna().all()]
    points = _last(query(points, where))
    refuse_doubles(points, task)
    families = tuple(sorted(set(points["family"])))
    if len(families) < 2:
        raise UsageError(f"{task}: only the family {choose(families)}; ranking needs 2 or more families")
    signs = {m: 1.0 if store.rises(m) else -1.0 for m in known}
    drawn = _of_known_errors(store.replicates(points, list(signs), options.bootstrap, rng), points)
    large = _scale(points, large_rows(points, options.large), drawn, signs)
    small = {label: _scale(points, rows, drawn, signs) for label, rows in _small(points, options)}
    return Ranking(task, metrics[0], families, points, large, small, store.rises(metrics[0]))


def _of_known_errors(drawn: dict[str, Floats], points: pd.DataFrame) -> dict[str, Floats]:
    """Return draws (R, n) of metrics, NaN where a point has neither documents nor a standard error to draw from."""
    import pandas as pd

    here = points["checkpoint"].notna() if "checkpoint" in points.columns else pd.Series(False, index=points.index)
    known = {name: (here | points[f"{name}_stderr"].notna()).to_numpy() for name in drawn}
    return {name: np.where(known[name], draws, np.nan) for name, draws in drawn.items()}


def _last(points: pd.DataFrame) -> pd.DataFrame:
    order = ["family", "params", "size", "seed", "tokens", "step"]
    return points.sort_values([c for c in order if c in points.columns], kind="stable").reset_index(drop=True)


def large_rows(points: pd.DataFrame, large: str) -> pd.Series[bool]:
    """Mark the last checkpoints of the large size of each family."""
    from harness.points import ends, largest

    if large == "largest":
        return ends(points) & largest(points)
    return _matching(points, large)


def _matching(points: pd.DataFrame, expression: str) -> pd.Series[bool]:
    """Mark the last checkpoints that match an expression; raise UsageError unless it selects one size per family."""
    import pandas as pd

    from harness.points import ends, query

    selected = query(points, expression)
    selected = selected[ends(selected)]
    for family in sorted(set(points["family"])):
        sizes = set(selected[selected["family"] == family]["size"])
        if len(sizes) != 1:
            raise UsageError(f"{expression!r} selects {choose(sizes)} of {family}; expected one size per family")
    return pd.Series(points.index.isin(selected.index), index=points.index)


def _small(points: pd.DataFrame, options: DecideOptions) -> Iterator[tuple[str, pd.Series[bool]]]:
    """Yield label and rows of each small scale: the requested ones, or every rung below the large one."""
    if options.small:
        yield from ((expression, _matching(points, expression)) for expression in options.small)
        return
    from harness.points import ends

    rung = points.groupby("family")["params"].rank(method="dense").astype(int)
    large = int(rung[large_rows(points, options.large)].min())
    for number in range(1, large):
        yield f"rung {number} of {large}", ends(points) & (rung == number)


def _scale(points: pd.DataFrame, rows: pd.Series[bool], drawn: dict[str, Floats], signs: dict[str, float]) -> Scale:
    """Return the scores of families at some rows of the points, averaged over seeds."""
    at_scale = points[rows]
    families = sorted(set(at_scale["family"]))
    weights = np.stack([(at_scale["family"] == family).to_numpy(dtype=float) for family in families])
    weights = (weights / weights.sum(axis=1, keepdims=True)).T  # (rows, F)
    values = {name: sign * at_scale[name].to_numpy() @ weights for name, sign in signs.items()}
    draws = {name: sign * _averaged(drawn[name][:, rows.to_numpy()], weights) for name, sign in signs.items()}
    return Scale(values, draws)


def _averaged(draws: Floats, weights: Floats) -> Floats:
    """Return the means (R, F) of draws (R, rows); NaN for a family with an unknown draw, but not for the others."""
    unknown = np.isnan(draws) @ (weights > 0)
    return np.where(unknown, np.nan, np.nan_to_num(draws) @ weights)
