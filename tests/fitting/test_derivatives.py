"""Derivatives by dual numbers against central differences."""

from __future__ import annotations

import numpy as np
import pytest

from harness.fitting.derivatives import RULES, differentiate
from harness.fitting.laws import bounds, curve
from harness.host import load_plugins
from harness.testing import DOMAINS

REGISTERED = load_plugins().laws
LAWS = {name: REGISTERED[name] for name in REGISTERED if hasattr(REGISTERED[name], "formula")}


def differences(law, values, x):
    """Return central differences (R, p, n) of a law's formula."""
    columns = []
    for j in range(values.shape[1]):
        step = np.zeros_like(values)
        step[:, j] = 1e-6 * np.maximum(np.abs(values[:, j]), 1e-2)
        run = 2 * step[:, j : j + 1]
        columns.append((curve(law, values + step, x) - curve(law, values - step, x)) / run)
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("name", sorted(LAWS))
def test_every_law_has_exact_derivatives(name):
    law = LAWS[name]
    x = {k: DOMAINS.get(k, np.linspace(0.5, 5, 12)) for k in law.features}
    typical = np.array([law.example[k] for k in law.parameters])
    values = np.clip(typical * np.array([[1.0], [0.97], [1.02]]), *bounds(law))
    value, slopes = differentiate(law.formula, x, {k: values[:, j : j + 1] for j, k in enumerate(law.parameters)})
    assert value == pytest.approx(curve(law, values, x), rel=1e-14)
    assert slopes == pytest.approx(differences(law, values, x), rel=1e-5, abs=1e-7 * np.abs(slopes).max())


@pytest.mark.parametrize("name", sorted(RULES))
def test_every_rule_is_the_derivative_of_its_function(name):
    function = getattr(np, name, None) or getattr(__import__("scipy.special").special, name)
    x = np.linspace(0.3, 0.9, 7)
    two = (lambda a, b: function(a + b, 1.3 - a * b)) if function.nin == 2 else (lambda a, b: function(a * b + 0 * a))
    parameters = {"a": np.array([[0.7]]), "b": np.array([[0.4]])}
    _, slopes = differentiate(lambda x, a, b: two(a, b * x), {"x": x}, parameters)
    for j, key in enumerate(parameters):
        high, low = ({k: v + h * (k == key) for k, v in parameters.items()} for h in (1e-6, -1e-6))
        differences = (two(high["a"], high["b"] * x) - two(low["a"], low["b"] * x)) / 2e-6
        assert slopes[0, j] == pytest.approx(differences[0], rel=1e-6, abs=1e-8)


@pytest.mark.parametrize(
    "formula",
    [
        lambda x, a: np.cumsum(a * x, axis=1),
        lambda x, a: np.array([[float(a)]]) * x,
        lambda x, a: a * x if a > 1 else x,
        lambda x, a: x,
    ],
)
def test_a_formula_that_is_not_known_has_none(formula):
    """The solver takes differences then."""
    assert differentiate(formula, {"x": np.ones(3)}, {"a": np.ones((2, 1))}) is None
