"""A hierarchical law: one line of skill per family, partially pooled over families."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

import harness
from harness import Fitted, Floats, Ints, LawError, UsageError
from harness_plugins.laws.task import logistic

if TYPE_CHECKING:
    import pandas as pd

SCALES = ("logit", "identity")
NEAREST = 0.005  # scores are clipped to this distance from floor and 1, where the logit is infinite
RATIOS = np.geomspace(0.02, 50, 15)  # grid of the families' standard deviations, in units of the residual one
CORRELATIONS = np.array([-0.8, -0.4, 0.0, 0.4, 0.8])
PRIOR = 5.0  # scale of the half-Cauchy prior of the ratios


@dataclass(frozen=True)
class FamilySkill:
    """z = alpha + a_f + (beta + b_f) (log10 C - x0), z = logit((y - floor) / (1 - floor)): one line per family.

    The deviations (a_f, b_f) of families are normal with standard deviations sd_a and sd_b (partial pooling; Gelman and
    Hill 2007, ch. 13). The line of a family with few models is drawn towards the common line; the line of a family
    with many models depends mostly on its own data. A new family is predicted from the common line, with the variation
    between families in its interval. Alpha, beta and sigma have flat priors and are integrated out. sd_a / sigma and
    sd_b / sigma have half-Cauchy priors of scale 5 and are averaged over a grid. Draws come from the posterior. Needs
    one row per model (its last checkpoint) and at least five models of at least two families. Scores at chance violate
    the model: set `floor`, and leave such models out.
    """

    scale: str = "logit"
    floor: float = 0.0

    name = "family_skill"
    avoid = "for tasks that jump within a family, and before a back-test on similar tables"
    features = ("flops", "family")
    parameters = ("alpha", "beta", "sd_a", "sd_b", "sigma")
    pools = True
    options = {
        "scale": "logit for scores from floor to 1; identity for values linear in log10 C",
        "floor": "chance level, the lowest possible score",
    }

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise UsageError(f"scale={self.scale!r}: expected one of {', '.join(SCALES)}")
        if not 0 <= self.floor < 1:
            raise UsageError(f"floor={self.floor}: expected the chance level, at least 0 and below 1")

    @property
    def value_range(self) -> tuple[float, float]:
        """Return the lowest and highest possible value."""
        return (0.0, 1.0) if self.scale == "logit" else (-np.inf, np.inf)

    def fit(self, points: pd.DataFrame, value: str, rng: np.random.Generator) -> Fitted:  # noqa: ARG002  # nothing is drawn
        """Return the posterior mean."""
        model = self._model(points, value)
        common, sigma, spread, families = model.mean()
        from harness.points import runs_of

        notes = []
        if runs_of(points).count < len(points):
            notes.append("several checkpoints of one run are treated as independent; keep only the last one per run")
        if len(model.names) < 5:
            notes.append(f"only {len(model.names)} families: the variation between families is poorly determined")
        return _fitted(model, common, sigma, spread, families, tuple(notes))

    def resamples(
        self,
        points: pd.DataFrame,
        value: str,
        fitted: Fitted,  # noqa: ARG002  # the contract of procedures
        rng: np.random.Generator,
    ) -> Iterator[Fitted]:
        """Yield draws from the posterior."""
        model = self._model(points, value)
        while True:
            yield _fitted(model, *model.draw(rng))

    def predict(self, fitted: Fitted, points: pd.DataFrame) -> Floats:
        """Return y (n,); new families are predicted from the common line."""
        return self._back(self._z(fitted, points, {}))

    def sample(self, fitted: Fitted, points: pd.DataFrame, rng: np.random.Generator) -> Floats:
        """Return a draw of measured values (n,), with the variation between new families and the residual scatter."""
        spread = np.asarray(fitted.state["spread"])
        new = sorted(set(points["family"].astype(str)) - set(fitted.state["families"]))
        drawn = {name: rng.multivariate_normal(np.zeros(2), spread, method="eigh") for name in new}
        noise = fitted.parameters["sigma"] * rng.normal(size=len(points))
        return self._back(self._z(fitted, points, drawn) + noise)

    def _z(self, fitted: Fitted, points: pd.DataFrame, new: Mapping[str, Floats]) -> Floats:
        from harness.points import column

        p, known = fitted.parameters, {**fitted.state["families"], **new}
        deviations = np.array([known.get(str(name), (0.0, 0.0)) for name in points["family"]])
        x = np.log10(column(points, "flops")) - fitted.state["x0"]
        z: Floats = p["alpha"] + deviations[:, 0] + (p["beta"] + deviations[:, 1]) * x
        return z

    def _back(self, z: Floats) -> Floats:
        return z if self.scale == "identity" else self.floor + (1 - self.floor) * np.asarray(logistic(z))

    def _model(self, points: pd.DataFrame, value: str) -> Model:
        from harness.points import column

        if "family" not in points.columns:
            raise LawError(f"law {self.name!r} needs a column family")
        y, x = column(points, value), np.log10(column(points, "flops"))
        names, number = np.unique(points["family"].astype(str), return_inverse=True)
        if len(names) < 2 or len(y) < 5 or np.bincount(number).max() < 2:
            raise LawError(
                f"law {self.name!r} needs at least two families, five models, and two models in one family; found "
                f"{len(y)} models of {len(names)} families, at most {np.bincount(number).max()} in one"
            )
        return Model.of(x, self._forward(y, value), number, tuple(map(str, names)))

    def _forward(self, y: Floats, value: str) -> Floats:
        if self.scale == "identity":
            return y
        if y.min() < 0 or y.max() > 1:
            raise LawError(
                f"{value}: expected scores from 0 to 1, found {y.min():.4g} to {y.max():.4g}; or scale=identity"
            )
        share = np.clip((y - self.floor) / (1 - self.floor), NEAREST, 1 - NEAREST)
        return np.asarray(np.log(share / (1 - share)))

    def example(self) -> pd.DataFrame:
        """Return three families of five models, each family on its own line."""
        import pandas as pd

        rows = [
            (f"f{f}", 10.0 ** (20 + i / 2), float(logistic(np.array(-1 + 0.5 * f + (0.8 + 0.1 * f) * (i / 2 - 1)))))
            for f in range(3)
            for i in range(5)
        ]
        return pd.DataFrame(rows, columns=["family", "flops", "y"])


def _fitted(
    model: Model, common: Floats, sigma: float, spread: Floats, families: Floats, notes: tuple[str, ...] = ()
) -> Fitted:
    sd = np.sqrt(np.diag(spread))
    parameters = {"alpha": common[0], "beta": common[1], "sd_a": sd[0], "sd_b": sd[1], "sigma": sigma}
    state = {"x0": model.x0, "spread": spread, "families": dict(zip(model.names, families.tolist(), strict=True))}
    return Fitted({name: float(v) for name, v in parameters.items()}, state, notes, free=2)


@dataclass(frozen=True)
class Model:
    """Posterior of F family lines, on a grid of M covariances between families (in units of the residual variance).

    `weight` (M,) is the posterior of the grid. Given a covariance, `common` (M, 2) and `covariance` (M, 2, 2) are mean
    and covariance of the common line, `shrink` (M, F, 2, 2) the covariance of each family's deviation, and `squares`
    (M,) the residual sum of squares.
    """

    names: tuple[str, ...]
    x0: float
    n: int
    grid: Floats
    moments: Floats
    products: Floats
    shrink: Floats
    weight: Floats
    common: Floats
    covariance: Floats
    squares: Floats

    @classmethod
    def of(cls, x: Floats, z: Floats, number: Ints, names: tuple[str, ...]) -> Model:
        """Integrate out lines and residual variance at every covariance of the grid (Gelman et al. 2013, sec. 15)."""
        x0 = float(x.mean())
        design = np.column_stack([np.ones_like(x), x - x0])
        moments = np.array([design[number == f].T @ design[number == f] for f in range(len(names))])  # (F, 2, 2)
        products = np.array([design[number == f].T @ z[number == f] for f in range(len(names))])  # (F, 2)
        grid, prior = _grid(max(float(x.std()), 1e-6))
        shrink = np.linalg.inv(np.linalg.inv(grid)[:, None] + moments)  # (M, F, 2, 2)
        within = moments - moments @ shrink @ moments  # X' V^-1 X of each family
        cross = products - np.einsum("fij,mfjk,fk->mfi", moments, shrink, products)
        total, right = within.sum(1), cross.sum(1)
        covariance = np.linalg.inv(total)
        common = np.einsum("mij,mj->mi", covariance, right)
        left = float(z @ z) - np.einsum("fi,mfij,fj->m", products, shrink, products)
        squares = np.maximum(left - np.einsum("mi,mi->m", right, common), 1e-12 * float(z @ z) + 1e-300)
        log_v = np.linalg.slogdet(np.eye(2) + grid[:, None] @ moments)[1].sum(1)
        log_posterior = prior - (log_v + np.linalg.slogdet(total)[1] + (len(z) - 2) * np.log(squares)) / 2
        weight = np.exp(log_posterior - log_posterior.max())
        return cls(
            names, x0, len(z), grid, moments, products, shrink, weight / weight.sum(), common, covariance, squares
        )

    def draw(self, rng: np.random.Generator) -> tuple[Floats, float, Floats, Floats]:
        """Draw common line (2,), residual standard deviation, covariance (2, 2) and deviations (F, 2) of families."""
        m = int(rng.choice(len(self.weight), p=self.weight))
        sigma = float(np.sqrt(self.squares[m] / rng.chisquare(self.n - 2)))
        common = self.common[m] + sigma * np.linalg.cholesky(self.covariance[m]) @ rng.normal(size=2)
        normal = rng.normal(size=(len(self.names), 2, 1))
        deviations = self._lines(m, common) + sigma * (np.linalg.cholesky(self.shrink[m]) @ normal)[:, :, 0]
        return common, sigma, sigma**2 * self.grid[m], deviations

    def mean(self) -> tuple[Floats, float, Floats, Floats]:
        """Return the posterior means of the same four quantities."""
        variance = self.squares / max(self.n - 4, 1)
        common = self.weight @ self.common
        spread = np.einsum("m,mij->ij", self.weight * variance, self.grid)
        lines = np.einsum("m,mfi->fi", self.weight, np.array([self._lines(m, c) for m, c in enumerate(self.common)]))
        return common, float(np.sqrt(self.weight @ variance)), spread, lines

    def _lines(self, m: int, common: Floats) -> Floats:
        """Return the expected deviations (F, 2) of families from the common line, given covariance number m."""
        lines: Floats = np.einsum("fij,fj->fi", self.shrink[m], self.products - self.moments @ common)
        return lines


def _grid(spread: float) -> tuple[Floats, Floats]:
    """Return a grid of covariances (M, 2, 2) of intercepts and slopes, and the logarithm of their prior (M,).

    Slopes are per standard deviation `spread` of log10 C.
    """
    a, b, r = (axis.ravel() for axis in np.meshgrid(RATIOS, RATIOS, CORRELATIONS, indexing="ij"))
    covariances = np.array([[a * a, r * a * b / spread], [r * a * b / spread, b * b / spread**2]])
    prior = sum(np.log(x) - np.log1p((x / PRIOR) ** 2) for x in (a, b))  # the grid is uniform in logarithms
    return np.moveaxis(covariances, 2, 0), np.asarray(prior)


@harness.hookimpl
def register_laws(register: harness.Register) -> None:
    """Register the law."""
    register(FamilySkill())
