"""Fit a law to points, with intervals, and predict the held-out points.

    fit = harness.fit(store.points(task="nano_addition"), "two_step", value="acc", hold_out="largest")
    print(fit)
    fit.predict(flops=[1e16])

Every fit starts from many places and reports how many agree. Uncertainty comes from resamples of runs (or of the units
that `resample` names), solved as one batch, plus the scatter of the points around the law (Student's t). With few runs,
points are redrawn around the fitted law: reweighting under-covers there (75 % actual at 90 % nominal), because the
points at the ends of a ladder determine the fit. With ten runs or more per parameter, runs get the random weights of a
Bayesian bootstrap, which does not assume equal scatter; with a squared loss, the weights of a run vary more, the larger
its leverage. A fit never uses held-out points.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pandas as pd

from harness.errors import LawError
from harness.fitting.earlier_sizes import FEW_DRAWS, TARGET, EarlierSize, earlier_sizes
from harness.fitting.formula import Chain
from harness.fitting.held_out_scores import held_out_rows
from harness.fitting.ladder import Ladder, PointSelection
from harness.fitting.laws import configured
from harness.fitting.options import Options
from harness.fitting.procedures import fit_procedure
from harness.fitting.result import LawFit
from harness.fitting.warnings import of_families, warn
from harness.fitting.wide_points import by_family, prepared
from harness.host import default_host
from harness.host.registries import Registries
from harness.store.points import PointStore
from harness.types import Floats
from harness.types.json import JsonObject
from harness.types.laws import Law, ProcedureLaw, traits
from harness.types.metrics import UNBOUNDED


@dataclass(frozen=True)
class FitRequest:
    """The arguments of `fit` besides points and law; documented there."""

    value: str
    via: str | None = None
    where: str | None = None
    hold_out: str | float | None = None
    store: PointStore | None = None
    options: Options = field(default_factory=Options)
    law_options: JsonObject = field(default_factory=dict)
    weights: Floats | None = None
    earlier: bool = False
    bounds: tuple[float, float] = UNBOUNDED  # of predictions of held-out points

    @property
    def settings(self) -> Options:
        """Return the options, with the units that are resampled."""
        if self.weights is not None:
            return replace(self.options, resample="weights", bootstrap=len(self.weights))
        default = "runs" if self.store is None else "joint"
        return replace(self.options, resample=self.options.resample or default)


def fit(
    points: pd.DataFrame,
    law: str | Law,
    *,
    value: str,
    via: str | None = None,
    where: str | None = None,
    hold_out: str | float | None = None,
    store: PointStore | None = None,
    objective: str | None = None,
    resample: str | None = None,
    bootstrap: int = 1000,
    level: float = 0.9,
    starts: int | str = 32,
    seed: int = 0,
    law_options: JsonObject | None = None,
    weights: Floats | None = None,
    step1_where: str | None = None,
    step2_where: str | None = None,
    step1_objective: str | None = None,
    registries: Registries | None = None,
) -> LawFit:
    """Fit a law to points and predict the held-out points.

    :param points: `store.points(...)`, or any table with a column `value` and the features of the law.
    :param law: the name of a registered law, or a law.
    :param value: the metric (of long points) or the column (of a wide table) that the law describes.
    :param via: for a composed law, the column between its steps (default: the law's).
    :param where: an expression that selects points; the others are ignored.
    :param hold_out: an expression, "largest", or a share of the points (those with the most FLOPs).
    :param store: the store whose documents are resampled (resample="documents" or "joint").
    :param objective: a name of OBJECTIVES (default: the law's).
    :param resample: runs | checkpoints | seeds | documents | joint (runs and documents). Default: joint with a store,
        else runs.
    :param bootstrap: number of resamples.
    :param level: coverage level of intervals.
    :param starts: number of starting points of the optimiser, or "published".
    :param seed: seed of starting points and resamples.
    :param law_options: options of the law itself, if it has any (`harness ls laws`).
    :param weights: own resamples for a formula: weights (R, n) of the n fitted points, in their order, such as how
        often each is drawn. They replace `resample` and `bootstrap`.
    :param step1_where: for a law of two steps, an expression that selects the points of the first step, or "ends" (the
        last checkpoint of every run). Runs are resampled for both steps at once.
    :param step2_where: the same for the second step.
    :param step1_objective: the objective of the first step (default: the law's); `objective` is that of the last.

    Raises LawError for points that no law can be fitted to. Weak inference is a warning in the fit, and so are several
    families that a law without families describes as one; `fit_families` fits each.
    """
    steps = (step1_where, step2_where, step1_objective)
    options = Options(objective, resample, bootstrap, level, starts, seed, *steps)
    request = FitRequest(value, via, where, hold_out, store, options, law_options or {}, weights)
    fitted = fit_points(points, named_law(law, registries), request)
    return replace(fitted, warnings=(*of_families(fitted), *fitted.warnings))


def fit_families(
    points: pd.DataFrame,
    law: str | Law,
    *,
    value: str,
    via: str | None = None,
    where: str | None = None,
    hold_out: str | float | None = None,
    store: PointStore | None = None,
    objective: str | None = None,
    resample: str | None = None,
    bootstrap: int = 1000,
    level: float = 0.9,
    starts: int | str = 32,
    seed: int = 0,
    law_options: JsonObject | None = None,
    registries: Registries | None = None,
) -> Iterator[tuple[str, LawFit | LawError]]:
    """Fit a law to each family separately; yield (family, fit), or (family, error) if a family cannot be fitted.

    A law that pools families is fitted once, and its family is "". Arguments are those of `fit`; `where` is applied
    before families are separated. Raises LawError if no points are left.
    """
    options = Options(objective, resample, bootstrap, level, starts, seed)
    request = FitRequest(value, via, where, hold_out, store, options, law_options or {})
    yield from each_family(points, named_law(law, registries), request)


def each_family(points: pd.DataFrame, law: Law, request: FitRequest) -> Iterator[tuple[str, LawFit | LawError]]:
    """Yield (family, fit or error); see `fit_families`."""
    frame = prepared(points, law, request.value, request.where)
    request = replace(request, where=None)
    for family, of_family in [("", frame)] if traits(law).pools else by_family(frame):
        try:
            yield family, fit_points(of_family, law, request)
        except LawError as error:
            yield family, error


def named_law(law: str | Law, registries: Registries | None) -> Law:
    """Return a law, or the registered law of that name."""
    return (registries or default_host()).laws[law] if isinstance(law, str) else law


def fit_points(points: pd.DataFrame, law: Law, request: FitRequest) -> LawFit:
    """Build the ladder of points and fit a law to it; see `fit`."""
    law, options = configured(law, request.law_options), request.settings
    asked = PointSelection(request.value, request.via, request.where, request.hold_out, request.store, request.weights)
    ladder = Ladder.of(points, law, options, asked)
    parts = (ladder.points.assign(is_held_out=False), ladder.target.assign(is_held_out=True))
    fitted = LawFit(
        law=law.name,
        value=request.value,
        via="",
        negated=False,
        steps=(),
        options=options,
        runs=ladder.runs.count,
        sizes=ladder.runs.sizes,
        told_apart=ladder.runs.columns,
        worth=ladder.worth,
        labels=ladder.labels,
        law_options=dict(request.law_options),
        points=pd.concat(parts, ignore_index=True),
    )
    if isinstance(law, ProcedureLaw):
        step = fit_procedure(law, ladder.points, ladder.resamples, value=request.value, options=options)
        fitted = replace(fitted, steps=(step,))
    else:
        chain = Chain.of(law, ladder.columns)
        steps = chain.fit(ladder, options)
        fitted = replace(fitted, via=chain.via, negated=chain.negated(ladder), steps=steps)
    fitted = replace(fitted, hold_out=held_out_rows(fitted, ladder, request.bounds))
    if request.earlier:
        fitted = replace(fitted, earlier=tuple(_earlier(ladder.points, law, request)))
    return replace(fitted, warnings=(*ladder.warnings, *warn(fitted, ladder)))


def _earlier(points: pd.DataFrame, law: Law, request: FitRequest) -> list[EarlierSize]:
    """Predict the earlier sizes of a ladder, with few resamples of runs."""
    options = replace(request.options, bootstrap=min(FEW_DRAWS, request.options.bootstrap))
    again = replace(request, where=None, hold_out=TARGET, store=None, options=options, earlier=False, law_options={})
    return earlier_sizes(points, lambda test: fit_points(test, law, again))
