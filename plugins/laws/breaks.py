"""Laws whose slope changes with scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import harness
from harness import Floats


@dataclass(frozen=True)
class BrokenPower:
    """y(x) = a + b x^-c0 (1 + (x / d1)^(1 / f1))^(-c1 f1): a power law with one smooth break (Caballero et al. 2023).

    On logarithmic axes, the slope is -c0 before the break at d1 and -(c0 + c1) after it; f1 is the smoothness of the
    break. Least squares of ln(y + 1), as in the paper. Six parameters: needs at least eight points, on both sides of
    the break. The data do not determine a break beyond the points. The law can fit a value that rises and falls again
    (c1 < 0), but it cannot predict the turn. x is `flops`, or the column that --option feature= names.
    """

    feature: str = "flops"

    name = "broken_power"
    avoid = "for fewer than 8 points, or if the break is the last point: one deviating point looks like a break"
    options = {"feature": "column of x (default: flops)"}
    parameters = {
        "a": (0.0, np.inf),
        "log_b": (-np.inf, np.inf),
        "c0": (-2.0, 5.0),
        "c1": (-10.0, 10.0),
        "log_d1": (-np.inf, np.inf),
        "log_f1": (-6.0, 3.0),
    }
    linear = {"a": "linear", "log_b": "log"}
    objective = "log1p_least_squares"
    value_range = (0.0, np.inf)
    example = {"a": 0.3, "log_b": 3.7, "c0": 0.05, "c1": 0.6, "log_d1": 46.0, "log_f1": -1.4}
    takes = "8 points or more on both sides of the break"
    source = "Caballero et al. 2023 (BNSL), one break"

    @property
    def features(self) -> tuple[str, ...]:
        """Return the column of x."""
        return (self.feature,)

    def formula(self, **p: Floats) -> Floats:
        """Return y."""
        x, f1 = np.log(p[self.feature]), np.exp(p["log_f1"])
        turn = np.logaddexp(0.0, (x - p["log_d1"]) / f1)
        return p["a"] + np.exp(p["log_b"] - p["c0"] * x - p["c1"] * f1 * turn)

    def guess(self, y: Floats, **features: Floats) -> dict[str, float]:
        """Fit a line to the logarithms, with a break in the middle that hardly changes the slope."""
        x = np.log(features[self.feature])
        slope, log_b = np.polyfit(x, np.log(np.maximum(y, 1e-9)), 1)
        middle = {"c1": 0.1, "log_d1": float(np.median(x)), "log_f1": -1.0}
        return {"a": 0.5 * float(max(y.min(), 0)), "log_b": float(log_b), "c0": -float(slope), **middle}

    def derived(self, **p: Floats) -> dict[str, Floats]:
        """Return b, d1 and f1."""
        return {"b": np.exp(p["log_b"]), "d1": np.exp(p["log_d1"]), "f1": np.exp(p["log_f1"])}


@harness.hookimpl
def register_laws(register: harness.Register) -> None:
    """Register the law."""
    register(BrokenPower())
