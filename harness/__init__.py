"""A plugin-based evaluation harness for downstream capability scaling of language models.

import harness
harness.evaluate(["aster"], ["nano_addition"], store="results")
points = harness.open_store("results").points(task="nano_addition")
fit = harness.fit(points, "two_step", value="acc", hold_out="largest")
fit.predict(flops=1e16)
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path


def _public_names() -> dict[str, str]:
    """Return the module of every public name, as `__init__.pyi` lists them."""
    stub = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    return {name.name: str(node.module) for node in imports for name in node.names}


_MODULES = _public_names()
__all__ = sorted(_MODULES)  # noqa: PLE0605  # the list is in __init__.pyi


def __getattr__(name: str) -> object:
    """Import a public name when it is first used, so that `harness --help` stays quick."""
    if name not in _MODULES:
        raise AttributeError(f"module 'harness' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """Return the public names for `dir()` and completion."""
    return sorted({*globals(), *__all__})
