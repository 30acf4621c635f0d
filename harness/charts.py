"""Figures: descriptions of charts, and the only module that imports Altair.

A description is a list of Vega-Lite layers without data. The report draws it in the browser, where controls fill in
`$metric` and `$x_title`; `scaling_chart` and the others fill them in here and return Altair charts. Altair and
vl-convert come with the extra `report`.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError, UsageError

if TYPE_CHECKING:
    import altair
    import pandas as pd

    Chart = altair.Chart
    ChartOrSpec = altair.TopLevelMixin | dict[str, Any]  # or a Vega-Lite specification

Spec = dict[str, Any]

SCALES = ("flops", "params", "tokens", "loss")
X_TITLES = {
    "flops": "Training compute (FLOPs)",
    "params": "Parameters",
    "tokens": "Training tokens",
    "loss": "Training loss (nats per token)",
}
FORMATS = ("svg", "png", "pdf", "html", "json")
POINT, HELD_OUT, CURVE = "measured", "held out", "law"
KINDS = (POINT, "forecast of the largest", "forecast")
WIDTH, HEIGHT = 480, 320
SMALL = (240, 180)  # width and height of one of several charts
MANY = 12  # charts in a figure
DECADES = 100.0  # ratio of the largest to the smallest measured value from which their axis is logarithmic
# Colour-blind safe colours: Okabe and Ito (2008), lightened for dark pages. Families after the eighth get further
# colours, and dashed or dotted curves, so that none looks like another up to the 24th.
LIGHT = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9", "#5d4a9c", "#000000",
    "#e6ab02", "#a50026", "#7fbf3f", "#7f7f7f", "#6b3e26", "#00bcbc", "#ff4f97", "#23481f",
    "#1a1a8f", "#ff9e80", "#a8a545", "#c39be0", "#8b0a8b", "#3c7d80", "#c99b62", "#4a6fa5",
]  # fmt: skip
DARK = [
    "#56b4e9", "#ff9e4a", "#3fd0a4", "#e8a3c8", "#f0e442", "#9ad0f5", "#b9a7ff", "#ffffff",
    "#d9a400", "#ff6b6b", "#a6e05a", "#bdbdbd", "#c08a6a", "#2fe6e6", "#ff7fb8", "#7fb07f",
    "#8c8cff", "#ffc4b0", "#d6d47a", "#dcc0f5", "#e05ce0", "#8fd0d2", "#e8c9a0", "#8fb0e0",
]  # fmt: skip
DASHES = [[1, 0]] * 8 + [[7, 4]] * 8 + [[2, 3]] * 8

X: Spec = {
    "field": "x",
    "type": "quantitative",
    "scale": {"type": "log", "nice": False, "padding": 12},
    "axis": {"tickCount": 6},
}
COLOUR: Spec = {
    "field": "family",
    "type": "nominal",
    "title": "Family",
    "scale": {"range": "category"},
    "legend": {"orient": "bottom", "symbolOpacity": 1, "columns": 4},
}
DASH: Spec = {"field": "family", "type": "nominal", "scale": {"range": DASHES}, "legend": None}
TEXTS = {"label": "Checkpoint", "family": "Family", "kind": "Kind", "choice": "Choice", "metric": "Metric"}
NUMBERS = {"x": "$x_title", "value": "Value", "low": "Lower end", "high": "Upper end"}
HAS_ENDS = "isValid(datum.low) && isValid(datum.high)"


def y_axis(field: str, title: str) -> Spec:
    """Return a vertical axis that need not begin at 0."""
    return {"field": field, "type": "quantitative", "title": title, "scale": {"zero": False}}


def tooltip(*names: str) -> list[Spec]:
    """Return the fields of a tooltip: texts, then numbers to four digits."""
    named = [{"field": n, "type": "nominal", "title": TEXTS.get(n, n)} for n in names if n in TEXTS or n not in NUMBERS]
    return named + [_number(n) for n in names if n in NUMBERS]


def _number(name: str) -> Spec:
    return {
        "field": name,
        "type": "quantitative",
        "title": NUMBERS.get(name, name.replace("_", " ").capitalize()),
        "format": ".4~g",
    }


def scaling_layers(x: Spec | None = None) -> list[Spec]:
    """Return layers of points with error bars, fitted curves with intervals, and held-out points, coloured by family.

    Columns of the rows: x, value, low, high, family, label, and kind (POINT, HELD_OUT or CURVE).
    """
    x = x or X
    law, points = (f"datum.kind {sign} '{CURVE}'" for sign in ("==", "!="))
    ends = {"x": x, "color": COLOUR, "y": y_axis("low", "$metric"), "y2": {"field": "high"}}
    values = {"x": x, "color": COLOUR, "y": y_axis("value", "$metric")}
    named = ("x",) if x is X else ()
    shown = tooltip("label", "kind", *named, "value", "low", "high") + ([] if named else [_number(x["field"])])
    kinds = _shape("kind", "Checkpoint", (POINT, HELD_OUT), ("circle", "diamond"))
    marks = {**values, "shape": kinds, "tooltip": shown}
    return [
        _layer({"type": "area", "opacity": 0.16}, ends, law, HAS_ENDS),
        _layer({"type": "line"}, {**values, "strokeDash": DASH}, law),
        _layer({"type": "rule", "aria": False}, ends, points, HAS_ENDS),
        _layer({"type": "point", "filled": True, "size": 60, "opacity": 1}, marks, points),
    ]


def forecast_layers() -> list[Spec]:
    """Return layers of measured points, and of forecasts with their intervals; those that abstain are pale.

    Columns of the rows: x, value, low, high, family, label, verdict, abstains, and kind (one of KINDS).
    """
    pale = {"condition": {"test": "datum.abstains", "value": 0.3}, "value": 1}
    shape = _shape("kind", None, KINDS, ("circle", "square", "triangle-up"))
    shape["legend"] |= {"columns": 1, "labelLimit": 260}
    of_all = {"x": X, "color": COLOUR, "opacity": pale}
    ends = {**of_all, "y": y_axis("low", "$metric"), "y2": {"field": "high"}}
    shown = tooltip("label", "family", "kind", "verdict", "value", "low", "high")
    marks = {**of_all, "shape": shape, "tooltip": shown, "y": y_axis("value", "$metric")}
    return [
        _layer({"type": "rule", "strokeWidth": 3, "aria": False}, ends, f"datum.kind != '{POINT}'", HAS_ENDS),
        _layer({"type": "point", "filled": True, "size": 70}, marks),
    ]


def agreement_layers(shape: Spec, *texts: str, domain: Sequence[float] | None = None) -> list[Spec]:
    """Return layers of predicted against measured values with intervals, and the line where both are equal.

    Columns of the rows: measured, predicted, low, high, family, the field of `shape`, and `texts` for the tooltip.
    """
    scale = {"domain": list(domain)} if domain else {"zero": False}
    x: Spec = {"field": "measured", "type": "quantitative", "title": "Measured", "scale": scale}
    y: Spec = {"field": "predicted", "type": "quantitative", "title": "Predicted", "scale": scale}
    x, y = ({**one, "axis": {"tickCount": 6}} for one in (x, y))
    ends = {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, "color": COLOUR}
    shown = tooltip(*texts) + [_number(name) for name in ("measured", "predicted", "low", "high")]
    dashes = {"type": "line", "strokeDash": [4, 4], "color": "#888888"}
    return [
        _layer(dashes, {"x": x, "y": {**y, "field": "measured"}}),
        _layer({"type": "rule", "clip": True, "aria": False}, ends, HAS_ENDS),
        _layer(
            {"type": "point", "filled": True, "size": 60, "opacity": 1},
            {"x": x, "y": y, "color": COLOUR, "shape": shape, "tooltip": shown},
        ),
    ]


def covered_shape() -> Spec:
    """Return one shape each for intervals that covered the measured value, missed it, or are unknown."""
    kinds = ("covered", "missed", "no interval")
    return _shape("inside", "Interval", kinds, ("circle", "cross", "triangle-up"))


def covered(inside: pd.Series[Any]) -> pd.Series[Any]:
    """Return the column that `covered_shape` shows, from True, False, or missing."""
    return inside.map({True: "covered", False: "missed"}).fillna("no interval")


def _shape(field: str, title: str | None, domain: Sequence[str], symbols: Sequence[str]) -> Spec:
    scale = {"domain": list(domain), "range": list(symbols)}
    return {"field": field, "type": "nominal", "title": title, "legend": {"orient": "bottom"}, "scale": scale}


def _layer(mark: Spec, encoding: Spec, *filters: str) -> Spec:
    only = {"transform": [{"filter": one} for one in filters]} if filters else {}
    return {**only, "mark": mark, "encoding": encoding}


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
    """Make the vertical axis logarithmic if measured values, such as perplexities, span several powers of ten.

    The ends of intervals are cut to a tenth of the smallest value and ten times the largest.
    """
    measured = rows["value"][rows["kind"] != CURVE].dropna()
    if measured.empty or measured.min() <= 0 or measured.max() < DECADES * measured.min():
        return layers, rows
    limits = (measured.min() / 10, measured.max() * 10)
    rows = rows.assign(**{name: rows[name].clip(*limits) for name in ("value", "low", "high")})
    scale = {"type": "log", "nice": False, "padding": 6}
    on_log = [{**own, "encoding": {**own["encoding"], "y": {**own["encoding"]["y"], "scale": scale}}} for own in layers]
    return on_log, rows


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
    filled = [_filled(layer, x, value, log_x=log_x) for layer in layers]
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
    found = {key: _filled(part, x, value, log_x=log_x) for key, part in node.items()}
    if found.get("field") == "x" and "scale" in found:
        found["scale"] |= {"type": "log" if log_x else "linear"} | ({} if log_x else {"zero": False})
        found["axis"] |= {"format": "~e" if log_x else "~g"}
        found["title"] = X_TITLES.get(x, x)
    return found


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
