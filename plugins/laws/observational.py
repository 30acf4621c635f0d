"""The observational law: predict a task from the capabilities that other benchmarks measure (Ruan et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

import harness
from harness import Fitted, Floats, Ints, LawError, UsageError
from harness.laws import Effort, Problem, minimise
from harness_plugins.laws.capabilities import MOST, Space
from harness_plugins.laws.task import logistic

if TYPE_CHECKING:
    import pandas as pd

MEASURES = ("components", "flops", "params")
CEILING = 0.2  # upper bound of the guessing rate c, as published
FOLDS = 10  # of the cross-validation that chooses the number of components
STEEP = 100.0  # bound of the weights, which would diverge if a step function fits the data
EFFORT = Effort(100, tolerance=1e-9, floor=1e-9)


@dataclass(frozen=True)
class Observational:
    """y = c + (1 - c) sigma(w0 + w1 PC1 + .. + wK PCK): a task from the principal components of other benchmarks.

    Ruan et al. 2024, eq. 7: models of all families are fitted together. Missing benchmark scores are filled from the
    first component. Components are computed from raw scores, not standardised ones; 0 <= c <= 0.2. Only the fitted
    models determine the components; predicted models are projected onto them. Models without a value of the task are
    used for missing scores and components, as published, but not for the sigmoid. Needs scores from 0 to 1 of at least
    ten models. The benchmarks must not include the task itself or a benchmark that contains it. For comparison,
    `measure` replaces the components with log10 of flops or of params.
    """

    benchmarks: str | Sequence[str] = ()
    components: int | str = "auto"
    measure: str = "components"

    name = "observational"
    avoid = "if the task is among the benchmarks, or if training data contain benchmark documents"
    options = {
        "benchmarks": "columns with scores from 0 to 1, separated by commas",
        "components": f"number of components, 1 to {MOST}; auto: chosen by cross-validation on the ladder",
        "measure": "components, flops or params",
    }
    value_range = (0.0, 1.0)
    pools = True
    uses_unscored = True

    def __post_init__(self) -> None:
        if self.measure not in MEASURES:
            raise UsageError(f"measure={self.measure!r}: expected one of {', '.join(MEASURES)}")
        if self.components != "auto" and self.components not in range(1, MOST + 1):
            raise UsageError(f"components={self.components!r}: expected auto, or a number from 1 to {MOST}")

    @property
    def features(self) -> tuple[str, ...]:
        """Return the benchmarks, or the column that replaces them."""
        if self.measure != "components":
            return (self.measure,)
        names = self.benchmarks.split(",") if isinstance(self.benchmarks, str) else self.benchmarks
        return tuple(name.strip() for name in names if name.strip())

    def fit(self, points: pd.DataFrame, value: str, rng: np.random.Generator) -> Fitted:
        """Fit the weights to one table."""
        return self.fit_all([points], value, rng)[0]

    def fit_all(self, tables: Sequence[pd.DataFrame], value: str, rng: np.random.Generator) -> list[Fitted]:  # noqa: ARG002  # nothing is drawn
        """Fit the weights to many tables at once."""
        from harness.points import column

        self._check(tables[0], value)
        spaces = [self._space(table) for table in tables]
        scored = [table.loc[table[value].notna()] if value in table else table for table in tables]
        coordinates = [
            self._coordinates(space, table)[:, : self._count] for space, table in zip(spaces, scored, strict=True)
        ]
        values = [column(table, value) for table in scored]
        notes: tuple[str, ...] = ()
        if self.components == "auto" and self.measure == "components":
            chosen, notes = self._choose(tables[0], value)
            coordinates = [x[:, :chosen] for x in coordinates]
        weights = fit_sigmoids(coordinates, values)
        return [
            Fitted(_named(row), {"space": space.to_state() if space else None}, notes)
            for row, space in zip(weights, spaces, strict=True)
        ]

    def settled(self, fitted: Fitted) -> Observational:
        """Return the law with the chosen number of components."""
        return replace(self, components=len(fitted.parameters) - 2)

    def predict(self, fitted: Fitted, points: pd.DataFrame) -> Floats:
        """Return y (n,)."""
        state = fitted.state["space"]
        weights = np.array(list(fitted.parameters.values()))
        x = self._coordinates(Space.from_state(state) if state else None, points)[:, : len(weights) - 2]
        y: Floats = sigmoid(weights[None], x[None])[0]
        return y

    def example(self) -> pd.DataFrame:
        """Return 40 models on a line in score space, with y a sigmoid of their position."""
        import pandas as pd

        rng = np.random.default_rng(0)
        strength = rng.uniform(-1, 1, size=40)
        scores = 0.5 + np.outer(strength, np.linspace(0.1, 0.3, len(self.features)))
        points = pd.DataFrame(scores, columns=list(self.features))
        return points.assign(y=logistic(4 * strength - 1))

    @property
    def _count(self) -> int | None:
        return self.components if isinstance(self.components, int) else None

    def _check(self, points: pd.DataFrame, value: str) -> None:
        from harness.points import readable

        if not self.features:
            numeric = [str(name) for name in points.select_dtypes("number").columns if name != value]
            raise LawError(
                f"law {self.name!r} needs --option benchmarks=NAME,NAME..; numeric columns: {', '.join(numeric)}"
            )
        if value in self.features:
            raise LawError(f"{value} is both the predicted value and a benchmark; remove it from the benchmarks")
        bad = [n for n in (*self.features, value) if n not in COUNTED and _outside(readable(points, n))]
        if bad:
            raise LawError(f"{', '.join(bad)}: expected scores from 0 to 1; divide percentages by 100")

    def _space(self, points: pd.DataFrame) -> Space | None:
        return None if self.measure != "components" else Space.of(self._scores(points))

    def _scores(self, points: pd.DataFrame) -> Floats:
        from harness.points import readable

        scores: Floats = np.column_stack([readable(points, name) for name in self.features])
        return scores

    def _coordinates(self, space: Space | None, points: pd.DataFrame) -> Floats:
        """Return the arguments of the sigmoid, (n, K)."""
        from harness.points import column

        if space is None:
            away: Floats = np.log10(column(points, self.measure))[:, None] - CENTRES[self.measure]
            return away
        coordinates: Floats = space.coordinates(self._scores(points))
        return coordinates

    def _choose(self, points: pd.DataFrame, value: str) -> tuple[int, tuple[str, ...]]:
        """Choose the number of components by cross-validation over the ladder; each fold has its own space.

        Models are sorted by their first component, and fold i takes every tenth from number i on. Thus every fold has
        weak and strong models. Weak models alone could not decide if only strong models solve the task.
        """
        from harness.points import column

        scored = points[value].notna().to_numpy()
        y, scores, others = column(points[scored], value), self._scores(points[scored]), self._scores(points[~scored])
        fold = np.argsort(np.argsort(Space.of(scores).coordinates(scores)[:, 0], kind="stable")) % FOLDS
        x, values, held = [], [], []
        for i in range(min(FOLDS, len(y))):
            space = Space.of(np.vstack([scores[fold != i], others]))
            near, away = space.coordinates(scores[fold != i]), space.coordinates(scores[fold == i])
            for k in range(1, near.shape[1] + 1):
                x.append(near[:, :k])
                values.append(y[fold != i])
                held.append((k, away[:, :k], y[fold == i]))
        squares = np.zeros(max(k for k, _, _ in held))
        for weights, (k, away, truth) in zip(fit_sigmoids(x, values), held, strict=True):
            squares[k - 1] += ((sigmoid(weights[None], away[None])[0] - truth) ** 2).sum()
        return _best_count(squares / len(y), _of_constant(y, fold))


def _of_constant(y: Floats, fold: Ints) -> float:
    """Return the mean squared error of predicting each value (n,) by the mean of the other folds."""
    means = np.array([y[fold != i].mean() for i in fold])
    return float(((means - y) ** 2).mean())


def _best_count(errors: Floats, constant: float) -> tuple[int, tuple[str, ...]]:
    """Return the number of components with the smallest error, given errors (K,), and warnings about the choice."""
    chosen = int(np.argmin(errors)) + 1
    table = ", ".join(f"{k}: {error:.3g}" for k, error in enumerate(errors, 1))
    r2 = 1 - float(errors.min()) / constant if constant else float("nan")
    about = f"cross-validated squared error {table}; of a constant {constant:.3g}; R2 on the rows left out {r2:.3g}"
    notes = [f"{chosen} components, chosen on the ladder ({about})"]
    if not r2 >= 0:
        notes.append("the components predict left-out rows no better than a constant (R2 < 0); do not rely on this fit")
    return chosen, tuple(notes)


COUNTED = {"flops", "params"}
CENTRES = {"flops": 21.0, "params": 9.0}  # log10; subtracted so that intercept and weight are not correlated


def _outside(values: Any) -> bool:
    known = values[np.isfinite(values)] if values.dtype.kind == "f" else np.array([np.inf])
    return bool(len(known) and (known.min() < 0 or known.max() > 1))


def _named(weights: Floats) -> dict[str, float]:
    return {**{f"w{k}": float(w) for k, w in enumerate(weights[:-1])}, "c": float(weights[-1])}


def sigmoid(weights: Floats, x: Floats) -> Floats:
    """Return c + (1 - c) sigma(w0 + w x), (R, n), for weights (R, K + 2) that end with c and coordinates (R, n, K)."""
    c = weights[:, -1:]
    y: Floats = c + (1 - c) * logistic(weights[:, :1] + np.einsum("rnk,rk->rn", x, weights[:, 1:-1]))
    return y


def fit_sigmoids(coordinates: Sequence[Floats], values: Sequence[Floats]) -> list[Floats]:
    """Fit many sigmoids at once, by least squares from the published start: w = 0.03, w0 = 0, c = 0.

    :param coordinates: one array (n, K) per problem; n and K may differ between problems.
    :param values: one array (n,) per problem.

    Returns the weights (K + 2,) of each problem: w0, w1 .. wK, c.
    """
    rows, most = max(map(len, values)), max(x.shape[1] for x in coordinates)
    x, y, weight = np.zeros((len(values), rows, most)), np.zeros((len(values), rows)), np.zeros((len(values), rows))
    for i, (inputs, target) in enumerate(zip(coordinates, values, strict=True)):
        x[i, : len(target), : inputs.shape[1]], y[i, : len(target)], weight[i, : len(target)] = inputs, target, 1.0

    def residuals(weights: Floats, which: Ints) -> Floats:
        return sigmoid(weights, x[which]) - y[which]

    bound = np.full(most + 2, STEEP)
    lower, upper = np.append(-bound[:-1], 0.0), np.append(bound[:-1], CEILING)
    start = np.concatenate([[0.0], np.full(most, 0.03), [0.0]])
    solved = minimise(Problem(residuals, lower, upper, y, weight), np.tile(start, (len(values), 1)), EFFORT).params
    return [np.append(w[: inputs.shape[1] + 1], w[-1]) for w, inputs in zip(solved, coordinates, strict=True)]


@harness.hookimpl
def register_laws(register: harness.Register) -> None:
    """Register the law."""
    register(Observational())
