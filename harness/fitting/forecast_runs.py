"""One forecast under way: earlier rungs and targets drawn together, weighed, calibrated and judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from harness.errors import HarnessError, PluginError
from harness.fitting.forecast_models import Drawn, Forecaster
from harness.fitting.forecast_results import Forecast
from harness.fitting.forecast_scores import LEVELS, PredictionScores, References, interval, score
from harness.fitting.forecast_stack import Cases, combine
from harness.fitting.rungs import Batch, ForecastLadder, earlier
from harness.fitting.verdicts import FEWEST, verdict
from harness.host.origins import PLUGIN_ERRORS, describe
from harness.types import Bools, Floats

FEWEST_DRAWS = 50
UNTRIED = 1.0  # relative CRPS that a forecaster is trusted to have before it has made a forecast

Report = Callable[[str, int, int], None]  # what is being done, how much is done, of how much


def drawn_by(part: Forecaster, batch: Batch, rng: np.random.Generator) -> Drawn:
    """Return what a forecaster draws; raise PluginError, naming it, where that is not what the contract says."""
    count, width = len(batch.ladders), batch.targets("params").shape[1]
    try:
        drawn = part.draw(batch, rng)
        drawn = drawn if isinstance(drawn, Drawn) else Drawn(np.asarray(drawn, dtype=float), np.full(count, np.nan))
    except HarnessError:
        raise
    except PLUGIN_ERRORS as error:  # a plugin may fail in any way
        raise PluginError(f"forecaster {part.name!r} fails: {describe(error)}") from error
    shape = drawn.values.shape
    if len(shape) != 3 or (shape[0], shape[2]) != (count, width) or shape[1] < FEWEST_DRAWS:
        raise PluginError(
            f"forecaster {part.name!r} draws an array of shape {shape}; expected ({count}, R, {width}) with R of "
            f"{FEWEST_DRAWS} or more: ladders, draws, targets"
        )
    known = drawn.values[np.isfinite(drawn.values)]
    if known.size and (known.min() < 0 or known.max() > 1):
        raise PluginError(
            f"forecaster {part.name!r} draws accuracies from {known.min():.3g} to {known.max():.3g}; expected 0 to 1"
        )
    return drawn


@dataclass(frozen=True)
class ForecastRun:
    """One forecast under way: fitted ladders with targets, and what it is composed of."""

    ladders: list[ForecastLadder]
    others: list[ForecastLadder]
    parts: list[Forecaster]
    seed: int
    share: float
    report: Report
    first: int
    many: bool

    def forecast(self, measured: Floats, *, level: float, of: str, value: str) -> Forecast:
        """Draw, weigh and calibrate; `measured` (L,) is what is known of the targets."""
        cuts = [(i, cut) for i, ladder in enumerate(self.known) for cut in earlier(ladder, self.first)]
        cases, effective = self.cases([*cuts, *enumerate(self.ladders)])
        sound = self._sound()
        is_new = cases.cut >= len(cuts)
        past, new = cases.take(~is_new & sound[cases.ladder]), cases.take(is_new)
        prior = np.array([getattr(part, "untried", UNTRIED) for part in self.parts])
        fewest = self.first if self.many else FEWEST
        made, tried = combine(past, new, prior), _earlier(past, self.known, prior, fewest)
        columns = _columns(made.quantiles, level)
        columns["verdict"] = [
            verdict(self.ladders[i], low, high, curve=not self.many)
            for i, low, high in zip(new.ladder, *interval(made.quantiles, 0.9), strict=True)
        ]
        columns["weights"] = [
            dict(zip(new.names, map(float, weights.round(4)), strict=True)) for weights in made.weights
        ]
        known = _references(self.ladders, new)
        columns |= {"last": known.last, "constant": known.constant}
        columns |= {"factor": made.factors, "effective": effective[is_new], "measured": measured[new.ladder]}
        evidence = pd.DataFrame([tried.of(i, level) for i in new.ladder])[["n", "covered", "interval_score"]]
        frame = pd.DataFrame({**self._labels(new), **columns, **evidence.rename(columns={"n": "tried"})})
        return Forecast(frame, made.quantiles, level, of, value, tried.all(level), _notes(self.ladders, past))

    def _labels(self, new: Cases) -> dict[str, Any]:
        """Return the columns that say what is forecast."""
        ladders = [self.ladders[i] for i in new.ladder]
        wanted = [ladders[n].targets for n in range(len(ladders))]
        place = new.target - new.rungs - 1
        return {
            "task": [ladder.task for ladder in ladders],
            "family": [ladder.family for ladder in ladders],
            "sizes": new.rungs,
            **{
                name: [getattr(targets, name)[t] for targets, t in zip(wanted, place, strict=True)]
                for name in ("params", "tokens", "flops")
            },
            "beyond": np.exp(new.ahead),
        }

    def _sound(self) -> Bools:
        """Say which of the ladders known are forecast at all; the others teach nothing about these."""
        verdicts = [verdict(ladder, 0.0, 0.0, curve=not self.many) for ladder in self.known]
        return np.array([not text.startswith("abstain") for text in verdicts])

    @property
    def known(self) -> list[ForecastLadder]:
        """Return the ladders to forecast, then the others."""
        return [*self.ladders, *self.others]

    def cases(self, cuts: Sequence[tuple[int, ForecastLadder]]) -> tuple[Cases, Floats]:
        """Return what every part says of every target, and the fewest independent draws behind each cut."""
        sound = self._sound()
        batch = Batch.of([cut for _, cut in cuts], self.known, pools=np.array([sound[i] for i, _ in cuts]))
        drawn: list[Drawn] = []
        for number, part in enumerate(self.parts):
            self.report(part.name, number, len(self.parts))
            drawn.append(drawn_by(part, batch, np.random.default_rng([self.seed, number])))
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
                quantiles.append(
                    [_quantiles(draws.values[p, :, t], targets.docs[t], self.share, rng) for draws in drawn]
                )
        ladder, rungs, target, ahead, y, docs, cut_of = (np.array(column) for column in zip(*rows, strict=True))
        names = tuple(part.name for part in self.parts)
        by_part = np.swapaxes(np.array(quantiles), 0, 1)
        effective = _fewest([draws.effective for draws in drawn])
        return Cases(names, ladder, rungs, target, ahead, y, docs, by_part, cut_of), effective[cut_of]


def _fewest(effective: Sequence[Floats]) -> Floats:
    """Return the fewest independent draws (P,) of the parts that count them; NaN where none does."""
    fewest = np.min([np.where(np.isfinite(counts), counts, np.inf) for counts in effective], axis=0)
    return np.where(np.isfinite(fewest), fewest, np.nan)


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
    references: References

    def of(self, ladder: int, level: float) -> PredictionScores:
        """Score those of one ladder."""
        of_ladder = self.cases.ladder == ladder
        return score(self.cases.y[of_ladder], self.quantiles[of_ladder], level=level)

    def all(self, level: float) -> PredictionScores:
        """Score all of them, ladders being what is independent."""
        clusters = list(self.cases.ladder)
        return score(self.cases.y, self.quantiles, level=level, clusters=clusters, references=self.references)


def _references(ladders: Sequence[ForecastLadder], cases: Cases) -> References:
    """Return the value of the largest size, and the mean of all sizes, that each case (C,) was forecast from."""
    tops = [ladders[i].value[ladders[i].tops[:k]] for i, k in zip(cases.ladder, cases.rungs, strict=True)]
    return References(np.array([values[-1] for values in tops]), np.array([values.mean() for values in tops]))


def _earlier(past: Cases, ladders: Sequence[ForecastLadder], prior: Floats, fewest: int) -> _Earlier:
    """Return earlier forecasts from at least `fewest` rungs, or from fewer where there is no other."""
    least = min(fewest, int(past.rungs.max())) if len(past.y) else 0
    order, combined = [], []
    for k in sorted(set(past.rungs[past.rungs >= least])):
        rows = np.flatnonzero(past.rungs == k)
        order.append(rows)
        combined.append(combine(past.take(past.target <= k), past.take(rows), prior).quantiles)
    rows, quantiles = np.zeros(0, dtype=np.int64), np.empty((0, len(LEVELS)))
    if combined:
        rows, quantiles = np.concatenate(order), np.concatenate(combined)
    cases = past.take(rows)
    return _Earlier(cases, quantiles, _references(ladders, cases))


def _notes(ladders: Sequence[ForecastLadder], past: Cases) -> tuple[str, ...]:
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
