"""The models that a forecast is composed of: curves of one ladder, no change, and regressions over many families."""

from __future__ import annotations

import harness


@harness.hookimpl
def register_forecasters(register: harness.Register) -> None:
    """Register them."""
    from harness.fitting.family_tables import Capabilities, Families
    from harness.fitting.forecast_models import Saturating, Stepwise, Walk

    for forecaster in (Saturating(), Stepwise(), Walk(), Families(), Capabilities()):
        register(forecaster)
