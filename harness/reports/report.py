"""`harness report`: collect what a store holds, fit a law to each task and family, and write one HTML page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.charts import CURVE, HELD_OUT, POINT, scaling_chart
from harness.errors import LawError, PluginError, UsageError
from harness.files import write_whole
from harness.fitting.columns import query
from harness.fitting.fit import fit_families
from harness.fitting.result import LawFit
from harness.fitting.runs import label
from harness.origins import describe
from harness.registries import Registries
from harness.reports.page import render
from harness.reports.panels import LEVELS, Panel, ReportData
from harness.store.points import PointStore
from harness.tables import Table

SCALES = ("flops", "params", "tokens", "loss")
GRID = 60  # places on a curve
BEYOND = 4.0  # factor beyond the largest compute up to which curves are drawn
RANKS = 3  # wrong choices of each document that are shown, by their log-probability


def write_report(
    store: PointStore,
    path: str | Path,
    *,
    law: str = "sigmoid",
    hold_out: str = "largest",
    title: str | None = None,
    where: str | None = None,
    tables: Sequence[Table] = (),
) -> Path:
    """Write the report of a store as one self-contained HTML page; return its path.

    :param law: the law drawn through the points of each task and family. Tasks that it does not describe have none.
    :param hold_out: which points the law does not see: an expression or "largest".
    :param where: an expression over points; others are left out.
    :param tables: tables shown below the figures, such as those of `harness.compare`.

    Raises StoreError when the store is empty, UsageError when the extra `report` is not installed, PluginError when a
    panel of a plugin fails.
    """
    data = collect(store, law=law, hold_out=hold_out, title=title, where=where)
    panels = dict(_panels(data, store.registries))
    owners = {name: store.registries.panels.entries[name].plugin for name in panels}
    foreign = {name: plugin for name, plugin in owners.items() if not plugin.startswith("panels.")}
    page = render(data, panels, tables, foreign)
    path = Path(path)
    write_whole(path, page.encode("utf-8", "replace"))
    return path


def _panels(data: ReportData, registries: Registries) -> Iterator[tuple[str, Panel]]:
    """Yield the figures of all panels that have something to show, in the order of registration."""
    for name, entry in registries.panels.entries.items():
        try:
            panel = entry.value(data)
        except Exception as error:  # a panel of a plugin may fail in any way; the message names it
            raise PluginError(f"panel {name!r} of plugin {entry.plugin!r} failed: {describe(error)}") from error
        if panel is None:
            continue
        if not isinstance(panel, Panel):
            raise PluginError(f"panel {name!r} of plugin {entry.plugin!r} returned {panel!r}; expected a harness.Panel")
        if len(panel.rows):
            yield name, panel


def collect(
    store: PointStore,
    *,
    law: str,
    hold_out: str,
    title: str | None = None,
    task: str | None = None,
    where: str | None = None,
) -> ReportData:
    """Return the data of a report, of one task or of all. Raises StoreError when there is nothing in the store."""
    if law not in store.registries.laws:
        raise UsageError(f"there is no law {law!r}; there are: {', '.join(store.registries.laws)}")
    measured = store.points(task)
    measured = query(measured, where) if where else measured
    shown = measured["metric"] == measured["task"].map(store.tasks())
    if not shown.any():
        raise UsageError(f"none of {len(measured)} points is left{f' of {where}' if where else ''}; nothing to draw")
    fits, notes = _fits(measured[shown], law, hold_out, store)
    points = _labelled(measured).assign(shown=shown)
    return ReportData(
        title=title or f"Scaling report of {store.path.name}",
        points=points,
        curves=pd.concat([_curve(*fit, points) for fit in fits], ignore_index=True) if fits else pd.DataFrame(),
        held_out=_held_out(fits),
        choices=_choices(store, task),
        runs=_runs(points),
        notes=notes,
    )


def _labelled(points: pd.DataFrame) -> pd.DataFrame:
    """Return points with the column label, the name of the checkpoint."""
    return points.assign(label=[label(row) for _, row in points.iterrows()])


Fit = tuple[str, str, LawFit]


def _fits(shown: pd.DataFrame, law: str, hold_out: str, store: PointStore) -> tuple[list[Fit], list[str]]:
    """Fit the law to each task and family; return the fits and a note on those that have none."""
    found: list[Fit] = []
    without: list[str] = []
    for (task, metric), own in shown.groupby(["task", "metric"]):
        errors = store if store.holds_errors_of(own) else None
        for family, result in fit_families(own, law, value=str(metric), hold_out=hold_out, store=errors):
            if isinstance(result, LawError):
                without.append(f"{task}, {family}")
            else:
                found.append((str(task), family, result))
    notes = [f"The law {law} does not describe {'; '.join(without)}: no curve is drawn."] if without else []
    return found, notes


def _curve(task: str, family: str, fit: LawFit, points: pd.DataFrame) -> pd.DataFrame:
    """Return places on a fitted curve, with intervals at all levels.

    Other scales than compute are interpolated in logarithms between the final checkpoints of the sizes.
    """
    own = points[(points["task"] == task) & (points["family"] == family) & points["shown"]]
    low, high = float(own["flops"].min()), float(own["flops"].max()) * BEYOND
    grid = pd.DataFrame({"flops": np.geomspace(low, high, GRID)})
    finals = own.sort_values("flops").groupby("size", sort=False).tail(1).sort_values("flops")
    for name in SCALES[1:]:
        grid[name] = _interpolated(finals, name, grid["flops"].to_numpy())
    try:
        columns = {"value": fit.predict(grid)["value"]}
        for level in LEVELS:
            predicted = replace(fit, options=replace(fit.options, level=level)).predict(grid)
            columns |= {f"{end}_{level:.0%}".rstrip("%"): predicted[end] for end in ("low", "high")}
    except LawError:
        return pd.DataFrame()
    return grid.assign(task=task, family=family, metric=fit.value, law=fit.law, **columns)


def _interpolated(finals: pd.DataFrame, name: str, flops: np.ndarray[Any, np.dtype[np.float64]]) -> Any:
    known = finals[["flops", name]].dropna() if name in finals.columns else pd.DataFrame()
    if len(known) < 2 or (known <= 0).any(axis=None):
        return np.nan
    inside = flops <= known["flops"].max()
    values = np.exp(np.interp(np.log(flops), np.log(known["flops"]), np.log(known[name])))
    return np.where(inside, values, np.nan)


def _held_out(fits: Sequence[Fit]) -> pd.DataFrame:
    rows = [
        {"task": task, "family": family, "law": fit.law, "metric": fit.value, "label": held["point"], **held}
        for task, family, fit in fits
        for held in fit.hold_out
    ]
    return pd.DataFrame(rows)


def _choices(store: PointStore, task: str | None) -> pd.DataFrame:
    """Return mean log-probabilities (nats) of the gold choice and of the best wrong ones, one row per cell and rank."""
    rows = []
    for cell in store.selected(task):
        if store.is_sampled(cell.id):
            continue
        scores = store.load(cell.id)
        if "choices" not in scores.offers or "one_gold" not in scores.offers:
            continue
        ranked = _ranked(scores.logprob, scores.is_gold, scores.doc)
        c = cell.checkpoint
        rows += [
            {"task": cell.task, "family": c.family, "label": c.label, "choice": name, "value": value}
            | {scale: getattr(c, scale) for scale in SCALES}
            for name, value in ranked.items()
        ]
    return pd.DataFrame(rows)


def _ranked(logprob: Any, is_gold: Any, doc: Any) -> dict[str, float]:
    """Return the mean log-probability of the gold choice and of the wrong choices by rank within their document."""
    frame = pd.DataFrame({"logprob": logprob, "doc": doc})
    wrong = frame[~is_gold]
    rank = wrong.groupby("doc")["logprob"].rank(method="first", ascending=False)
    means = wrong["logprob"].groupby(rank).mean()
    named = {f"wrong choice {int(k)}": float(v) for k, v in means.items() if k <= RANKS}
    return {"gold": float(frame[is_gold]["logprob"].mean()), **named}


def _runs(points: pd.DataFrame) -> pd.DataFrame:
    shown = points[points["shown"]]
    columns = [name for name in ("family", "size", "label", *SCALES, "engine", "dtype") if name in shown.columns]
    counted = shown.groupby("label", sort=False)[["truncated", "ties"]].sum(min_count=1).reset_index()
    return shown[columns].drop_duplicates("label").merge(counted, on="label").reset_index(drop=True)


def plot_task(
    store: PointStore, task: str, *, law: str, hold_out: str, x: str, log_x: bool, where: str | None = None
) -> Any:
    """Return an Altair chart of one task: points with error bars, the law with its 90 % interval, held-out points.

    Raises StoreError when the store has no such task, UsageError when the extra `report` is not installed.
    """
    data = collect(store, law=law, hold_out=hold_out, task=task, where=where)
    shown = data.points[data.points["shown"]].assign(kind=POINT)
    if len(data.held_out):
        shown.loc[shown["label"].isin(data.held_out["label"]), "kind"] = HELD_OUT
    curves = data.curves.rename(columns={"low_90": "low", "high_90": "high"}).assign(kind=CURVE, label="")
    columns = ["family", "label", "kind", "value", "low", "high", x]
    rows = pd.concat([shown[columns], curves[columns]] if len(data.curves) else [shown[columns]], ignore_index=True)
    metric = str(shown["metric"].iloc[0])
    return scaling_chart(rows.dropna(subset=[x]), x=x, value=metric, log_x=log_x).properties(title=task)
