"""The best split of a budget against the solution in closed form, and where there is none."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from harness import LawError
from harness.cli import main
from harness.fitting.fit import fit
from harness.fitting.result import save_fits
from harness.host import PluginHost

N, D = (x.ravel() for x in np.meshgrid(np.geomspace(1e8, 1e10, 6), np.geomspace(1e9, 1e11, 6)))


def points(noise=0.003) -> pd.DataFrame:
    loss = 1.8 + 480 * N**-0.35 + 2100 * D**-0.37
    return pd.DataFrame(
        {"params": N, "tokens": D, "loss": loss * np.exp(np.random.default_rng(0).normal(scale=noise, size=len(N)))}
    )


def closed_form(p, flops):
    """Hoffmann et al. 2022, eq. 4."""
    ratio = p["alpha"] * np.exp(p["a"]) / (p["beta"] * np.exp(p["b"]))
    total = p["alpha"] + p["beta"]
    return ratio ** (1 / total) * (flops / 6) ** (p["beta"] / total)


def test_the_search_finds_the_closed_form_for_every_resample(host: PluginHost):
    fitted = fit(points(), "chinchilla", value="loss", registries=host, bootstrap=100, objective="log_least_squares")
    budgets = [1e20, 5.76e23]
    rows = fitted.optimal(budgets)
    for (_, row), flops in zip(rows.iterrows(), budgets, strict=True):
        assert row["params"] == pytest.approx(closed_form(fitted.steps[0].parameters, flops), rel=1e-5)
        assert 6 * row["params"] * row["tokens"] == pytest.approx(flops)
        draws = dict(zip(fitted.steps[0].parameters, fitted.steps[0].draws.T, strict=True))
        low, high = np.quantile(closed_form(draws, flops), [0.05, 0.95])
        assert [row["params_low"], row["params_high"]] == pytest.approx([low, high], rel=1e-4)
        assert row["tokens_low"] < row["tokens"] < row["tokens_high"]
        at_best = fitted.predict(params=[row["params"]], tokens=[row["tokens"]]).iloc[0]
        assert row["value"] == at_best["value"]


@pytest.mark.parametrize("law", ["over_trained", "kaplan", "farseer"])
def test_every_law_in_params_and_tokens_has_an_optimum(host: PluginHost, law):
    """No other split of the budget has a lower loss."""
    fitted = fit(points(), law, value="loss", registries=host, bootstrap=20)
    (row,) = fitted.optimal(1e21).to_dict("records")
    around = row["params"] * np.array([0.9, 1.1])
    assert (fitted.curve({"params": around, "tokens": 1e21 / 6 / around}) > row["value"]).all()


def test_what_has_no_best_split_is_an_error(host: PluginHost):
    power = fit(points().assign(flops=6 * N * D), "power", value="loss", registries=host, bootstrap=20)
    with pytest.raises(LawError, match="law 'power' is a function of flops; an optimal allocation needs"):
        power.optimal(1e21)
    tokens_only = points(0).assign(loss=1.8 + 2100 * D**-0.37)
    flat = fit(tokens_only, "chinchilla", value="loss", registries=host, bootstrap=20, objective="log_least_squares")
    with pytest.raises(LawError, match="has no minimum of the loss at 1e\\+21 FLOPs"):
        flat.optimal(1e21)


def test_the_command_prints_it(host: PluginHost, tmp_path):
    save_fits([fit(points(), "chinchilla", value="loss", registries=host, bootstrap=50)], tmp_path / "fit.json")
    command = ["predict", str(tmp_path / "fit.json"), "--optimal", "--format", "json"]
    done = CliRunner().invoke(main, [*command, "--flops", "1e21"])
    (row,) = json.loads(done.stdout)["optimum"]["rows"]
    assert row["params low"] < row["params"] < row["params high"]
    assert CliRunner().invoke(main, [*command, "--params", "1e9"]).exit_code == 2
