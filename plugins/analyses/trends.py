"""The command trends: shape of scores over scale (rise, fall, U-shape, break), and emergence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import harness
from harness import HarnessError, LawError, Measured, Range, Table
from harness.tables import noted
from harness_plugins.analyses.curves import Curve, read_curves
from harness_plugins.analyses.emergence import emergence_table
from harness_plugins.analyses.multiple_tests import CORRECTIONS
from harness_plugins.analyses.power_laws import pass_scaling
from harness_plugins.analyses.trend_tests import FEWEST, trend

if TYPE_CHECKING:
    import click
    import pandas as pd

    from harness import PointStore


def trends(
    source: PointStore | pd.DataFrame,
    *,
    level: float = 0.9,
    correction: str = "holm",
    law: str | None = None,
    bootstrap: int = 1000,
    **chosen: Any,
) -> list[Table]:
    """Return tables of the shape of scores over scale, for every task and family.

    :param source: a store, or points; see `read_curves` for it and for task, metric, where and scale.
    :param correction: holm (family-wise error rate) or bh (false discovery rate), over all tests of a table.
    :param law: predicts the largest size (default: sigmoid for values that rise, power for those that fall).

    The tables: `trends` (shape of every curve); `breaks` (the largest size against the law of the smaller ones); for a
    store, `emergence` (continuous metrics before a rise of accuracy); for points with `successes` and `trials`,
    `pass_until` (curvature of pass rates against their power law).
    """
    curves = read_curves(source, **chosen)
    tables = [_trend_table(curves, level, correction)]
    store = source if isinstance(source, harness.PointStore) else None
    if all("params" in curve.points.columns for curve in curves):
        tables.append(_break_table(curves, store, law, {"level": level, "bootstrap": bootstrap}))
    if store:
        tables.append(emergence_table(store, curves, level=level, correction=correction))
    counted = [curve for curve in curves if len(curve.x) >= FEWEST and _counts_passes(curve)]
    return [*tables, *([_pass_table(counted, level)] if counted else [])]


def _trend_table(curves: Sequence[Curve], level: float, correction: str) -> Table:
    fitted, notes = [], []
    for curve in curves:
        try:
            fitted.append(trend(curve, level=level))
        except LawError as error:
            notes.append(str(error))
    p = CORRECTIONS[correction](np.array([t.tests for t in fitted]).ravel()).reshape(-1, 3)
    runs = CORRECTIONS[correction](np.array([t.over_runs for t in fitted]))
    rows = [
        (
            *(t.curve.task, t.curve.family, t.curve.metric, len(t.curve.x), t.rho, t.over_runs, t.u, t.vertex),
            *(t.linearity, t.breakthroughness, t.shape(corrected, 1 - level)),
        )
        for t, corrected in zip(fitted, p, strict=True)
    ]
    columns = ("task", "family", "metric", "runs", "spearman", "p over runs", "u", "vertex", "L", "B", "shape")
    made = int(np.isfinite([t.tests for t in fitted]).sum())
    about = (
        "Last checkpoint of each run over log10 of its scale; values are negated if lower is better. shape: "
        f"significant at {1 - level:.0%}, corrected for {made} tests ({correction}). {level:.0%} intervals are over "
        "documents, for these runs. Without standard errors intervals are ?, and tests use the residuals of runs."
    )
    over = (
        "p over runs: permutation test of spearman; after correction "
        f"{int((runs < 1 - level).sum())} of {len(fitted)} are significant. With five runs, p is at least 0.017."
    )
    letters = (
        "u, vertex: of a quadratic fit; a U-shape needs its vertex inside the range and both arms significant. L, B: "
        "range divided by the root of the mean, and of the median, squared step; a straight line of M runs has M - 1."
    )
    said, less = (about, over, letters, *notes), ("vertex", "u", "L", "B")
    return Table("trends", "Shape of scores over scale", columns, tuple(rows), said, optional=less)


def _break_table(curves: Sequence[Curve], store: PointStore | None, law: str | None, options: dict[str, Any]) -> Table:
    rows, notes, outside = [], [], []
    for curve in curves:
        name = law or ("sigmoid" if curve.rises else "power")
        try:
            held = _held_out(curve, name, store, options)
        except HarnessError as error:
            notes.append(f"{curve.label}: {error}")
            continue
        rows.append((curve.task, curve.family, curve.metric, name, *_against(curve, held)))
        outside += [] if held["inside"] is None else [not held["inside"]]
    chance = (1 - options["level"]) * len(outside)
    about = (
        f"Largest size against the law fitted to the smaller ones: {sum(outside)} of {len(outside)} are outside "
        f"{options['level']:.0%} intervals; about {chance:.1f} are expected by chance. below, above: worse, better "
        "than predicted. last step: change from the second largest size to the largest, with its error over documents."
    )
    columns = ("task", "family", "metric", "law", "measured", "predicted", "last step", "against the law")
    title = "The largest size against the law of the smaller ones"
    return Table("breaks", title, columns, tuple(rows), (about, *notes), optional=("last step", "law", "metric"))


def _against(curve: Curve, held: dict[str, Any]) -> tuple[Any, ...]:
    """Return the measurement and prediction of the largest size, the last step, and the side of the interval."""
    sign = 1 if curve.rises else -1
    step, error = curve.step(len(curve.y) - 2, len(curve.y) - 1)
    better = sign * held["measured"] > sign * held["predicted"]
    side = {True: "within", False: "above" if better else "below", None: "-"}[held["inside"]]
    predicted = Range(held["predicted"], held["low"], held["high"])
    return Measured(held["measured"], held["stderr"]), predicted, Measured(sign * step, error), side


def _held_out(curve: Curve, law: str, store: PointStore | None, options: dict[str, Any]) -> dict[str, Any]:
    """Fit a law without the largest size, and return the prediction of its last checkpoint."""
    registries = store.registries if store else None
    points = curve.points.drop(columns=["metric", "value", "stderr"], errors="ignore")  # wide: the metric is a column
    fit = harness.fit(
        points, law, value=curve.metric, hold_out="largest", store=store, registries=registries, **options
    )
    return dict(fit.hold_out[-1])


def _counts_passes(curve: Curve) -> bool:
    """Return whether the values are successes / trials at known sizes."""
    columns = ["successes", "trials", "params"]
    if not set(columns) <= set(curve.points.columns) or curve.points[columns].isna().any(axis=None):
        return False
    successes, trials = (curve.points[name].to_numpy(dtype=np.float64) for name in columns[:2])
    return bool((trials > 0).all() and (np.abs(successes / trials - curve.y) <= 0.5 / trials + 1e-9).all())


def _pass_table(curves: Sequence[Curve], level: float) -> Table:
    rows = []
    for curve in curves:
        params, successes, trials = (curve.points[name].to_numpy() for name in ("params", "successes", "trials"))
        scaling = pass_scaling(params, successes, trials, level=level)
        rows.append(
            (curve.task, curve.family, len(params), int(trials.min()), scaling.alpha, scaling.curvature, scaling.kind)
        )
    about = (
        "F = ln(-ln pass rate) over ln params. A line is exp(-c N^-alpha) (normal), convex is sub-scaling, concave "
        f"super-scaling. {level:.0%} intervals are over samples."
    )
    columns = ("task", "family", "sizes", "fewest trials", "alpha", "curvature", "kind")
    return Table("pass_until", "Pass rates against their power law", columns, tuple(rows), (about,))


@harness.hookimpl
def register_commands(cli: click.Group) -> None:
    """Add harness trends."""
    import click

    from harness import point_options

    @cli.command("trends")
    @click.argument("points", type=click.Path(path_type=Path))
    @click.option("--task", help="Task to analyse (default: all).")
    @click.option("--metric", help="Metric of a store (default: the task's), or column of a table.")
    @click.option("--where", help="Expression that selects points.")
    @click.option("--scale", default="flops", show_default=True, help="Column with the scale of a run.")
    @click.option("--law", help="Law that predicts the largest size (default: sigmoid or power).")
    @click.option(
        "--correction",
        default="holm",
        show_default=True,
        type=click.Choice(list(CORRECTIONS)),
        help="Correction for multiple tests: holm (family-wise error rate) or bh (false discovery rate).",
    )
    @point_options
    @harness.interval_options
    @harness.table_options
    @click.pass_obj
    def command(
        host: harness.PluginHost, /, points: Path, suffix: str | None, output: Path | None, **asked: Any,
    ) -> None:  # fmt: skip
        """Test whether scores rise or fall with scale, are U-shaped or break, and whether a rise is in accuracy only.

        POINTS is a store, or a CSV or Parquet table as harness import reads it.
        """
        from harness.points import open_asked

        metric = asked.pop("metric")
        source = open_asked(points, asked, host, metrics=[metric] if metric else [])
        asked |= {"where": source.where, "metric": metric if points.is_dir() else None}
        tables = noted(trends(source.store, **asked), source.notes)
        harness.print_tables(tables, host, suffix=suffix, output=output)
