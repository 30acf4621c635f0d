"""Starting points for the optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations, product

import numpy as np

from harness.errors import LawError, UsageError, choose
from harness.fitting.laws import bounds, curve
from harness.fitting.objectives import Objective
from harness.types import Floats
from harness.types.laws import FormulaLaw, traits

SMALL = 1e-6  # smallest share of the values that a linear term keeps after variable projection


def generic_starts(law: FormulaLaw, y: Floats, x: Mapping[str, Floats], count: int, rng: np.random.Generator) -> Floats:
    """Return starts (count, p): the law's guess, half of the others around it, half spread over the bounds.

    Both halves are a scrambled Sobol sequence (Owen 1998); parameters without two bounds are spread around the guess.
    """
    from scipy import stats

    lower, upper = bounds(law)
    guess = _guess(law, y, x)
    sobol = stats.qmc.Sobol(len(guess), seed=rng).random_base2(max(count - 1, 1).bit_length())[:count]
    spread = np.where(guess == 0, 1.0, np.abs(guess))
    around = guess + 0.5 * spread * stats.norm.ppf(np.clip(sobol, 1e-6, 1 - 1e-6))
    boxed = np.isfinite(lower) & np.isfinite(upper)
    wide = np.where(boxed, np.where(boxed, lower, 0) + sobol * np.where(boxed, upper - lower, 1), around)
    starts = np.where((np.arange(count) % 2 == 0)[:, None], around, wide)
    starts[0] = guess
    return np.clip(starts, lower, upper)


def _guess(law: FormulaLaw, y: Floats, x: Mapping[str, Floats]) -> Floats:
    """Return the law's guess (p,), clipped to its bounds."""
    try:
        with np.errstate(all="ignore"):  # a start that is not finite has an infinite cost
            guessed = law.guess(y=y, **x)
    except np.linalg.LinAlgError as error:
        raise LawError(
            f"law {law.name!r}: guess() fails ({error}) for values {y.min():.4g} to {y.max():.4g}"
        ) from error
    missing = set(law.parameters) - set(guessed)
    if missing:
        raise LawError(f"law {law.name!r}: guess() returns no {choose(missing)}; expected a value of each parameter")
    guess: Floats = np.clip(np.array([float(guessed[name]) for name in law.parameters]), *bounds(law))
    return guess


def published_starts(law: FormulaLaw) -> Floats:
    """Return the starts (S, p) of the law's publication; raise UsageError if it has none."""
    lists = traits(law).published_starts
    if not lists:
        raise UsageError(f"law {law.name!r} has no published starts; give a number of starts")
    return np.array(list(product(*(lists[name] for name in law.parameters))), dtype=np.float64)


def project(law: FormulaLaw, begin: Floats, x: Mapping[str, Floats], y: Floats, objective: Objective) -> Floats:
    """Return starts (R, p) with the best linear parameters given the others.

    The sum of squares of y, weighted by the slope of the objective's transform, is minimised with the linear parameters
    inside their bounds: every subset of them is tried, the others at a bound (eight small systems for three of them).
    """
    linear = traits(law).linear
    names = [name for name in law.parameters if name in linear]
    if not names:
        return begin
    offset, terms = _terms(law, begin, x, names)  # (R, n), (R, k, n)
    weight = _weights(objective, y)
    with np.errstate(all="ignore"):
        coefficients = _bounded(terms * weight, (y - offset) * weight, _limits(law, names))  # (R, k)
        least = SMALL * np.abs(y).max() / np.abs(terms).max(2)
        logs = np.log(np.maximum(coefficients, least))
    starts = begin.copy()
    for k, name in enumerate(names):
        value = logs[:, k] if linear[name] == "log" else coefficients[:, k]
        j = list(law.parameters).index(name)
        starts[:, j] = np.where(np.isfinite(value), value, starts[:, j])
    inside: Floats = np.clip(starts, *bounds(law))
    return inside


def _weights(objective: Objective, y: Floats) -> Floats:
    with np.errstate(all="ignore"):
        slopes = np.abs(objective.slope(y, objective.forward(y)))
    return np.where(np.isfinite(slopes), slopes, 0.0)


def _terms(law: FormulaLaw, begin: Floats, x: Mapping[str, Floats], names: list[str]) -> tuple[Floats, Floats]:
    """Return the formula with all linear coefficients 0 (R, n), and the contribution of each at 1 (R, k, n)."""
    linear: Mapping[str, str] = law.linear  # type: ignore[attr-defined]  # optional, and known to be there
    place = {name: list(law.parameters).index(name) for name in names}
    none = begin.copy()
    for name in names:
        none[:, place[name]] = -np.inf if linear[name] == "log" else 0.0
    offset = curve(law, none, x)
    terms = []
    for name in names:
        alone = none.copy()
        alone[:, place[name]] = 0.0 if linear[name] == "log" else 1.0
        terms.append(curve(law, alone, x) - offset)
    return offset, np.stack(terms, axis=1)


def _limits(law: FormulaLaw, names: list[str]) -> Floats:
    """Return lower and upper bounds of the coefficients (2, k)."""
    linear: Mapping[str, str] = law.linear  # type: ignore[attr-defined]  # as above
    pairs = [law.parameters[name] for name in names]
    return np.array([np.exp(p) if linear[n] == "log" else p for n, p in zip(names, pairs, strict=True)]).T


def _bounded(terms: Floats, y: Floats, limits: Floats) -> Floats:
    """Solve R least-squares problems with terms (R, k, n) and values (R, n), coefficients (R, k) inside limits (2, k).

    Each subset of terms is solved with the others at the bound nearest to 0; the best one inside the limits is kept.
    """
    count, k = terms.shape[:2]
    rest = np.clip(0.0, *limits)
    scale = np.linalg.norm(terms, axis=2) + 1e-300  # (R, k)
    unit = terms / scale[:, :, None]
    best, least = np.tile(rest, (count, 1)), np.full(count, np.inf)
    for size in range(k + 1):
        for chosen in map(list, combinations(range(k), size)):
            solution = np.tile(rest, (count, 1))
            if size:
                left = y - np.einsum("rkn,k->rn", np.delete(terms, chosen, axis=1), np.delete(rest, chosen))
                chosen_terms = unit[:, chosen]
                gram = chosen_terms @ chosen_terms.swapaxes(1, 2) + 1e-13 * np.eye(size)
                solution[:, chosen] = _solved(gram, chosen_terms @ left[:, :, None])[:, :, 0] / scale[:, chosen]
            cost = np.square(np.einsum("rkn,rk->rn", terms, solution) - y).sum(1)
            inside = ((solution >= limits[0]) & (solution <= limits[1])).all(1)
            better = inside & (cost < least)
            best[better], least[better] = solution[better], cost[better]
    return best


def _solved(gram: Floats, right: Floats) -> Floats:
    """Solve linear systems; NaN for those that are not finite."""
    fine = np.isfinite(gram).all((1, 2)) & np.isfinite(right).all((1, 2))
    solution = np.full_like(right, np.nan)
    solution[fine] = np.linalg.solve(gram[fine], right[fine])
    return solution
