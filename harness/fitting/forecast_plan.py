"""Which next run would narrow a forecast most: expected widths after runs that have not been made.

Every model of a forecast draws the candidate run and the target together. An outcome of the candidate is simulated
from these draws; the draws are then reweighted by the likelihood of the outcome (importance sampling), and the width
of the target's interval is taken again. The mean over outcomes is the expected width (Chaloner and Verdinelli 1995,
sec. 2: preposterior analysis). It is stated as a share of today's width and applied to the calibrated interval.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.checkpoints.flops import training_flops
from harness.errors import UsageError
from harness.fitting.forecast_results import Forecast
from harness.fitting.forecast_runs import ForecastRun, drawn_by
from harness.fitting.rungs import Batch, ForecastLadder, Targets
from harness.tables import Cell, Measured, Table
from harness.types import Floats

OUTCOMES = 100  # simulated results of a candidate
MORE_DOCUMENTS = 4
SIZES = (2.0, 4.0)  # of the next size over the largest


@dataclass(frozen=True)
class CandidateRun:
    """A run that could be made next; NaN where a scale is not used by the ladder."""

    name: str
    params: float
    tokens: float
    flops: float

    @property
    def cost(self) -> float:
        """Training FLOPs, 6 N D where they are not given."""
        return self.flops if np.isfinite(self.flops) else float(training_flops(self.params, self.tokens))


@dataclass(frozen=True)
class Expected:
    """The expected width of one forecast after a candidate, as a share of today's, with its Monte Carlo error."""

    share: float
    error: float


def candidates(ladder: ForecastLadder) -> list[CandidateRun]:
    """Return runs to consider: a seed of the largest size, more tokens, and the next sizes at its tokens per parameter.

    Runs that cost as much as the target are left out.
    """
    top = ladder.tops[-1]
    n, d, c = (float(getattr(ladder, name)[top]) for name in ("params", "tokens", "flops"))
    considered = [CandidateRun("another seed of the largest size", n, d, c)]
    if np.isfinite(n) and np.isfinite(d):
        considered.append(CandidateRun("the largest size, twice the tokens", n, 2 * d, 2 * c))
    considered += [
        CandidateRun(f"a size of {factor:g} times the parameters", factor * n, factor * d, factor**2 * c)
        for factor in SIZES
    ]
    limit = _costs(ladder.targets)
    return [candidate for candidate in considered if not np.isfinite(limit) or candidate.cost < limit]


def _costs(targets: Targets | None) -> float:
    if targets is None or len(targets) != 1:
        raise UsageError("a plan is for one model; pass one of each of params, tokens and flops")
    flops = targets.flops[0]
    return float(flops if np.isfinite(flops) else training_flops(targets.params[0], targets.tokens[0]))


def plan(run: ForecastRun, forecast: Forecast) -> Table:
    """Return candidates per family with the expected mean width of the family's forecasts, largest gain per FLOP first.

    :param run: the forecast under way, whose ladders each have one target.
    :param forecast: its result, row by row for these ladders.
    """
    weights = list(forecast.frame["weights"])
    rng = np.random.default_rng([run.seed, 7])
    low, high = forecast.interval(forecast.level)
    rows: list[tuple[Cell, ...]] = []
    for family in sorted({ladder.family for ladder in run.ladders}):
        indices = [i for i, ladder in enumerate(run.ladders) if ladder.family == family]
        now = np.array([high[i] - low[i] for i in indices])
        for candidate, expected in _of_family(run, indices, [weights[i] for i in indices], forecast.level, rng):
            shares = np.array([expectation.share for expectation in expected])
            error = np.sqrt(np.sum((now * [expectation.error for expectation in expected]) ** 2)) / len(now)
            gain = float((now * (1 - shares)).mean())
            cost = None if candidate is None else candidate.cost
            name = candidate.name if candidate else f"{MORE_DOCUMENTS} times the documents, no new run"
            width = Measured(float((now * shares).mean()), float(error))
            per = None if cost is None else gain / (cost / _largest(run.ladders[indices[0]]))
            scales = (candidate.params, candidate.tokens) if candidate else (None, None)
            rows.append((family, name, *scales, cost, float(now.mean()), width, gain, per))
    rows.sort(key=lambda row: (str(row[0]), -float(row[-1] if isinstance(row[-1], float) else np.inf)))
    columns = (
        "family", "next measurement", "params", "tokens", "FLOPs", "width now", "expected width", "narrower by",
        "per cost of the largest run",
    )  # fmt: skip
    note = (
        f"Mean width of the {forecast.level:.0%} intervals over the tasks of a family. Expected width: mean over "
        f"{OUTCOMES} simulated outcomes, with its Monte Carlo error, as a share of today's width applied to the "
        "calibrated interval. It assumes that the fitted models are right. More documents: the values stay, the noise "
        "of measurement shrinks; its cost is evaluation only."
    )
    return Table("forecast_plan", "What to measure next", columns, tuple(rows), (note,))


def _largest(ladder: ForecastLadder) -> float:
    return float(np.exp(ladder.order.max()))


def _of_family(
    run: ForecastRun,
    indices: Sequence[int],
    weights: Sequence[dict[str, float]],
    level: float,
    rng: np.random.Generator,
) -> Iterator[tuple[CandidateRun | None, list[Expected]]]:  # fmt: skip
    """Yield every candidate of a family, and None for more documents, with the expected widths of its forecasts."""
    ladders = [run.ladders[i] for i in indices]
    considered = candidates(ladders[0])
    joint = _drawn(run, [_with(ladder, considered) for ladder in ladders])
    for k, candidate in enumerate(considered):
        expected = []
        for p, ladder in enumerate(ladders):
            mass = _mass(joint, weights[p], p)
            expected.append(_expected(mass, _pick(joint, p, 0), _pick(joint, p, k + 1), ladder, run.share, level, rng))
        yield candidate, expected
    more = _drawn(run, [replace(ladder, docs=MORE_DOCUMENTS * ladder.docs) for ladder in ladders])
    expected = []
    for p, ladder in enumerate(ladders):
        before, after = (
            _width(_pick(drawn, p, 0), _mass(drawn, weights[p], p), ladder, run.share, level, rng)
            for drawn in (joint, more)
        )
        expected.append(Expected(min(after / before, 1.0), float("nan")))
    if all(np.isfinite(ladder.docs).all() for ladder in ladders):
        yield None, expected


def _with(ladder: ForecastLadder, considered: Sequence[CandidateRun]) -> ForecastLadder:
    """Return a ladder whose targets are its own and then the candidates."""
    targets = ladder.targets
    assert targets is not None
    columns = {
        name: np.append(getattr(targets, name), [getattr(candidate, name) for candidate in considered])
        for name in ("params", "tokens", "flops")
    }
    return replace(
        ladder, targets=Targets(**columns, docs=np.append(targets.docs, [targets.docs[0]] * len(considered)))
    )


def _drawn(run: ForecastRun, ladders: Sequence[ForecastLadder]) -> dict[str, Floats]:
    """Return the draws (P, R, T) of every part."""
    batch = Batch.of(list(ladders), run.known)
    return {
        part.name: drawn_by(part, batch, np.random.default_rng([run.seed, number])).values
        for number, part in enumerate(run.parts)
    }


def _pick(drawn: dict[str, Floats], p: int, t: int) -> Floats:
    """Return the draws of one ladder and target of all parts, one after the other (K,)."""
    return np.concatenate([draws[p, :, t] for draws in drawn.values()])


def _mass(drawn: dict[str, Floats], weights: dict[str, float], p: int) -> Floats:
    """Return the probability of each draw (K,): the weight of its part, shared; 0 where a part abstains."""
    mass = np.concatenate(
        [
            np.full(draws.shape[1], weights.get(name, 0.0) / draws.shape[1] if np.isfinite(draws[p]).all() else 0.0)
            for name, draws in drawn.items()
        ]
    )
    return np.asarray(mass / mass.sum())


def _measured(target: Floats, ladder: ForecastLadder, share: float, rng: np.random.Generator) -> Floats:
    """Return what would be measured at the target (K,), the noise of documents included."""
    assert ladder.targets is not None
    p, docs = np.clip(np.nan_to_num(target), 0.0, 1.0), ladder.targets.docs[0]
    spread = np.sqrt(share * p * (1 - p) / docs) if np.isfinite(docs) else 0.0
    return np.asarray(np.clip(p + spread * rng.standard_normal(len(p)), 0.0, 1.0))


def _width(
    target: Floats, mass: Floats, ladder: ForecastLadder, share: float, level: float, rng: np.random.Generator
) -> float:
    return float(_widths(_measured(target, ladder, share, rng), mass[None], level)[0])


def _widths(values: Floats, mass: Floats, level: float) -> Floats:
    """Return the widths (M,) of central intervals of values (K,) under weights (M, K)."""
    order = np.argsort(values)
    total = np.cumsum(mass[:, order], axis=1)
    tails = ((1 - level) / 2, (1 + level) / 2)
    ends = [values[order][np.minimum((total < tail).sum(axis=1), len(values) - 1)] for tail in tails]
    return np.asarray(ends[1] - ends[0])


def _expected(
    mass: Floats, target: Floats, candidate: Floats, ladder: ForecastLadder, share: float, level: float,
    rng: np.random.Generator,
) -> Expected:  # fmt: skip
    """Return the expected width of the target's interval after the candidate was measured."""
    values = _measured(target, ladder, share, rng)
    before = float(_widths(values, mass[None], level)[0])
    if not before > 0:
        return Expected(1.0, 0.0)
    p, docs = np.clip(np.nan_to_num(candidate), 1e-4, 1 - 1e-4), ladder.docs[ladder.tops[-1]]
    noise = np.sqrt(p * (1 - p) / (docs if np.isfinite(docs) else 1e4))
    truth = rng.choice(len(mass), size=OUTCOMES, p=mass)
    outcomes = p[truth] + noise[truth] * rng.standard_normal(OUTCOMES)
    log = -0.5 * ((outcomes[:, None] - p) / noise) ** 2 - np.log(noise)
    likelihood = np.exp(log - log.max(axis=1, keepdims=True)) * mass
    shares = _widths(values, likelihood / likelihood.sum(axis=1, keepdims=True), level) / before
    return Expected(float(shares.mean()), float(shares.std(ddof=1) / np.sqrt(OUTCOMES)))
