"""Figures: their descriptions (`layers`), drawing (`drawing`), and the contract of panels of the report (`panels`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.charts.drawing import (
    agreement_chart,
    forecast_chart,
    save_chart,
    scaling_chart,
    scripts,
    specification,
    with_figure,
)
from harness.charts.layers import (
    COLOUR,
    CURVE,
    DARK,
    FORECAST,
    HELD_OUT,
    LARGEST_FORECAST,
    LIGHT,
    LOG_Y,
    POINT,
    SCALES,
    X_TITLES,
    Spec,
    X,
    agreement_layers,
    covered,
    covered_shape,
    forecast_layers,
    over_decades,
    scaling_layers,
    tooltip,
    y_axis,
)
from harness.charts.panels import LEVELS, Panel, ReportData

if TYPE_CHECKING:
    from harness.charts.drawing import Chart as Chart
    from harness.charts.drawing import ChartOrSpec as ChartOrSpec

__all__ = [
    "COLOUR",
    "CURVE",
    "DARK",
    "FORECAST",
    "HELD_OUT",
    "LARGEST_FORECAST",
    "LEVELS",
    "LIGHT",
    "LOG_Y",
    "POINT",
    "SCALES",
    "X_TITLES",
    "Panel",
    "ReportData",
    "Spec",
    "X",
    "agreement_chart",
    "agreement_layers",
    "covered",
    "covered_shape",
    "forecast_chart",
    "forecast_layers",
    "over_decades",
    "save_chart",
    "scaling_chart",
    "scaling_layers",
    "scripts",
    "specification",
    "tooltip",
    "with_figure",
    "y_axis",
]
