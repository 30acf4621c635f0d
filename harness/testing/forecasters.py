"""The contract of forecasters, tested on several ladders; part of `harness.testing`."""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.fitting.forecast_models import Forecaster
from harness.fitting.forecast_runs import drawn_by
from harness.fitting.rungs import Batch, ForecastLadder, read_ladders
from harness.host.registrars import expect_forecaster
from harness.testing.findings import collected


def check_forecaster(forecaster: Forecaster) -> None:
    """Check a forecaster: draws have the right shape, lie within 0 and 1, and are the same for the same seed.

    It must accept one or several ladders, of three or more sizes, with FLOPs alone, and with or without a task loss. It
    must not modify the ladders.
    """
    with collected(f"forecaster {getattr(forecaster, 'name', forecaster)!r}") as findings:
        findings.vital(expect_forecaster, forecaster)
        ladders = _ladders()
        before = [ladder.value.copy() for ladder in ladders]
        findings.run(_check_draws, forecaster, Batch.of([ladders[0]], ladders))
        findings.run(_check_draws, forecaster, Batch.of(ladders, ladders))
        is_unchanged = all(np.array_equal(ladder.value, values) for ladder, values in zip(ladders, before, strict=True))
        findings.expect(is_unchanged, f"{forecaster.name} modifies its input ladders")


def _check_draws(forecaster: Forecaster, batch: Batch) -> None:
    first, again = (drawn_by(forecaster, batch, np.random.default_rng(0)).values for _ in range(2))
    is_repeatable = np.array_equal(first, again, equal_nan=True)
    assert is_repeatable, f"{forecaster.name}: the same seed gives different draws; draw from rng only"
    partly = np.isfinite(first).any(axis=1) & ~np.isfinite(first).all(axis=1)
    unpadded = np.isfinite(batch.targets("flops")) | np.isfinite(batch.targets("params"))
    assert not (partly & unpadded).any(), f"{forecaster.name}: some draws of a target are NaN; expected all or none"


def _ladders() -> list[ForecastLadder]:
    """Return test ladders: rising, at chance, with a task loss, with FLOPs alone; some have two targets."""
    params = 1e8 * 2.0 ** np.arange(6)
    known = pd.DataFrame({"params": params, "tokens": 20 * params, "flops": 120 * params**2, "acc_n": 400.0})
    rising = known.assign(task="rising", acc=[0.3, 0.35, 0.45, 0.6, 0.7, 0.8], chance=0.25, bpb=params**-0.1)
    chance = known.assign(task="chance", acc=[0.25, 0.26, 0.24, 0.25, 0.26, 0.25], chance=0.25)
    compute = rising.drop(columns=["params", "tokens", "bpb", "chance"]).assign(task="compute")
    read = [read_ladders(frame, "acc", via)[0] for frame, via in ((rising, "bpb"), (chance, None), (compute, None))]
    return [ladder.cut(k) for ladder in read for k in (3, 5)]
