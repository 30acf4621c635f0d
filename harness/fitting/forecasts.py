"""Forecast how a larger model will do on every task, with one calibrated distribution per task and family.

    found = harness.forecast(store.points(metrics=["acc", "gold_bits_per_byte"]), params=1e9, tokens=2e10)
    print(found)
    found.frame                           a row per task and family; found.quantiles has their distributions

A forecast is composed: models and laws are fitted to the ladder, weighted by how their forecasts of earlier rungs did
over all tasks and families, averaged, and widened by the misses of those forecasts. It abstains where nothing can be
said. Intervals are for the accuracy to be measured on the same documents (`of="documents"`) or on all documents like
them (`of="population"`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from harness.errors import LawError, UsageError, choose
from harness.fitting.forecast_laws import LawForecaster
from harness.fitting.forecast_models import SAME_DOCS, Drawn, Forecaster
from harness.fitting.forecast_scores import LEVELS, Scores, interval, score
from harness.fitting.forecast_stack import Cases, combine
from harness.fitting.rungs import Batch, Ladder, Targets, earlier, read_ladders
from harness.fitting.verdicts import FEWEST, verdict
from harness.host import default_host
from harness.ladders import widen
from harness.registries import Registries
from harness.types import Bools, Floats

LARGEST = "largest"
SHARES = {"documents": SAME_DOCS, "population": 1.0}  # of the variance of documents that an interval has in it
MANY = 6  # families that are forecast from one another where each has few sizes
FEW_SIZES = 5  # per family, in the median
FIRST = 2  # sizes of the smallest ladder whose forecast counts
UNTRIED = 1.0  # relative CRPS that a forecaster is trusted to have before it has made a forecast

Wanted = float | Sequence[float] | None
Report = Callable[[str, int, int], None]  # what is being done, how much is done, of how much


@dataclass(frozen=True)
class Forecast:
    """Distributions of accuracies to come: `frame` has a row per task and family, `quantiles` (rows, Q) the values
    at `levels`. Prints itself.

    Columns of the frame: task, family, sizes, params, tokens, flops, beyond (factor of FLOPs above the ladder), median,
    low50, high50, low, high, verdict, weights (of each part), factor (by which the spread was widened), effective
    (independent draws at least), measured (where known), and the evidence of earlier rungs: tried, covered,
    interval_score.
    """

    frame: pd.DataFrame
    quantiles: Floats
    level: float
    of: str
    value: str
    earlier: Scores
    notes: tuple[str, ...] = ()
    levels: Floats = field(default_factory=LEVELS.copy)

    @property
    def scores(self) -> Scores:
        """Return how the forecasts that do not abstain did, where the target was measured."""
        known = self.frame["measured"].notna() & ~self.abstained
        rows = known.to_numpy()
        measured = self.frame["measured"].to_numpy(dtype=np.float64)
        return score(measured[rows], self.quantiles[rows], level=self.level, clusters=list(self.frame["task"][known]))

    @property
    def abstained(self) -> pd.Series[bool]:
        """Say which rows abstain."""
        return self.frame["verdict"].str.startswith("abstain")

    def interval(self, level: float) -> tuple[Floats, Floats]:
        """Return the ends (rows,) of the central intervals at another level."""
        return interval(self.quantiles, level, self.levels)

    def of_family(self, family: str) -> Forecast:
        """Return the rows of one family; raise UsageError where there is none."""
        rows = (self.frame["family"] == family).to_numpy()
        if not rows.any():
            raise UsageError(f"there is no family {family!r}; there are: {choose(set(self.frame['family']))}")
        return replace(self, frame=self.frame[rows].reset_index(drop=True), quantiles=self.quantiles[rows])

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        rows = self.frame.astype(object).where(self.frame.notna(), None).to_dict("records")
        for row, own in zip(rows, self.quantiles.tolist(), strict=True):
            row["quantiles"] = own
        settings = {"level": self.level, "of": self.of, "value": self.value, "levels": self.levels.tolist()}
        return {**settings, "notes": list(self.notes), "rows": rows}

    def __str__(self) -> str:
        from harness.fitting.forecast_tables import text

        return text(self)


def forecast(
    points: pd.DataFrame,
    *,
    value: str = "acc",
    via: str | None = None,
    params: Wanted = None,
    tokens: Wanted = None,
    flops: Wanted = None,
    level: float = 0.9,
    of: str = "documents",
    laws: Sequence[str] | None = None,
    forecasters: Sequence[str] | None = None,
    family: str | None = None,
    seed: int = 0,
    registries: Registries | None = None,
    report: Report = lambda *_: None,
) -> Forecast:
    """Return the distribution of the accuracy of a model to come, per task and family.

    :param points: `store.points(...)`, or a table with a row per checkpoint: `value`, params or flops, and where known
        task, family, size, seed, step, tokens, chance, the number of documents (n or VALUE_n) or VALUE_stderr.
    :param via: a column of task losses, such as bits per byte of the right answer; None: there is none.
    :param params: of the model to come, with `tokens`; or `flops`; several models as sequences. Without any, the
        largest size of every family is held out and forecast.
    :param of: "documents": what will be measured on these documents; "population": on all documents like them.
    :param laws: laws that take part; by default those of plugins that do not ship with the harness.
    :param forecasters: names of registered forecasters; all by default.
    :param family: the only family to forecast; the others keep their largest sizes, and are learnt from.
    :param report: is told what is being done, as (name, done, total).

    Raises LawError where there are no accuracies or no ladder has two sizes below its target.
    """
    if of not in SHARES:
        raise UsageError(f"of={of!r} is none of {choose(SHARES)}")
    if not 0 < level < 0.99:
        raise UsageError(f"level={level}: expected a share above 0 and below 0.99, such as 0.9")
    registries = registries or default_host()
    ladders = read_ladders(widen(points), value, via)
    asked = _asked(params, tokens, flops)
    wanted = [ladder for ladder in ladders if family in (None, ladder.family)]
    if not wanted:
        raise UsageError(f"there is no family {family!r}; there are: {choose({own.family for own in ladders})}")
    fitted = [_held(ladder) if asked is None else _aimed(ladder, asked) for ladder in wanted]
    many = _many(ladders)
    first = 1 if many else FIRST
    fitted = [ladder for ladder in fitted if ladder.rungs >= first and ladder.targets]
    if not fitted:
        raise LawError(f"none of {len(wanted)} ladders has two sizes below its target; add sizes")
    measured = np.array([_measured(ladder, ladders) if asked is None else np.nan for ladder in fitted])
    others = [ladder for ladder in ladders if family not in (None, ladder.family)]
    run = _Run(fitted, others, _parts(registries, laws, forecasters, many), seed, SHARES[of], report, first, many)
    return run.forecast(measured, level=level, of=of, value=value)


def _many(ladders: Sequence[Ladder]) -> bool:
    """Say whether these are many families of few sizes, which are forecast from one another."""
    families = {ladder.family for ladder in ladders}
    return len(families) >= MANY and float(np.median([ladder.rungs for ladder in ladders])) <= FEW_SIZES


def _asked(params: Wanted, tokens: Wanted, flops: Wanted) -> Targets | None:
    """Return the models to forecast, or None where none is named."""
    named = {"params": params, "tokens": tokens, "flops": flops}
    given = {name: np.atleast_1d(np.asarray(own, dtype=np.float64)) for name, own in named.items() if own is not None}
    if not given:
        return None
    wrong = [name for name, own in given.items() if not ((own > 0) & np.isfinite(own)).all()]
    if wrong:
        raise UsageError(f"{', '.join(wrong)} of the model to forecast: expected numbers above 0")
    if flops is None and params is None:
        raise UsageError("name the model to forecast: params and tokens, or flops")
    counts = {len(own) for own in given.values()}
    if len(counts) > 1:
        raise UsageError(f"{', '.join(given)} name {choose(counts)} models; expected as many of each")
    unknown = np.full(counts.pop(), np.nan)
    return Targets(**{name: given.get(name, unknown) for name in named}, docs=unknown)


def _held(ladder: Ladder) -> Ladder:
    """Return a ladder without its largest size, which is the target."""
    if ladder.rungs < 2:
        return ladder
    return ladder.cut(ladder.rungs - 1)


def _aimed(ladder: Ladder, asked: Targets) -> Ladder:
    """Return a ladder with the target that was asked for; it answers as many documents as the largest size did."""
    return replace(ladder, targets=replace(asked, docs=np.repeat(ladder.docs[ladder.tops[-1]], len(asked))))


def _measured(fitted: Ladder, ladders: Sequence[Ladder]) -> float:
    whole = next(own for own in ladders if (own.task, own.family) == (fitted.task, fitted.family))
    return float(whole.value[whole.tops[-1]])


def _parts(
    registries: Registries, laws: Sequence[str] | None, forecasters: Sequence[str] | None, many: bool
) -> list[Forecaster]:
    """Return what a forecast is composed of: the models of one ladder, or those of `many` families."""
    from harness.fitting.forecast_laws import takes_part

    own: list[Forecaster] = [registries.forecasters[name] for name in forecasters or registries.forecasters]
    if not forecasters:
        own = [part for part in own if getattr(part, "many", many) == many]
    if laws is None:
        shipped = getattr(registries, "ships", lambda _: True)
        laws = [name for name in registries.laws if not shipped(registries.laws.entries[name].plugin)]
        laws = [name for name in laws if takes_part(registries.laws[name])]
    return [*own, *(LawForecaster(registries.laws[name], registries) for name in laws)]


@dataclass(frozen=True)
class _Run:
    """One forecast under way: fitted ladders with targets, and what it is composed of."""

    ladders: list[Ladder]
    others: list[Ladder]
    parts: list[Forecaster]
    seed: int
    share: float
    report: Report
    first: int
    many: bool

    def forecast(self, measured: Floats, *, level: float, of: str, value: str) -> Forecast:
        """Draw, weigh and calibrate; `measured` (L,) is what is known of the targets."""
        cuts = [(i, cut) for i, ladder in enumerate(self.known) for cut in earlier(ladder, self.first)]
        cases, effective = self._cases([*cuts, *enumerate(self.ladders)])
        sound = self._sound()
        is_new = cases.cut >= len(cuts)
        past, new = cases.take(~is_new & sound[cases.ladder]), cases.take(is_new)
        prior = np.array([getattr(part, "untried", UNTRIED) for part in self.parts])
        fewest = self.first if self.many else FEWEST
        made, tried = combine(past, new, prior), _earlier(past, prior, fewest)
        columns = _columns(made.quantiles, level)
        columns["verdict"] = [
            verdict(self.ladders[i], low, high, curve=not self.many)
            for i, low, high in zip(new.ladder, *interval(made.quantiles, 0.9), strict=True)
        ]
        columns["weights"] = [dict(zip(new.names, map(float, own.round(4)), strict=True)) for own in made.weights]
        columns |= {"factor": made.factors, "effective": effective[is_new], "measured": measured[new.ladder]}
        evidence = pd.DataFrame([tried.of(i, level) for i in new.ladder])[["n", "covered", "interval_score"]]
        frame = pd.DataFrame({**self._labels(new), **columns, **evidence.rename(columns={"n": "tried"})})
        return Forecast(frame, made.quantiles, level, of, value, tried.all(level), _notes(self.ladders, past))

    def _labels(self, new: Cases) -> dict[str, Any]:
        """Return the columns that say what is forecast."""
        own = [self.ladders[i] for i in new.ladder]
        wanted = [own[n].targets for n in range(len(own))]
        place = new.target - new.rungs - 1
        return {
            "task": [ladder.task for ladder in own],
            "family": [ladder.family for ladder in own],
            "sizes": new.rungs,
            **{
                name: [getattr(targets, name)[t] for targets, t in zip(wanted, place, strict=True)]
                for name in ("params", "tokens", "flops")
            },
            "beyond": np.exp(new.ahead),
        }

    def _sound(self) -> Bools:
        """Say which of the ladders known are forecast at all; the others teach nothing about these."""
        found = [verdict(ladder, 0.0, 0.0, curve=not self.many) for ladder in self.known]
        return np.array([not own.startswith("abstain") for own in found])

    @property
    def known(self) -> list[Ladder]:
        """Return the ladders to forecast, then the others."""
        return [*self.ladders, *self.others]

    def _cases(self, cuts: Sequence[tuple[int, Ladder]]) -> tuple[Cases, Floats]:
        """Return what every part says of every target, and the fewest independent draws behind each cut."""
        sound = self._sound()
        batch = Batch.of([cut for _, cut in cuts], self.known, pools=np.array([sound[i] for i, _ in cuts]))
        drawn: list[Drawn] = []
        for number, part in enumerate(self.parts):
            self.report(part.name, number, len(self.parts))
            found = part.draw(batch, np.random.default_rng([self.seed, number]))
            drawn.append(found if isinstance(found, Drawn) else Drawn(found, np.full(len(cuts), np.nan)))
        self.report("stacking", len(self.parts), len(self.parts))
        rng = np.random.default_rng([self.seed, 99])
        rows, quantiles = [], []
        for p, (i, cut) in enumerate(cuts):
            targets = cut.targets
            assert targets is not None
            ahead, whole = cut.beyond(targets), self.known[i]
            for t in range(len(targets)):
                rung = cut.rungs + 1 + t
                known = rung <= whole.rungs
                y = whole.value[whole.tops[rung - 1]] if known else np.nan
                rows.append((i, cut.rungs, rung, ahead[t], y, targets.docs[t], p))
                quantiles.append([_quantiles(own.values[p, :, t], targets.docs[t], self.share, rng) for own in drawn])
        ladder, rungs, target, ahead, y, docs, cut_of = (np.array(own) for own in zip(*rows, strict=True))
        names = tuple(part.name for part in self.parts)
        by_part = np.swapaxes(np.array(quantiles), 0, 1)
        effective = _fewest([own.effective for own in drawn])
        return Cases(names, ladder, rungs, target, ahead, y, docs, by_part, cut_of), effective[cut_of]


def _fewest(effective: Sequence[Floats]) -> Floats:
    """Return the fewest independent draws (P,) of the parts that count them; NaN where none does."""
    found = np.min([np.where(np.isfinite(own), own, np.inf) for own in effective], axis=0)
    return np.where(np.isfinite(found), found, np.nan)


def _columns(quantiles: Floats, level: float) -> dict[str, Any]:
    """Return median and intervals of distributions (N, Q)."""
    (low50, high50), (low, high) = interval(quantiles, 0.5), interval(quantiles, level)
    median = quantiles[:, np.argmin(np.abs(LEVELS - 0.5))]
    return {"median": median, "low50": low50, "high50": high50, "low": low, "high": high}


def _quantiles(draws: Floats, docs: float, share: float, rng: np.random.Generator) -> Floats:
    """Return the quantiles (Q,) of what is measured on documents, of which a share of the variance is new."""
    if not np.isfinite(draws).all():
        return np.full(len(LEVELS), np.nan)
    p = np.clip(draws, 0.0, 1.0)
    spread = np.sqrt(share * p * (1 - p) / docs) if np.isfinite(docs) else 0.0
    return np.asarray(np.quantile(np.clip(p + spread * rng.standard_normal(len(p)), 0, 1), LEVELS))


@dataclass(frozen=True)
class _Earlier:
    """Forecasts of earlier rungs made as this one is: from the cases before each alone."""

    cases: Cases
    quantiles: Floats

    def of(self, ladder: int, level: float) -> Scores:
        """Score those of one ladder."""
        own = self.cases.ladder == ladder
        return score(self.cases.y[own], self.quantiles[own], level=level)

    def all(self, level: float) -> Scores:
        """Score all of them, ladders being what is independent."""
        return score(self.cases.y, self.quantiles, level=level, clusters=list(self.cases.ladder))


def _earlier(past: Cases, prior: Floats, fewest: int) -> _Earlier:
    """Return earlier forecasts from at least `fewest` rungs, or from fewer where there is no other."""
    least = min(fewest, int(past.rungs.max())) if len(past.y) else 0
    order, found = [], []
    for k in sorted(set(past.rungs[past.rungs >= least])):
        rows = np.flatnonzero(past.rungs == k)
        order.append(rows)
        found.append(combine(past.take(past.target <= k), past.take(rows), prior).quantiles)
    if not found:
        return _Earlier(past.take(np.zeros(0, dtype=np.int64)), np.empty((0, len(LEVELS))))
    return _Earlier(past.take(np.concatenate(order)), np.concatenate(found))


def _notes(ladders: Sequence[Ladder], past: Cases) -> tuple[str, ...]:
    notes = []
    if len(past.y) < 10:
        notes.append(
            f"{len(past.y)} forecasts of earlier rungs: too few to weigh or calibrate by, so equal weights count most"
        )
    unknown = [ladder.name for ladder in ladders if not np.isfinite(ladder.docs).all()]
    if unknown:
        notes.append(
            f"the number of documents is unknown for {len(unknown)} ladders; a column n makes intervals better"
        )
    if any(not np.isfinite(ladder.chance) for ladder in ladders):
        notes.append(
            "chance is unknown for some ladders, and taken as half the lowest value; a column chance is better"
        )
    return tuple(notes)
