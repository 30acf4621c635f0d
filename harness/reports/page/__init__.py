"""The HTML report: one page that holds its data and scripts, so that it opens from disk without a network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from harness.charts import DARK, LEVELS, LIGHT, LOG_Y, X_TITLES, Panel, ReportData, scripts, specification
from harness.errors import PluginError, UsageError
from harness.host.distribution import how_to_install, version
from harness.tables import Table, text
from harness.types import Json

if TYPE_CHECKING:
    from jinja2 import Environment


MAX_CATEGORIES = 0.5  # share of distinct texts in a column up to which texts are stored once


@dataclass(frozen=True)
class Control:
    """A choice offered at the top of the page: `choices` are pairs of value and label."""

    name: str
    label: str
    choices: Sequence[tuple[str, str]]
    value: str


def render(data: ReportData, panels: Mapping[str, Panel], tables: Sequence[Table], owners: Mapping[str, str]) -> str:
    """Return the page as HTML.

    :param panels: the figures by name, in their order.
    :param tables: tables shown below the figures.
    :param owners: the plugin of each panel that is not part of harness.

    Raises UsageError when the extra `report` is not installed.
    """
    environment = _environment()
    shown = [
        {"name": name, "title": p.title, "about": p.about, "plugin": owners.get(name, "")} for name, p in panels.items()
    ]
    return str(
        environment.get_template("page.html.jinja").render(
            title=data.title,
            about=_about(data),
            notes=data.notes,
            version=version(),
            style=_resource("page.css"),
            script=_resource("page.js"),
            vega=_Trusted(scripts().replace("</script", "<\\/script")),
            controls=_controls(data),
            panels=shown,
            tables=[_cells(table) for table in tables],
            data=_embedded(panels),
        )
    )


def _environment() -> Environment:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise UsageError(f"the report needs jinja2, not installed here: {how_to_install('report')}") from error

    return Environment(loader=PackageLoader("harness.reports", "page"), autoescape=True, undefined=StrictUndefined)


class _Trusted(str):
    """Style, scripts and JSON written by this module: not escaped. Text from stores never gets this type."""

    __slots__ = ()

    def __html__(self) -> str:
        """Return the text as it is: jinja2 does not escape what has this method."""
        return self


def _resource(name: str) -> _Trusted:
    return _Trusted(files("harness.reports.page").joinpath(name).read_text(encoding="utf-8"))


def _about(data: ReportData) -> str:
    points = data.points
    families, tasks = points["family"].nunique(), points["task"].nunique()
    checkpoints = points["label"].nunique()
    return (
        f"{checkpoints} checkpoints of {families} {'family' if families == 1 else 'families'} on {tasks} "
        f"{'task' if tasks == 1 else 'tasks'}. {_errors(points)}"
    )


def _errors(points: pd.DataFrame) -> str:
    if points["low"].notna().any():
        return "Error bars are 95 % intervals over documents."
    return "No standard errors are known, so that points have no error bars."


def _controls(data: ReportData) -> list[Control]:
    points = data.points
    tasks = sorted(points["task"].unique())
    metrics = sorted(points["metric"].unique())
    families = sorted(points["family"].unique())
    axes = [name for name in X_TITLES if name in points.columns and points[name].notna().any()]
    first = data.held_out["task"].iloc[0] if len(data.held_out) else tasks[0]
    return [
        Control("task", "Task", [(t, t) for t in tasks], str(first)),
        Control("metric", "Metric", [("*", "the task's own"), *((m, m) for m in metrics)], "*"),
        Control("family", "Family", [("*", "all"), *((f, f) for f in families)], "*"),
        Control("x", "Horizontal axis", [(name, X_TITLES[name]) for name in axes], axes[0] if axes else ""),
        Control("level", "Interval", [(f"{level:.0%}".rstrip("%"), f"{level:.0%}") for level in LEVELS], "90"),
    ]


def _cells(table: Table) -> dict[str, Json]:
    rows = [[text(cell) for cell in row] for row in table.rows]
    return {"name": table.name, "title": table.title, "columns": table.columns, "rows": rows, "notes": table.notes}


def _embedded(panels: Mapping[str, Panel]) -> _Trusted:
    """Return the data of all panels as JSON that cannot end the script element it stands in."""
    named = [panel.rows["family"].dropna().map(str) for panel in panels.values() if "family" in panel.rows.columns]
    content = {
        "families": sorted({name for names in named for name in names}),
        "panels": {name: _panel(name, panel) for name, panel in panels.items()},
        "xTitles": X_TITLES,
        "logY": LOG_Y,
        "light": LIGHT,
        "dark": DARK,
    }
    encoded = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _Trusted(encoded.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


def _panel(name: str, panel: Panel) -> dict[str, Json]:
    spec = specification(panel.chart)
    if not isinstance(spec, dict) or not {"mark", "layer", "facet", "hconcat", "vconcat", "repeat"} & set(spec):
        raise PluginError(f"panel {name!r} has no chart: expected a Vega-Lite specification or an Altair chart")
    spec = {key: value for key, value in spec.items() if key not in {"datasets", "data", "$schema", "config"}}
    named: dict[str, Json] = {"controls": list(panel.controls), "decades": list(panel.decades)}
    return {"spec": spec, **named, "columns": _columns(panel.rows)}


def _columns(rows: pd.DataFrame) -> dict[str, Json]:
    return {str(name): _column(rows[name]) for name in rows.columns}


def _column(values: pd.Series) -> Json:
    """Return a column as JSON: numbers to six digits, null where missing; repeated texts as words and codes."""
    if values.dtype.kind in "fiu":
        return [None if not np.isfinite(v) else float(f"{v:.6g}") for v in values.astype(float)]
    if values.dtype.kind == "b":
        return [bool(v) for v in values]
    codes, words = pd.factorize(values.astype("object").where(values.notna(), None))
    if len(words) > MAX_CATEGORIES * max(len(values), 1) and len(values) > 1:
        return [None if v is None or v != v else str(v) for v in values]  # noqa: PLR0124  # NaN
    return {"words": [str(word) for word in words], "codes": codes.tolist()}
