"""The contract of laws; part of `harness.testing`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from harness.fitting.laws import bounds, curve
from harness.fitting.procedures import ProcedureFit
from harness.host.origins import describe
from harness.host.registrars import expect_law
from harness.testing.findings import Findings, collected, expect_call
from harness.types import Floats
from harness.types.laws import ComposedLaw, Fitted, FormulaLaw, Law, ProcedureLaw, traits

if TYPE_CHECKING:
    import pandas as pd


DOMAINS = {
    "flops": np.geomspace(1e18, 1e22, 12),
    "params": np.geomspace(1e7, 1e10, 12),
    "tokens": np.geomspace(1e9, 1e12, 12)[[3, 1, 7, 0, 9, 5, 11, 2, 8, 4, 10, 6]],
    "loss": np.linspace(0.1, 4.0, 12),
}


def check_law(
    law: Law,
    *,
    params: Mapping[str, float] | None = None,
    features: Mapping[str, Floats | Sequence[float]] | None = None,
    points: pd.DataFrame | None = None,
) -> None:
    """Check a law: its formula broadcasts, and its guess lies within the bounds. Without noise, a fit recovers the
    curve for three seeds, orders of points and in other units. With noise, its intervals cover the true curve.

    `params` are typical parameters (default: `law.example`), `features` the points at which to test the law. For a
    procedure, `points` is a table whose column y the law reproduces (default: `law.example()`). For a two-step law,
    each step is checked. Raises an AssertionError that lists all failures.
    """
    with collected(f"law {getattr(law, 'name', law)!r}") as findings:
        findings.vital(expect_law, law)
        if isinstance(law, ComposedLaw):
            for step in law.steps:
                findings.run(check_law, step)
        elif isinstance(law, ProcedureLaw):
            _check_procedure(law, points, findings)
        else:
            _check_formula(law, params, features, findings)


def _check_formula(
    law: FormulaLaw,
    params: Mapping[str, float] | None,
    features: Mapping[str, Floats | Sequence[float]] | None,
    findings: Findings,
) -> None:
    from harness.fitting.simulations import places

    truth: Mapping[str, float] = findings.vital(_truth, law, params)
    x = {k: np.asarray((features or DOMAINS).get(k, np.linspace(0.5, 5, 12)), dtype=np.float64) for k in law.features}
    values = np.array([[truth[name] for name in law.parameters]])
    findings.vital(expect_call, law.formula, **dict.fromkeys([*law.features, *law.parameters]))
    findings.vital(expect_call, law.guess, **dict.fromkeys(["y", *law.features]))
    y: Floats = findings.vital(_values, law, values, x)
    findings.run(_check_broadcast, law, np.vstack([values] * 3), x, y)
    findings.run(_check_bounds, law, values)
    findings.run(_check_parameters, law, values, x)
    findings.vital(_check_guess, law, x, y)
    for seed in range(3):
        findings.vital(_check_recovery, law, x, y, seed)
    findings.run(_check_units, law, x, y)
    spread = places(law, 48) if features is None else {k: np.tile(v, 4) for k, v in x.items()}
    findings.run(_check_intervals, law, truth, spread)


def _truth(law: FormulaLaw, params: Mapping[str, float] | None) -> Mapping[str, float]:
    truth = params or traits(law).example
    assert isinstance(truth, Mapping), f"law {law.name!r}: give params=, or the law an attribute `example`"
    assert set(truth) == set(law.parameters), (
        f"law {law.name!r}: found the parameters {set(truth)}; expected {set(law.parameters)}"
    )
    return truth


def _values(law: FormulaLaw, values: Floats, x: Mapping[str, Floats]) -> Floats:
    n = len(next(iter(x.values())))
    first = {name: float(value) for name, value in zip(law.parameters, values[0], strict=True)}
    try:
        returned = law.formula(**x, **first)
        y: Floats = curve(law, values, x)[0]
    except Exception as error:
        raise AssertionError(
            f"law {law.name!r}: the formula fails for features ({n},) and {first}: {describe(error)}; use numpy "
            "functions"
        ) from error
    assert returned is not None, f"law {law.name!r}: the formula returned None; expected values ({n},)"
    assert np.isfinite(y).all(), f"law {law.name!r}: the formula gives {y} for {values[0]}"
    return y


def _check_bounds(law: FormulaLaw, values: Floats) -> None:
    lower, upper = bounds(law)
    inside = ((lower <= values) & (values <= upper)).all()
    assert inside, f"law {law.name!r}: the example {values[0]} lies outside the bounds"


def _check_guess(law: FormulaLaw, x: Mapping[str, Floats], y: Floats) -> None:
    guess = law.guess(y=y, **x)
    assert isinstance(guess, Mapping), (
        f"law {law.name!r}: guess() returned {guess!r}; expected a value for each parameter"
    )
    missing = set(law.parameters) - set(guess)
    assert not missing, f"law {law.name!r}: guess() gives no value for {', '.join(sorted(missing))}"
    assert np.isfinite(list(guess.values())).all(), f"law {law.name!r}: guess() gives {dict(guess)}"


def _check_recovery(law: FormulaLaw, x: Mapping[str, Floats], y: Floats, seed: int) -> None:
    """Check that a fit to points without noise recovers the curve, for any order of the points."""
    import pandas as pd

    from harness.fitting.fit import fit

    order = np.random.default_rng(seed).permutation(len(y))
    points = pd.DataFrame({**{k: v[order] for k, v in x.items()}, "y": y[order], "trials": 1000.0})
    fitted = fit(points, law, value="y", bootstrap=20, seed=seed, resample="checkpoints")
    miss = np.abs(fitted.curve(x) - y).max()
    assert miss <= 1e-5 * np.abs(y).max(), f"law {law.name!r}: without noise, the fit is wrong by {miss:.3g}\n{fitted}"


def _check_units(law: FormulaLaw, x: Mapping[str, Floats], y: Floats) -> None:
    """Check that the fit works for counts in other units, unless the law fixes their units (`own_units`)."""
    import pandas as pd

    from harness.fitting.fit import fit

    for name in set(law.features) & {"flops", "params", "tokens"} - set(traits(law).own_units):
        scaled = {**x, name: 100 * x[name]}
        points = pd.DataFrame({**scaled, "y": y, "trials": 1000.0})
        miss = np.abs(fit(points, law, value="y", bootstrap=20, resample="checkpoints").curve(scaled) - y).max()
        assert miss <= 1e-5 * np.abs(y).max(), (
            f"law {law.name!r}: with {name} 100 times as large, the fit is wrong by {miss:.3g}; widen the bounds, or "
            f"set own_units = ({name!r},)"
        )


def _check_intervals(law: FormulaLaw, truth: Mapping[str, float], x: Mapping[str, Floats]) -> None:
    """Check that at least three of six 90 % intervals cover the true curve (a correct law fails in 1 of 800 cases)."""
    from harness.fitting.simulations import coverage

    covered = coverage(law, truth, x, count=6, bootstrap=40, starts=4)
    assert covered.curve >= 3, (
        f"law {law.name!r}: {covered.curve} of 6 intervals cover the true curve; expected at least 3"
    )


def _check_procedure(law: ProcedureLaw, points: pd.DataFrame | None, findings: Findings) -> None:
    """Check a procedure: it reproduces y, does not depend on order or on other points, and its state fits in JSON."""
    if points is None:
        points = findings.vital(example_points, law)
    fitted: Fitted = findings.vital(_fitted, law, points)
    bare = points[list(law.features)]
    findings.vital(_check_predictions, law, fitted, points)
    findings.run(_check_alone, law, fitted, bare)
    findings.run(_check_order, law, fitted, points)
    findings.run(_check_json, law, fitted, bare)


def example_points(law: ProcedureLaw) -> pd.DataFrame:
    """Return the example points of a procedure; raise AssertionError if it has none."""
    example = traits(law).example
    assert callable(example), f"law {law.name!r}: give points=, or the law a method `example`"
    return example()


def _fitted(law: ProcedureLaw, points: pd.DataFrame) -> Fitted:
    copied = points.copy()
    fitted = law.fit(points, "y", np.random.default_rng(0))
    assert isinstance(fitted, Fitted), f"law {law.name!r}: fit() returned {fitted!r}; expected a harness.Fitted"
    assert points.equals(copied), f"law {law.name!r}: fit() modifies its input points"
    return fitted


def _check_predictions(law: ProcedureLaw, fitted: Fitted, points: pd.DataFrame) -> None:
    y = np.asarray(law.predict(fitted, points[list(law.features)]))
    assert y.shape == (len(points),), f"law {law.name!r}: predict() gives {y.shape} for {len(points)} points"
    miss = np.abs(y - points["y"]).max()
    assert miss <= 1e-3 * np.abs(points["y"]).max(), f"law {law.name!r}: without noise, it is wrong by {miss:.3g}"


def _check_alone(law: ProcedureLaw, fitted: Fitted, bare: pd.DataFrame) -> None:
    y = law.predict(fitted, bare)
    alone = np.concatenate([law.predict(fitted, bare.iloc[[i]].reset_index(drop=True)) for i in range(len(bare))])
    assert np.allclose(alone, y), f"law {law.name!r}: a prediction depends on the other predicted points"


def _check_order(law: ProcedureLaw, fitted: Fitted, points: pd.DataFrame) -> None:
    bare = points[list(law.features)]
    order = np.random.default_rng(0).permutation(len(points))
    again = law.predict(law.fit(points.iloc[order].reset_index(drop=True), "y", np.random.default_rng(0)), bare)
    is_equal = np.allclose(again, law.predict(fitted, bare), rtol=1e-4, atol=1e-6)
    assert is_equal, f"law {law.name!r}: the fit depends on the order of the points"


def _check_json(law: ProcedureLaw, fitted: Fitted, bare: pd.DataFrame) -> None:
    stored = ProcedureFit(law, fitted, {}, (), 0, "least_squares", 0.0, 0.0, 0, len(bare), {})
    read = ProcedureFit.from_json(law, json.loads(json.dumps(stored.to_json(), allow_nan=False)))
    features = {str(name): bare[name].to_numpy() for name in bare.columns}
    is_equal = np.allclose(read.value(features), stored.value(features))
    assert is_equal, f"law {law.name!r}: JSON does not preserve the state"


def _check_parameters(law: FormulaLaw, values: Floats, x: Mapping[str, Floats]) -> None:
    """Check that every parameter changes the curve; otherwise a fit cannot determine it."""
    for j, name in enumerate(law.parameters):
        moved = values.copy()
        moved[0, j] = 1.1 * moved[0, j] + 0.01
        assert (curve(law, moved, x) != curve(law, values, x)).any(), (
            f"law {law.name!r}: the parameter {name!r} has no effect"
        )


def _check_broadcast(law: FormulaLaw, values: Floats, x: Mapping[str, Floats], y: Floats) -> None:
    columns = {name: values[:, j : j + 1] for j, name in enumerate(law.parameters)}
    try:
        stacked = np.asarray(law.formula(**x, **columns))
        shape = str(stacked.shape)
    except (TypeError, ValueError) as error:
        stacked, shape = np.empty(0), f"{type(error).__name__}: {error}"
    assert stacked.shape == (3, len(y)), (
        f"law {law.name!r}: parameters (3, 1) and features ({len(y)},) give {shape}; expected (3, {len(y)}), so that "
        "all resamples are solved at once: use numpy functions, no float() and no if"
    )
    assert np.allclose(stacked, y), f"law {law.name!r}: the formula gives different values for stacked parameters"
