"""Exact derivatives of a formula by its parameters, by forward-mode automatic differentiation with dual numbers.

A formula of NumPy functions is called once with dual numbers for its parameters; every operation propagates value and
derivatives by the chain rule (Griewank and Walther 2008, ch. 3). RULES lists the supported NumPy functions. For a
formula that uses others, the solver computes central differences.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from harness.types import Floats

Operand = float | Floats
Partial = Callable[..., Operand]
"""(inputs, result) -> the derivative of the result by one of the inputs; None stands for 1"""


def _power_by_exponent(x: Operand, y: Operand, result: Operand) -> Operand:
    return result * np.log(x)


RULES: Mapping[str, tuple[Partial | None, ...]] = {
    "add": (None, None),
    "subtract": (None, lambda x, y, z: -1.0),
    "multiply": (lambda x, y, z: y, lambda x, y, z: x),
    "divide": (lambda x, y, z: 1 / y, lambda x, y, z: -z / y),
    "power": (lambda x, y, z: y * np.power(x, y - 1), _power_by_exponent),
    "float_power": (lambda x, y, z: y * np.float_power(x, y - 1), _power_by_exponent),
    "logaddexp": (lambda x, y, z: np.exp(x - z), lambda x, y, z: np.exp(y - z)),
    "maximum": (lambda x, y, z: 1.0 * (x >= y), lambda x, y, z: 1.0 * (y > x)),
    "minimum": (lambda x, y, z: 1.0 * (x <= y), lambda x, y, z: 1.0 * (y < x)),
    "negative": (lambda x, z: -1.0,),
    "positive": (None,),
    "absolute": (lambda x, z: np.sign(x),),
    "exp": (lambda x, z: z,),
    "expm1": (lambda x, z: z + 1,),
    "log": (lambda x, z: 1 / x,),
    "log2": (lambda x, z: 1 / (x * math.log(2)),),
    "log10": (lambda x, z: 1 / (x * math.log(10)),),
    "log1p": (lambda x, z: 1 / (1 + x),),
    "sqrt": (lambda x, z: 0.5 / z,),
    "square": (lambda x, z: 2 * x,),
    "reciprocal": (lambda x, z: -z * z,),
    "tanh": (lambda x, z: 1 - z * z,),
    "arctan": (lambda x, z: 1 / (1 + x * x),),
    "sin": (lambda x, z: np.cos(x),),
    "cos": (lambda x, z: -np.sin(x),),
    "expit": (lambda x, z: z * (1 - z),),
}
ONE = 1.0  # the derivative of a parameter by itself, which needs no multiplication
COMPARISONS = {"less", "less_equal", "greater", "greater_equal", "equal", "not_equal", "isfinite", "sign"}


class Dual(NDArrayOperatorsMixin):
    """An array and its derivatives by named parameters; the derivative by an absent name is 0."""

    __slots__ = ("slopes", "value")

    def __init__(self, value: Operand, slopes: Mapping[str, Operand]) -> None:
        self.value = value
        self.slopes = slopes

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Dual | Operand, **options: object) -> Any:
        """Apply a NumPy function and the chain rule."""
        if method != "__call__" or options or ufunc.__name__ not in {*RULES, *COMPARISONS}:
            return NotImplemented
        values = [x.value if isinstance(x, Dual) else x for x in inputs]
        result: Operand = ufunc(*values)
        if ufunc.__name__ in COMPARISONS:
            return result
        slopes: dict[str, Operand] = {}
        for x, partial in zip(inputs, RULES[ufunc.__name__], strict=True):
            if isinstance(x, Dual):
                factor = None if partial is None else partial(*values, result)
                for name, slope in x.slopes.items():
                    term = slope if factor is None else factor if slope is ONE else factor * slope
                    slopes[name] = slopes[name] + term if name in slopes else term
        return Dual(result, slopes)


def differentiate(
    formula: Callable[..., Dual | Floats], features: Mapping[str, Floats], parameters: Mapping[str, Floats]
) -> tuple[Floats, Floats] | None:
    """Return values (R, n) and derivatives (R, p, n) of a formula at parameters (R, 1) and features (n,) or (R, n).

    Returns None if the formula uses functions that are not in RULES. Derivatives may be non-finite.
    """
    try:
        with np.errstate(all="ignore"):
            dual = formula(**features, **{name: Dual(x, {name: ONE}) for name, x in parameters.items()})
    except (TypeError, ValueError, AttributeError):
        return None
    shape = (len(next(iter(parameters.values()))), next(iter(features.values())).shape[-1])
    if not isinstance(dual, Dual) or np.shape(dual.value) != shape:
        return None
    slopes = np.empty((shape[0], len(parameters), shape[1]))
    for j, name in enumerate(parameters):
        slopes[:, j] = dual.slopes.get(name, 0.0)
    return np.asarray(dual.value), slopes
