"""The models that a forecast is composed of: a saturating curve, two steps through a task loss, and no change."""

from __future__ import annotations

import harness


@harness.hookimpl
def register_forecasters(register: harness.Register) -> None:
    """Register them."""
    from harness.fitting.forecast_models import Saturating, Stepwise, Walk

    for forecaster in (Saturating(), Stepwise(), Walk()):
        register(forecaster)
