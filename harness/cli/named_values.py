"""Parse NAME=VALUE pairs of the command line."""

from __future__ import annotations

from collections.abc import Iterable

from harness.errors import UsageError
from harness.files import parse_yaml
from harness.types import Json


def read_options(pairs: Iterable[str]) -> dict[str, Json]:
    """Parse NAME=VALUE pairs; values are YAML, so 3 is a number and true is a boolean."""
    options: dict[str, Json] = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign:
            raise UsageError(f"{pair!r}: expected NAME=VALUE")
        try:
            options[name.replace("-", "_")] = parse_yaml(value)
        except ValueError as error:
            raise UsageError(f"{pair!r}: {error}") from error
    return options


def read_features(pairs: Iterable[str]) -> dict[str, float | str]:
    """Parse NAME=VALUE pairs of features: numbers, including 1e19, or text, such as family=new."""
    features: dict[str, float | str] = {}
    for name, value in read_options(pairs).items():
        if not isinstance(value, (str, int, float)):
            raise UsageError(f"--at {name}={value}: expected a number or a text")
        try:
            features[name] = float(value)
        except ValueError:
            features[name] = str(value)
        except OverflowError as error:
            raise UsageError(f"--at {name}={value}: expected a number or a text") from error
    return features
