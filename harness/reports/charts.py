"""Figures: the only module that imports Altair. Frames become charts; charts become files or JSON.

A chart is a Vega-Lite specification. Altair and vl-convert come with the extra `report`.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from harness.errors import UsageError

if TYPE_CHECKING:
    from typing import Any

    import altair
    import pandas as pd

    from harness.types import Json

    AltairChart = altair.Chart
    Chart = altair.TopLevelMixin | dict[str, Any]  # or a Vega-Lite specification

X_TITLES = {
    "flops": "Training compute (FLOPs)",
    "params": "Parameters",
    "tokens": "Training tokens",
    "loss": "Training loss (nats per token)",
}
FORMATS = ("svg", "png", "pdf", "html", "json")
POINT, HELD_OUT, CURVE = "measured", "held out", "fitted law"


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


def scaling_chart(rows: pd.DataFrame, *, x: str = "flops", value: str = "value", log_x: bool = True) -> altair.Chart:
    """Return points with error bars, fitted curves with intervals, and held-out points, one colour per family.

    :param rows: one row per point or place on a curve. Columns: `x`, value, low, high, family, label, and kind
        (POINT, HELD_OUT or CURVE; low and high are the ends of an error bar or of the interval of a curve).
    :param value: the title of the vertical axis.

    Raises UsageError if the extra `report` is not installed.
    """
    alt = _altair()
    scale = alt.Scale(type="log" if log_x else "linear", zero=False, nice=False, padding=12)
    axis = alt.X(
        "x:Q", title=X_TITLES.get(x, x), scale=scale, axis=alt.Axis(format="~e" if log_x else "~g", tickCount=6)
    )
    colour = alt.Color("family:N", title="Family", legend=alt.Legend(orient="bottom"))
    named = {"x": "x:Q", "y": alt.Y("value:Q", title=value, scale=alt.Scale(zero=False))}
    base = alt.Chart(rows.rename(columns={x: "x"})).encode(x=axis, color=colour)
    curve = base.transform_filter(alt.datum.kind == CURVE)
    band = curve.mark_area(opacity=0.18).encode(y=alt.Y("low:Q", title=value), y2="high:Q")
    line = curve.mark_line(strokeWidth=2).encode(y=named["y"])
    points = base.transform_filter(alt.datum.kind != CURVE)
    bars = points.mark_rule().encode(y=alt.Y("low:Q", title=value), y2="high:Q")
    shown = [alt.Tooltip("label:N", title="Checkpoint"), alt.Tooltip("kind:N", title="Kind")]
    shown += [alt.Tooltip("x:Q", title=X_TITLES.get(x, x), format=".4~g")]
    shown += [alt.Tooltip(f"{name}:Q", title=name, format=".4f") for name in ("value", "low", "high")]
    marks = points.mark_point(filled=True, size=60, opacity=1).encode(
        y=named["y"],
        shape=alt.Shape("kind:N", title=None, scale=alt.Scale(domain=[POINT, HELD_OUT], range=["circle", "diamond"])),
        tooltip=shown,
    )
    layered: altair.Chart = alt.layer(band, line, bars, marks).properties(width=480, height=320)
    return layered


def save_chart(chart: altair.TopLevelMixin, path: str | Path) -> Path:
    """Write a chart as SVG, PNG, PDF, HTML or JSON, by the suffix of the file; return the path.

    HTML files include their scripts and open without a network. Raises UsageError for another suffix.
    """
    path = Path(path)
    suffix = path.suffix.removeprefix(".")
    if suffix not in FORMATS:
        raise UsageError(f"{path} has the suffix {suffix!r}; expected one of {', '.join(FORMATS)}")
    _altair()
    inline = {"inline": True} if suffix == "html" else {"scale_factor": 2} if suffix == "png" else {}
    chart.save(str(path), **inline)  # the suffix says the format
    return path


def specification(chart: Chart) -> dict[str, Json]:
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
