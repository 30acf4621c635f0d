"""Areas under learning rates, and loss curves that are fitted from them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from harness import LawError
from harness.fitting.fit import fit
from harness.host import PluginHost
from harness_plugins.laws.recipes import areas


def curve(peak: float, **columns) -> pd.DataFrame:
    """Return 4,000 steps: warm-up, constant, linear decay over the last quarter."""
    step = np.arange(4000)
    rate = peak * np.minimum(np.minimum((step + 1) / 100, 1.0), (4000 - step) / 1000)
    return pd.DataFrame({"step": step, "learning_rate": rate, **columns})


def test_areas_are_those_of_the_definition():
    """The second sum written out: what the rate fell by, k steps ago, counts lambda^k."""
    run = curve(1e-2).head(60).assign(learning_rate=lambda t: np.minimum((t["step"] + 1) / 10, (60 - t["step"]) / 50))
    eta = run["learning_rate"].to_numpy()
    peak = int(np.argmax(eta))
    s2 = [
        sum((eta[k - 1] - eta[k]) * 0.9 ** (i - k) for i in range(peak + 1, s + 1) for k in range(peak + 1, i + 1))
        for s in range(60)
    ]
    computed = areas(run, memory=0.9)
    assert computed["s1"].to_numpy() == pytest.approx(np.cumsum(eta))
    assert computed["s2"].to_numpy() == pytest.approx(s2)


def test_rows_that_are_missing_between_are_interpolated():
    every, some = areas(curve(1e-2)), areas(curve(1e-2).iloc[[0, 99, *range(100, 4000, 50), 3999]])
    assert some["s1"].iloc[-1] == pytest.approx(every["s1"].iloc[-1], rel=1e-3)
    assert some["s2"].iloc[-1] == pytest.approx(every["s2"].iloc[-1], rel=1e-2)


def test_one_schedule_is_fitted_and_another_held_out(host: PluginHost):
    """Areas are summed run by run, before the rows of the warm-up are left out."""
    both = pd.concat([curve(3e-4, size="low"), curve(1e-3, size="high")], ignore_index=True)
    known = areas(both)
    both["loss"] = 2.6 + 0.4 * known["s1"] ** -0.5 - 0.3 * known["s2"]
    thin = both[(both["step"] < 100) | (both["step"] % 20 == 0) | (both["step"] > 2990)]
    arguments = {"value": "loss", "where": "step >= 200", "hold_out": "size == 'high'", "bootstrap": 10}
    fitted = fit(thin, "lr_annealing", registries=host, resample="checkpoints", **arguments)
    assert fitted.steps[0].parameters == pytest.approx({"L0": 2.6, "A": 0.4, "alpha": 0.5, "C": 0.3}, rel=1e-2)
    assert max(abs(row["error"]) for row in fitted.hold_out) < 1e-3


def test_shapes_of_one_size_differ(host: PluginHost):
    """Width and depth at equal parameters: what chinchilla calls scatter, width_depth predicts for a larger model."""
    rng = np.random.default_rng(0)
    shapes = pd.DataFrame([(w, d, t) for w in (256, 512, 1024) for d in (4, 8, 16) for t in (1e9, 4e9, 16e9)])
    points = shapes.set_axis(["width", "depth", "tokens"], axis=1).astype(float)
    points["params"] = 12 * points["depth"] * points["width"] ** 2
    truth = {"E": 1.8, "a": 2.5, "alpha": 0.5, "b": 0.3, "beta": 0.8, "c": 7.7, "gamma": 0.37}
    law = host.laws["width_depth"]
    points["loss"] = law.formula(points["width"], points["depth"], points["tokens"], **truth)
    points["loss"] *= np.exp(rng.normal(scale=1e-3, size=len(points)))
    arguments = {"value": "loss", "hold_out": "width == 1024 and depth == 16", "bootstrap": 20, "registries": host}
    errors = [
        max(abs(row["relative_error"]) for row in fit(points, name, resample="checkpoints", **arguments).hold_out)
        for name in ("width_depth", "chinchilla")
    ]
    assert errors[0] < 0.005 < errors[1]


def test_a_schedule_without_rates_is_an_error(host: PluginHost):
    points = curve(1e-2, loss=2.0).drop(columns="learning_rate")
    with pytest.raises(LawError, match="need the columns step and learning_rate; missing: learning_rate"):
        fit(points, "lr_annealing", value="loss", registries=host)
