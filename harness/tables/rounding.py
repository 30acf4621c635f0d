"""Numbers as printed: the only place that rounds them, to two digits of their error."""

from __future__ import annotations

import math


def rounded(value: float, error: float) -> str:
    """Round a value to two digits of its error, or of the value if the error is larger.

    >>> rounded(0.96834, 0.0087)
    '0.9683'
    >>> rounded(1234.5, 120.0)
    '1230'
    >>> rounded(54000, 6.8e7)
    '54000'
    """
    if not (math.isfinite(value) and math.isfinite(error)) or error <= 0:
        return number(value)
    if abs(value) >= 1e6:
        return f"{value:.3g}"
    digits = 1 - math.floor(math.log10(min(error, abs(value)) if value else error))
    if abs(value) >= 0.01:
        digits = min(digits, 4)
    return f"{round(value, digits):.{max(digits, 0)}f}"


def measured(value: float, error: float) -> str:
    """Return value ± error, both to two digits of the error; a missing error is `?`.

    >>> measured(0.96834, 0.0087)
    '0.9683 ± 0.0087'
    """
    if not math.isfinite(error):
        return f"{number(value)} ± ?"
    return f"{rounded(value, error)} ± {rounded(error, error)}"


def last_digit(value: float, error: float) -> str:
    """Return the unit of the last digit with which `rounded` prints a value.

    >>> last_digit(1.0, 1e-7), last_digit(1.0, 0.0), last_digit(0.7143, 0.0), last_digit(1.2e20, 1e12)
    ('0.0001', '0.001', '0.0001', '1e+18')
    """
    if not value:
        return "1e-09"
    digits = 4 if error <= 0 else 3 if abs(value) >= 1e6 else None
    if digits is not None:
        return f"{10.0 ** (math.floor(math.log10(abs(value))) + 1 - digits):.6g}"
    return f"{10.0 ** -len(rounded(value, error).partition('.')[2]):.6g}"


def number(value: float) -> str:
    """Return a number without an error, to four digits; rounding noise is 0."""
    return f"{0.0 if abs(value) < 1e-9 else value:.4g}" if math.isfinite(value) else "-"
