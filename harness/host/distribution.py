"""The installed distribution of this package, which has another name than the package."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec

COMMAND = "harness.cli:main"  # console script that identifies the distribution


@cache
def distribution() -> importlib.metadata.Distribution | None:
    """Return the distribution, possibly editable; None if the package is not installed."""
    candidates = [d for d in importlib.metadata.distributions() if any(e.value == COMMAND for e in d.entry_points)]
    return max(candidates, key=lambda dist: dist.read_text("RECORD") is not None, default=None)


def name() -> str:
    """Return the name of the distribution for pip; `.` if it is not installed."""
    dist = distribution()
    return dist.name if dist else "."


def version() -> str:
    """Return the installed version."""
    dist = distribution()
    return dist.version if dist else "unknown"


def how_to_install(extra: str) -> str:
    """Return the command that installs an extra of this distribution."""
    return f"pip install '{name()}[{extra}]'"


def missing(modules: Sequence[str]) -> list[str]:
    """Return the modules that cannot be imported, without importing them."""
    return [module for module in modules if not _is_there(module)]


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ValueError:  # sys.modules blocks its import
        return False
