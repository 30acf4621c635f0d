"""The law `example`: accuracy from training FLOPs."""

import numpy as np

import harness


class Example:
    """y(C) = low + (high - low) / (1 + (c / C)^b): accuracy rises from low to high with compute.

    Say here where the law comes from and when not to use it. The first line is the formula that `harness laws` shows.
    """

    name = "example"
    features = ("flops",)  # columns of the points
    parameters = {"low": (0.0, 1.0), "high": (0.0, 1.0), "log_c": (0.0, 80.0), "b": (0.0, 5.0)}  # bounds
    value_range = (0.0, 1.0)
    example = {"low": 0.25, "high": 0.9, "log_c": 46.0, "b": 0.8}  # typical values, which check_law recovers
    takes = "5 budgets or more on both sides of c; a value from 0 to 1"
    avoid = "if no point is above low"
    source = "ours"

    def guess(self, y, flops):
        """Return starting values: one per parameter, from points (n,)."""
        return {"low": min(y), "high": max(y), "log_c": float(np.log(np.median(flops))), "b": 1.0}

    def formula(self, flops, low, high, log_c, b):
        """Return y (R, n) for FLOPs (n,) and parameters (R, 1): numpy functions only, no float() and no if."""
        return low + (high - low) / (1 + np.exp(-b * (np.log(flops) - log_c)))


@harness.hookimpl
def register_laws(register):
    """Register the law."""
    register(Example())
