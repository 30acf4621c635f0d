"""The models that a forecast is composed of: curves of one ladder, no change, and regressions over many families."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import harness

if TYPE_CHECKING:
    import numpy as np

MODELS, TABLES = "harness.fitting.forecast_models", "harness.fitting.family_tables"


@dataclass(frozen=True)
class Shipped:
    """A model that is imported when it is first asked, so that `harness --help` stays quick.

    `many`: for tables of many families with few sizes each, or else for ladders. `untried`: the relative CRPS that it
    is trusted to have before it has made a forecast.
    """

    name: str
    module: str
    kind: str
    many: bool = False
    untried: float = 1.0
    about: str = ""

    def draw(self, batch: Any, rng: np.random.Generator) -> Any:
        """Return draws (P, R, T) of the accuracy of targets."""
        return getattr(importlib.import_module(self.module), self.kind)().draw(batch, rng)


@harness.hookimpl
def register_forecasters(register: harness.Register) -> None:
    """Register them."""
    register(
        Shipped("saturating", MODELS, "Saturating", about="A sigmoid in ln N and ln D that flattens near its ends.")
    )
    register(Shipped("stepwise", MODELS, "Stepwise", about="Task loss from scale, then accuracy from task loss."))
    about = "The last value, with changes as large as those before."
    register(Shipped("walk", MODELS, "Walk", untried=2.0, about=about))  # accuracies on ladders mostly rise
    about = "Gaussian process over the families of a table."
    register(Shipped("families", TABLES, "Families", many=True, about=about))
    about = "Gaussian process over a capability shared by the tasks of a table."
    register(Shipped("capability", TABLES, "Capabilities", many=True, about=about))
