"""Sections of the HTML report: what a panel is, and the data that panels are made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.errors import PluginError, choose

if TYPE_CHECKING:
    import pandas as pd

    from harness.charts.drawing import ChartOrSpec

CONTROLS = ("task", "metric", "family", "x", "level")
LEVELS = (0.5, 0.8, 0.9, 0.95)


def _empty() -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame()


@dataclass(frozen=True)
class ReportData:
    """What a report shows.

    :param points: one row per checkpoint, task and metric, as `store.points()` returns them; `label` names the
        checkpoint, `shown` marks the metric that each task names as its own, and `is_rate` the tasks whose own metric
        is better when higher and lies from 0 to 1.
    :param curves: one row per place on a fitted curve: task, metric, family, law, flops, params, tokens, value, and
        low_LEVEL and high_LEVEL (percent) for each of LEVELS. Empty when nothing could be fitted.
    :param held_out: one row per held-out point and law: task, family, law, label, flops, measured, stderr, predicted,
        low, high (at 90 %), inside.
    :param choices: one row per checkpoint, task and rank of choice (gold first): mean log-probability (nats).
    :param runs: one row per checkpoint: engine, dtype, versions, truncated, ties.
    :param two_steps: one row per point and per place on the law from task loss to accuracy: task, metric, family,
        label, kind, task_loss (nats), value, low, high, low_LEVEL, high_LEVEL.
    :param forecasts: one row per forecast: task, metric, family, kind, flops, params, tokens, value (median),
        low_LEVEL, high_LEVEL, verdict, abstains, measured.
    :param back_tests: one row per law and prediction of a size from the smaller ones: columns of `BackTest.rows`.
    :param documents: one row per chosen document and last checkpoint: task, family, label, flops, doc_id, rank,
        context, gold, picked, margin (nats), right.
    """

    title: str
    points: pd.DataFrame
    curves: pd.DataFrame
    held_out: pd.DataFrame
    choices: pd.DataFrame
    runs: pd.DataFrame
    notes: Sequence[str] = ()
    two_steps: pd.DataFrame = field(default_factory=_empty)
    forecasts: pd.DataFrame = field(default_factory=_empty)
    back_tests: pd.DataFrame = field(default_factory=_empty)
    documents: pd.DataFrame = field(default_factory=_empty)


@dataclass(frozen=True)
class Panel:
    """A figure of the report.

    :param title: the heading.
    :param about: one or two sentences: what is drawn, units, how to read it. Also the text alternative.
    :param chart: a Vega-Lite specification (a dict, or an Altair chart) without data. In its strings, `$metric`,
        `$x_title`, `$low` and `$high` are replaced by what the controls say; the column `x` holds the chosen x-axis
        when "x" is among the controls.
    :param rows: the data of all settings of the controls. Rows are filtered by their columns task, metric and family
        when these are among the controls.
    :param controls: which controls of the page change this figure: task, metric, family, x, level.
    :param decades: tasks whose values span several powers of ten; the vertical axis is logarithmic for them.
    """

    title: str
    about: str
    chart: ChartOrSpec
    rows: pd.DataFrame
    controls: Sequence[str] = ()
    decades: Sequence[str] = ()

    def __post_init__(self) -> None:
        unknown = set(self.controls) - set(CONTROLS)
        if unknown:
            raise PluginError(f"panel {self.title!r} has controls {choose(unknown)}; there are: {choose(CONTROLS)}")
        if not isinstance(self.chart, dict) and not hasattr(self.chart, "to_dict"):
            raise PluginError(f"panel {self.title!r} has the chart {self.chart!r}; expected a dict or an Altair chart")
        if not hasattr(self.rows, "columns"):
            raise PluginError(f"panel {self.title!r} has rows of type {type(self.rows).__name__}; expected a DataFrame")
