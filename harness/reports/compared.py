"""What a comparison returns: its tables, and their figure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pandas as pd

from harness.charts import with_figure
from harness.store.point_figures import points_chart
from harness.tables import Table

if TYPE_CHECKING:
    from harness.charts import Chart


class Compared(list[Table]):
    """The tables of a comparison, and the points that they show: `plot` draws them."""

    def __init__(self, tables: Iterable[Table], points: pd.DataFrame) -> None:
        super().__init__(tables)
        self.points = points

    def plot(self, task: str | None = None, *, x: str = "flops", log_x: bool = True) -> Chart:
        """Draw the last checkpoint of every run over its compute (or params, tokens, loss), a chart per task.

        Raises UsageError for a task that was not compared, and if the extra `report` is not installed.
        """
        return points_chart(self.points, task, x=x, log_x=log_x)

    def _repr_html_(self) -> str:
        """Return the tables for a notebook, and their figure."""
        return with_figure("\n".join(table._repr_html_() for table in self), self.plot)
