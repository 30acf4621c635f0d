"""NAME=VALUE pairs of the command line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from harness.errors import UsageError


def read_options(pairs: Iterable[str]) -> dict[str, Any]:
    """Read NAME=VALUE pairs; values are YAML, so that 3 is a number and true a flag."""
    import yaml

    found = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign:
            raise UsageError(f"{pair!r}: expected NAME=VALUE")
        found[name.replace("-", "_")] = yaml.safe_load(value)
    return found


def read_features(pairs: Iterable[str]) -> dict[str, float | str]:
    """Read NAME=VALUE pairs of features: numbers, 1e19 among them, or text, such as family=new."""
    found: dict[str, float | str] = {}
    for name, value in read_options(pairs).items():
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = str(value)
        except TypeError as error:
            raise UsageError(f"--at {name}={value}: expected a number or a text") from error
    return found
