"""Charts as Altair objects, image files and images in notebooks: the only module that imports Altair.

Altair and vl-convert come with the extra `report`.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from harness.charts.layers import (
    LIGHT,
    LOG_Y,
    X_TITLES,
    Spec,
    agreement_layers,
    covered,
    covered_shape,
    forecast_layers,
    legend_columns,
    over_decades,
    scaling_layers,
)
from harness.errors import HarnessError, UsageError

if TYPE_CHECKING:
    import altair
    import pandas as pd

    Chart = altair.Chart
    ChartOrSpec = altair.TopLevelMixin | dict[str, Any]  # or a Vega-Lite specification

FORMATS = ("svg", "png", "pdf", "html", "json")
WIDTH, HEIGHT = 480, 320
SMALL = (240, 180)  # width and height of one of several charts
MANY = 12  # charts in a figure


def scaling_chart(
    rows: pd.DataFrame, *, x: str = "flops", value: str = "value", log_x: bool = True, title: str = ""
) -> Chart:
    """Return points with error bars, fitted curves with intervals, and held-out points, one colour per family.

    :param rows: one row per point or place on a curve. Columns: `x`, value, low, high, family, label, and kind
        (POINT, HELD_OUT or CURVE; low and high are the ends of an error bar or of the interval of a curve). With a
        column task that has several values there is a chart per task, of the first MANY.
    :param value: the title of the vertical axis.

    Raises UsageError if the extra `report` is not installed.
    """
    layers, rows = _over_decades(scaling_layers(), rows.rename(columns={x: "x"}))
    return _of_layers(layers, rows, x=x, value=value, log_x=log_x, title=title)


def _over_decades(layers: list[Spec], rows: pd.DataFrame) -> tuple[list[Spec], pd.DataFrame]:
    """Make the vertical axis logarithmic where `over_decades` says so."""
    cut = over_decades(rows)
    if cut is None:
        return layers, rows
    on_log = [
        {**layer, "encoding": {**layer["encoding"], "y": {**layer["encoding"]["y"], "scale": LOG_Y}}}
        for layer in layers
    ]
    return on_log, cut


def forecast_chart(
    rows: pd.DataFrame, *, x: str = "flops", value: str = "value", log_x: bool = True, title: str = ""
) -> Chart:
    """Return measured points and forecasts with their intervals; rows and arguments are like those of `scaling_chart`.

    Columns are those of `forecast_layers`, with `x` in the place of x.
    """
    return _of_layers(forecast_layers(), rows.rename(columns={x: "x"}), x=x, value=value, log_x=log_x, title=title)


def agreement_chart(rows: pd.DataFrame, *texts: str, by: str = "law", title: str = "") -> Chart:
    """Return predicted against measured values, a chart for each value of the column `by`; see `agreement_layers`."""
    rows = rows.assign(inside=covered(rows["inside"]))
    return _of_layers(agreement_layers(covered_shape(), *texts), rows, by=by, title=title)


def _of_layers(
    layers: list[Spec],
    rows: pd.DataFrame,
    *,
    x: str = "",
    value: str = "",
    log_x: bool = True,
    by: str = "task",
    title: str = "",
) -> Chart:
    """Return a chart of layers, or a chart for each value of the column `by` where it has several."""
    alt = _altair()
    columns = legend_columns(map(str, rows["family"].dropna().unique()), WIDTH)
    filled = [_with_columns(_filled(layer, x, value, log_x=log_x), columns) for layer in layers]
    spec: Spec = {
        "data": {"values": []},
        "config": {"range": {"category": LIGHT}},
        **({"title": title} if title else {}),
    }
    names = list(dict.fromkeys(rows[by])) if by in rows.columns else []
    if len(names) < 2:
        chart = alt.LayerChart.from_dict({**spec, "layer": filled, "width": WIDTH, "height": HEIGHT})
    else:
        left = len(names) - MANY
        note = [f"The first {MANY} of {len(names)}; name one for the others"] if left > 0 else []
        rows = rows[rows[by].isin(names[:MANY])]
        spec |= {"title": {"text": title, "subtitle": note}} if note else {}
        facet = {"field": by, "type": "nominal", "title": None, "sort": names[:MANY]}
        inner = {"layer": filled, "width": SMALL[0], "height": SMALL[1]}
        scales = {"resolve": {"scale": {"y": "independent"}}} if x else {}  # measured values share theirs
        chart = alt.FacetChart.from_dict({**spec, "facet": facet, "columns": 2, "spec": inner, **scales})
    chart.data = rows
    made: Chart = chart
    return made


def _filled(node: Any, x: str, value: str, *, log_x: bool) -> Any:
    """Return a description with its titles, and the scale of x; page.js does the same with the report's controls."""
    if isinstance(node, str):
        return node.replace("$metric", value).replace("$x_title", X_TITLES.get(x, x))
    if isinstance(node, list):
        return [_filled(part, x, value, log_x=log_x) for part in node]
    if not isinstance(node, dict):
        return node
    filled = {key: _filled(part, x, value, log_x=log_x) for key, part in node.items()}
    if filled.get("field") == "x" and "scale" in filled:
        filled["scale"] |= {"type": "log" if log_x else "linear"} | ({} if log_x else {"zero": False})
        filled["axis"] |= {"format": "~e" if log_x else "~g"}
        filled["title"] = X_TITLES.get(x, x)
    return filled


def _with_columns(layer: Spec, columns: int) -> Spec:
    """Return a layer whose legend of families has some columns."""
    colour = layer["encoding"].get("color")
    if not colour or colour.get("field") != "family":
        return layer
    legend = {**colour, "legend": {**colour["legend"], "columns": columns}}
    return {**layer, "encoding": {**layer["encoding"], "color": legend}}


def _altair() -> ModuleType:
    try:
        import altair as alt
        import vl_convert  # noqa: F401  # files are written with it
    except ImportError as error:
        raise UsageError(
            f"figures need the extra `report` ({error.name} is missing): pip install '.[report]'"
        ) from error
    alt.data_transformers.disable_max_rows()
    return alt


def with_figure(html: str, make: Callable[[], Any]) -> str:
    """Return HTML for a notebook with a figure below it, or as it is where no figure can be made.

    The figure is an SVG image inside the page: it needs no network, and is shown in notebooks that are not trusted.
    """
    try:
        chart = make()
        import vl_convert

        svg = vl_convert.vegalite_to_svg(specification(chart))
    except HarnessError:
        return html
    encoded = base64.b64encode(svg.encode("utf-8")).decode("ascii")
    return f'{html}\n<img alt="figure" src="data:image/svg+xml;base64,{encoded}">'


def save_chart(chart: Any, path: str | Path) -> Path:
    """Write a chart as SVG, PNG, PDF, HTML or JSON, by the suffix of the file; return the path.

    HTML files include their scripts and open without a network. Raises UsageError for another suffix.
    """
    path = Path(path)
    suffix = path.suffix.removeprefix(".")
    if suffix not in FORMATS:
        raise UsageError(f"{path} has the suffix {suffix!r}; expected one of {', '.join(FORMATS)}")
    _altair()
    inline = {"inline": True} if suffix == "html" else {"scale_factor": 2} if suffix == "png" else {}
    chart.save(str(path), format=suffix, **inline)
    return path


def specification(chart: ChartOrSpec) -> Spec:
    """Return the Vega-Lite specification of a chart, or of a dict that is one."""
    return chart if isinstance(chart, dict) else dict(chart.to_dict())


def scripts() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one JavaScript module that needs no network.

    The module sets window.vegaEmbed. Raises UsageError when the extra `report` is not installed.
    """
    _altair()
    import vl_convert

    bundle = vl_convert.javascript_bundle(None)  # type: ignore[arg-type]  # None is the default, missing in its types
    return str(bundle)
