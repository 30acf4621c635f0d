"""IsoFLOP curves: the optimal size at each compute budget, and its growth (approach 2 of Hoffmann et al. 2022)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

import harness
from harness import Fitted, Floats, LawError, UsageError
from harness_plugins.laws.isoflop_curves import APART, FEWEST, GRID, Curve, Minimum, curves, minimum
from harness_plugins.laws.loss import Chinchilla

if TYPE_CHECKING:
    import pandas as pd

FARTHEST = 100.0  # largest ln L that may be a loss
LARGEST = 300.0  # largest ln A: its square is a number of 64 bits, too
CURVES = ("parabola", "akima")


@dataclass(frozen=True)
class IsoFlop:
    """N*(C) = e^n C^a, D*(C) = e^d C^b: the size with the lowest loss at each budget, and its growth with compute.

    Approach 2 of Hoffmann et al. 2022: at each budget a parabola of ln L over ln N has its minimum at N*; ln N* and ln
    D* are then lines in ln C. The loss of any run is predicted as ln L = ln L*(C) + k (ln N - ln N*(C))^2, with
    L*(C) = E + A C^-gamma (no E with fewer than four budgets) and k the median over budgets. Needs at least two budgets
    with at least three sizes each, on both sides of the optimum. Budgets without a minimum are counted and left out.
    Parabolas are biased if curves are not symmetric. A warning reports this bias, measured on the surface of approach 3
    fitted to the same points, at the same sizes and budgets.
    """

    curve: str = "parabola"
    weighted: bool = False
    measure_bias: bool = True

    name = "isoflop"
    avoid = "if budgets have fewer than three sizes around their minimum, or all minima lie at one end"
    features = ("flops", "params")
    parameters = ("a", "n", "b", "d", "E", "A", "gamma", "k")
    objective = "log_least_squares"
    value_range = (0.0, np.inf)
    options = {
        "curve": "parabola, or akima (the lowest point of a spline through the points)",
        "weighted": "true: weight budgets by 1 / variance of ln N* (from the parabola)",
    }

    def __post_init__(self) -> None:
        if self.curve not in CURVES:
            raise UsageError(f"curve={self.curve!r}: expected one of {', '.join(CURVES)}")

    def fit(self, points: pd.DataFrame, value: str, rng: np.random.Generator) -> Fitted:  # noqa: ARG002  # nothing is drawn
        """Find the minima, and fit their growth."""
        budgets = curves(points, value)
        fitted = self._of(budgets)
        if not self.measure_bias:
            return fitted
        notes = (*fitted.notes, *self._varying(budgets), *self._bias(budgets))
        return replace(fitted, notes=notes)

    def _of(self, budgets: Sequence[Curve]) -> Fitted:
        minima = [low for curve in budgets if (low := minimum(curve, self.curve))]
        if len(minima) < 2:
            raise LawError(
                f"law {self.name!r}: {len(minima)} of {len(budgets)} budgets have a minimum between their smallest and "
                "largest size; expected at least two. Add sizes, or assign points to budgets in a column budget"
            )
        n, d, c, loss, k, error = (np.array([getattr(m, x) for m in minima]) for x in Minimum.__annotations__)
        weights = self._weights(error)
        (a, log_n), (b, log_d) = (np.polyfit(c, x, 1, w=weights) for x in (n, d))
        parameters = {"a": a, "n": log_n, "b": b, "d": log_d, **_frontier(c, loss), "k": float(np.median(k))}
        lost = len(budgets) - len(minima)
        about = f"{lost} of {len(budgets)} budgets have no minimum between their sizes and are left out"
        notes = (about,) if lost else ()
        return Fitted({name: float(x) for name, x in parameters.items()}, {}, notes)

    def _weights(self, error: Floats) -> Floats | None:
        if not self.weighted:
            return None
        if not (error > 0).all():
            raise LawError(
                f"law {self.name!r}: weighted=true needs at least four sizes per budget for a standard error"
            )
        return np.asarray(1 / error)

    def example(self) -> pd.DataFrame:
        """Return five budgets of seven sizes each, on parabolas."""
        import pandas as pd

        c, off = (x.ravel() for x in np.meshgrid(np.log(np.geomspace(1e18, 1e20, 5)), np.linspace(-1, 1, 7)))
        n = 0.5 * c - 4 + off + 0.1
        loss = (1.8 + np.exp(8 - 0.2 * c)) * np.exp(0.05 * (off + 0.1) ** 2)
        return pd.DataFrame({"flops": np.exp(c), "params": np.exp(n), "y": loss})

    def predict(self, fitted: Fitted, points: pd.DataFrame) -> Floats:
        """Return the loss (n,) of runs, from their size and budget."""
        from harness.points import column

        p, c = fitted.parameters, np.log(column(points, "flops"))
        off = np.log(column(points, "params")) - (p["n"] + p["a"] * c)
        with np.errstate(over="ignore"):
            return np.asarray((p["E"] + p["A"] * np.exp(-p["gamma"] * c)) * np.exp(p["k"] * off**2))

    def optimal(self, fitted: Fitted, flops: float) -> dict[str, float]:
        """Return N* and D* at a budget."""
        p, c = fitted.parameters, float(np.log(flops))
        return {"params": float(np.exp(p["n"] + p["a"] * c)), "tokens": float(np.exp(p["d"] + p["b"] * c))}

    def resamples(
        self,
        points: pd.DataFrame,
        value: str,
        fitted: Fitted,  # noqa: ARG002  # the contract of procedures
        rng: np.random.Generator,
    ) -> Iterator[Fitted | None]:
        """Yield fits to curves with added noise, whose size is the scatter of the points around their parabolas.

        Five to fifteen points per budget are too few for drawing with replacement: many such draws have no minimum.
        """
        budgets = [curve for curve in curves(points, value) if len(set(curve.n)) >= FEWEST]
        fits = [curve.parabola() for curve in budgets]
        free = sum(len(curve.n) - 3 for curve in budgets)
        scatter = np.sqrt(sum(squares for _, squares in fits) / free) if free else np.nan
        smooth = [
            replace(curve, loss=np.polyval(p, curve.n - curve.n.mean())) if self.curve == "parabola" else curve
            for curve, (p, _) in zip(budgets, fits, strict=True)
        ]
        while True:
            spread = scatter * np.sqrt(free / rng.chisquare(free)) if free else np.nan
            noisy = [replace(curve, loss=curve.loss + spread * rng.normal(size=len(curve.n))) for curve in smooth]
            try:
                yield self._of(noisy) if free else None
            except LawError:
                yield None

    def _varying(self, budgets: Sequence[Curve]) -> Iterator[str]:
        spread = max(float(np.ptp(curve.c)) for curve in budgets)
        if spread > APART:
            yield f"compute varies by {np.expm1(spread):.0%} within a budget, so its curve is not at equal compute"

    def _bias(self, budgets: Sequence[Curve]) -> Iterator[str]:
        """Measure the bias of the exponent on approach 3's surface, at the same sizes and budgets, without noise."""
        try:
            surface = _surface(budgets)
        except LawError:  # too few points for its five parameters
            return
        pairs = [
            (low, _lowest(surface, curve))
            for curve in budgets
            if (low := minimum(replace(curve, loss=surface(curve.n, curve.d)), self.curve))
        ]
        if len(pairs) < 2:
            return
        c, estimate, best = (np.array(x) for x in zip(*((low.c, low.n, n) for low, n in pairs), strict=True))
        a, truth = (float(np.polyfit(c, n, 1)[0]) for n in (estimate, best))
        factor = float(np.exp(estimate - best)[-1])
        yield (
            "bias measured on the surface of approach 3 fitted to these points: the same curves give "
            f"a = {a:.4f} instead of {truth:.4f}, a bias of {a - truth:+.4f}, and N* of the largest budget is "
            f"{factor:.3g} times the true value"
        )


def _surface(budgets: Sequence[Curve]) -> Callable[[Floats, Floats], Floats]:
    """Fit approach 3 to the points of all curves; return ln L as a function of ln N and ln D."""
    import pandas as pd

    columns = {"params": "n", "tokens": "d", "loss": "loss"}
    table = pd.DataFrame({k: np.exp(np.concatenate([getattr(c, x) for c in budgets])) for k, x in columns.items()})
    fitted = harness.fit(table, Chinchilla(), value="loss", bootstrap=2, resample="checkpoints")
    return lambda n, d: np.log(fitted.curve({"params": np.exp(n), "tokens": np.exp(d)}))


def _lowest(surface: Callable[[Floats, Floats], Floats], curve: Curve) -> float:
    """Return ln N at the minimum of a surface along the line of ln D over ln N through a curve's points."""
    n = np.linspace(curve.n.min() - 1, curve.n.max() + 1, GRID)
    d = curve.along(curve.d, 0.0) + n * (curve.along(curve.d, 1.0) - curve.along(curve.d, 0.0))
    return float(n[np.argmin(surface(n, d))])


def _frontier(c: Floats, loss: Floats) -> dict[str, float]:
    """Fit L* = E + A C^-gamma to ln L* at ln C, (B,) each; without E for fewer than four budgets.

    For a given gamma, E and A follow by least squares; gamma is searched in (0, 2). Raises LawError for losses so far
    from 1 that they are not numbers, as curves with noise of hardly any degree of freedom have.
    """
    slope, level = np.polyfit(c, loss, 1)
    if (np.abs(loss) > FARTHEST).any() or abs(level) > LARGEST:
        raise LawError(f"isoflop: the lowest losses are exp({loss.min():.3g}) to exp({loss.max():.3g}), not numbers")
    if len(c) <= FEWEST:
        return {"E": 0.0, "A": float(np.exp(level)), "gamma": float(-slope)}
    from scipy.optimize import minimize_scalar, nnls

    y, middle = np.exp(loss), float(c.mean())

    def solve(gamma: float) -> tuple[Floats, float]:
        design = np.column_stack([np.ones_like(c), np.exp(-gamma * (c - middle))]) / y[:, None]  # relative errors
        return nnls(design, np.ones_like(c))

    gamma = float(minimize_scalar(lambda g: solve(g)[1], bounds=(1e-3, 2.0), method="bounded").x)
    (E, A), _ = solve(gamma)
    return {"E": float(E), "A": float(A * np.exp(gamma * middle)), "gamma": gamma}


@harness.hookimpl
def register_laws(register: harness.Register) -> None:
    """Register the law."""
    register(IsoFlop())
