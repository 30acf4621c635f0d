"""The default engine, used if the user names none."""

from __future__ import annotations

from harness.host.registries import Registries


def default_engine(registries: Registries) -> str:
    """Return the name of the first engine that is preferred on this machine, else transformers."""
    preferred = (name for name in registries.engines if registries.engines[name].preferred())
    return next(preferred, "transformers")
