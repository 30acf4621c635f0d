"""The engine that is used when the user names none."""

from __future__ import annotations

from harness.registries import Registries


def default_engine(registries: Registries) -> str:
    """Return the name of the engine that is preferred on this machine; transformers where none is."""
    preferred = (name for name in registries.engines if registries.engines[name].preferred())
    return next(preferred, "transformers")
