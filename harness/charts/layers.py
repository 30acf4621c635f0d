"""Descriptions of figures: lists of Vega-Lite layers without data.

The report draws them in the browser, where controls fill in `$metric` and `$x_title`; `drawing` does so elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

Spec = dict[str, Any]

SCALES = ("flops", "params", "tokens", "loss")
X_TITLES = {
    "flops": "Training compute (FLOPs)",
    "params": "Parameters",
    "tokens": "Training tokens",
    "loss": "Training loss (nats per token)",
}
POINT, HELD_OUT, CURVE = "measured", "held out", "law"
LARGEST_FORECAST, FORECAST = "forecast of the largest", "forecast"
# Colour-blind safe colours: Okabe and Ito (2008), lightened for dark pages. Families after the eighth get further
# colours, and dashed or dotted curves, so that none looks like another up to the 24th. After the 24th colours are mixed
# with grey, and repeat after the 48th.
_LIGHT = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9", "#5d4a9c", "#000000",
    "#e6ab02", "#a50026", "#7fbf3f", "#7f7f7f", "#6b3e26", "#00bcbc", "#ff4f97", "#23481f",
    "#1a1a8f", "#ff9e80", "#a8a545", "#c39be0", "#8b0a8b", "#3c7d80", "#c99b62", "#4a6fa5",
]  # fmt: skip
_DARK = [
    "#56b4e9", "#ff9e4a", "#3fd0a4", "#e8a3c8", "#f0e442", "#9ad0f5", "#b9a7ff", "#ffffff",
    "#d9a400", "#ff6b6b", "#a6e05a", "#bdbdbd", "#c08a6a", "#2fe6e6", "#ff7fb8", "#7fb07f",
    "#8c8cff", "#ffc4b0", "#d6d47a", "#dcc0f5", "#e05ce0", "#8fd0d2", "#e8c9a0", "#8fb0e0",
]  # fmt: skip


def _and_muted(colours: Sequence[str]) -> list[str]:
    """Return colours, followed by each of them mixed with grey."""
    parts = [[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in colours]
    grey = [150 if sum(part) < 3 * 128 else 90 for part in parts]
    mixed = [[round(0.45 * c + 0.55 * g) for c in part] for part, g in zip(parts, grey, strict=True)]
    return [*colours, *("#" + "".join(f"{c:02x}" for c in part) for part in mixed)]


LIGHT, DARK = _and_muted(_LIGHT), _and_muted(_DARK)
DASHES = [[1, 0]] * 8 + [[7, 4]] * 8 + [[2, 3]] * 8 + [[9, 3, 2, 3]] * 24

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
    "legend": {"orient": "bottom", "symbolOpacity": 1, "symbolStrokeWidth": 0, "columns": 4},
}
DASH: Spec = {"field": "family", "type": "nominal", "scale": {"range": DASHES}, "legend": None}


def legend_columns(names: Iterable[str], width: float) -> int:
    """Return the number of columns of a legend, so that its longest name fits.

    >>> legend_columns(["aster", "birch"], 440), legend_columns(["a name of more than thirty letters"], 440)
    (4, 2)
    """
    longest = min(LETTER * max(map(len, names), default=1), LONGEST)
    return max(1, min(4, int(width / (longest + SYMBOL))))


TEXTS = {"label": "Checkpoint", "family": "Family", "kind": "Kind", "choice": "Choice", "metric": "Metric"}
NUMBERS = {"x": "$x_title", "value": "Value", "low": "Lower end", "high": "Upper end"}
HAS_ENDS = "isValid(datum.low) && isValid(datum.high)"

APART, SPREAD = 7, 28  # pixels between families of equal compute, and between the first and the last at most

LETTER, LONGEST, SYMBOL = 5.5, 160, 25  # pixels of a letter, of the longest name, and of a symbol in a legend
DECADES = 100.0  # ratio of the largest to the smallest measured value from which their axis is logarithmic
LOG_Y: Spec = {"type": "log", "nice": False, "padding": 6}  # scale of such an axis


def over_decades(rows: pd.DataFrame) -> pd.DataFrame | None:
    """Return rows for a logarithmic vertical axis if measured values, such as perplexities, span several powers of ten.

    The ends of intervals are cut to a tenth of the smallest value and ten times the largest. None for a linear axis.
    Columns are those of `scaling_layers`; columns whose names begin with low_ or high_ are ends at other levels.
    """
    measured = rows["value"][rows["kind"] != CURVE].dropna()
    if measured.empty or measured.min() <= 0 or measured.max() < DECADES * measured.min():
        return None
    limits = (measured.min() / 10, measured.max() * 10)
    names = [name for name in rows.columns if str(name).split("_")[0] in {"value", "low", "high"}]
    return rows.assign(**{name: rows[name].clip(*limits) for name in names})


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

    Families are shifted sideways, because those of equal compute would hide each other. Columns of the rows: x, value,
    low, high, family, label, verdict, abstains, and kind (POINT, LARGEST_FORECAST or FORECAST).
    """
    pale = {"condition": {"test": "datum.abstains", "value": 0.3}, "value": 1}
    kinds = (POINT, LARGEST_FORECAST, FORECAST)
    shape = _shape("kind", None, kinds, ("circle", "square", "triangle-up"))
    shape["legend"] |= {"columns": 1, "labelLimit": 260}
    of_all = {"x": X, "color": COLOUR, "opacity": pale}
    ends = {**of_all, "y": y_axis("low", "$metric"), "y2": {"field": "high"}}
    shown = tooltip("label", "family", "kind", "verdict", "value", "low", "high")
    marks = {**of_all, "shape": shape, "tooltip": shown, "y": y_axis("value", "$metric")}
    shift = {"xOffset": {"expr": "datum.dodge"}}
    layers = [
        _layer({"type": "rule", "strokeWidth": 3, "aria": False, **shift}, ends, f"datum.kind != '{POINT}'", HAS_ENDS),
        _layer({"type": "point", "filled": True, "size": 70, **shift}, marks),
    ]
    return [{**layer, "transform": [*_dodge(), *layer.get("transform", [])]} for layer in layers]


def _dodge() -> list[Spec]:
    """Return transforms that compute the sideways shift of each family (pixels), centred on its place on the axis."""
    return [
        {"window": [{"op": "dense_rank", "as": "place"}], "sort": [{"field": "family"}], "groupby": []},
        {"joinaggregate": [{"op": "max", "field": "place", "as": "places"}], "groupby": []},
        {"calculate": f"(datum.place - (datum.places + 1) / 2) * min({APART}, {SPREAD} / datum.places)", "as": "dodge"},
    ]


def agreement_layers(shape: Spec, *texts: str, domain: Sequence[float] | None = None) -> list[Spec]:
    """Return layers of predicted against measured values with intervals, and the line where both are equal.

    Columns of the rows: measured, predicted, low, high, family, the field of `shape`, and `texts` for the tooltip.
    """
    scale = {"domain": list(domain)} if domain else {"zero": False}
    x: Spec = {"field": "measured", "type": "quantitative", "title": "Measured", "scale": scale}
    y: Spec = {"field": "predicted", "type": "quantitative", "title": "Predicted", "scale": scale}
    x, y = ({**channel, "axis": {"tickCount": 6}} for channel in (x, y))
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
    only = {"transform": [{"filter": expression} for expression in filters]} if filters else {}
    return {**only, "mark": mark, "encoding": encoding}
