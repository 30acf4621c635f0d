"""`harness report`: collect what a store holds, fit a law to each task and family, and write one HTML page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from harness.charts import LEVELS, SCALES, Panel, ReportData
from harness.errors import LawError, PluginError, StoreError, UsageError, choose, suggest
from harness.files import write_whole
from harness.fitting.fit import fit_families
from harness.fitting.fit_files import via_of
from harness.fitting.hold_out import hold_out_notes
from harness.fitting.point_source import table_points
from harness.fitting.result import LawFit
from harness.fitting.runs import label
from harness.host import default_host
from harness.host.origins import PLUGIN_ERRORS, describe
from harness.host.registries import Registries
from harness.reports.documents import document_rows, read_documents
from harness.reports.figure_data import back_tests, forecasts, two_steps
from harness.reports.page import render
from harness.store.points import PointStore
from harness.tables import Table, printable
from harness.types import Bools, Floats, Ints

V = TypeVar("V")
RISING = "sigmoid"  # the law of scores
GRID = 60  # places on a curve
BEYOND = 4.0  # factor beyond the largest compute up to which curves are drawn
SHOWN = 8  # documents of each task in the report
RANKS = 3  # wrong choices of each document that are shown, by their log-probability


def write_report(
    source: PointStore | pd.DataFrame,
    path: str | Path,
    *,
    law: str | None = None,
    hold_out: str = "largest",
    title: str | None = None,
    tables: Sequence[Table] = (),
    notes: Sequence[str] = (),
    registries: Registries | None = None,
) -> Path:
    """Write the report of a store or of points as one self-contained HTML page; return its path.

    :param source: a store, or a table as `harness import` reads it: long, or wide with one column per benchmark.
    :param law: the law drawn through the points of each task and family (default: sigmoid for scores from 0 to 1 that
        rise, power for values that fall, else line). Tasks that it does not describe have none.
    :param hold_out: which points the law does not see: an expression or "largest".
    :param tables: tables shown below the figures, such as those of `harness.compare`.
    :param notes: shown above those of the figures, such as how a table was read.

    Raises StoreError when the store is empty, UsageError when the extra `report` is not installed, PluginError when a
    panel of a plugin fails.
    """
    registries = _registries(source, registries)
    data = collect(source, law=law, hold_out=hold_out, title=title, registries=registries)
    data = replace(data, notes=[*map(printable, notes), *data.notes])
    panels = dict(_panels(data, registries))
    owners = {name: registries.panels.entries[name].plugin for name in panels}
    foreign = {name: plugin for name, plugin in owners.items() if not plugin.startswith("panels.")}
    page = render(data, panels, tables, foreign)
    path = Path(path)
    write_whole(path, page.encode("utf-8", "replace"))
    return path


def _registries(source: PointStore | pd.DataFrame, registries: Registries | None) -> Registries:
    return registries or (source.registries if isinstance(source, PointStore) else default_host())


def _panels(data: ReportData, registries: Registries) -> Iterator[tuple[str, Panel]]:
    """Yield the figures of all panels that have something to show, in the order of registration."""
    for name, entry in registries.panels.entries.items():
        try:
            panel = entry.value(data)
        except PLUGIN_ERRORS as error:  # a panel of a plugin may fail in any way; the message names it
            raise PluginError(f"panel {name!r} of plugin {entry.plugin!r} failed: {describe(error)}") from error
        if panel is None:
            continue
        if not isinstance(panel, Panel):
            raise PluginError(f"panel {name!r} of plugin {entry.plugin!r} returned {panel!r}; expected a harness.Panel")
        if len(panel.rows):
            yield name, panel


def collect(
    source: PointStore | pd.DataFrame,
    *,
    law: str | None = None,
    hold_out: str,
    title: str | None = None,
    task: str | None = None,
    registries: Registries | None = None,
) -> ReportData:
    """Return the data of a report, of one task or of all. Raises StoreError when there is nothing in the store."""
    registries, notes = _registries(source, registries), list[str]()
    if law is not None and law not in registries.laws:
        raise UsageError(f"there is no law {law!r}; {suggest(law, registries.laws)}")
    store = source if isinstance(source, PointStore) else table_points(source, registries=registries)
    points = _points(store, task)
    fits = list(_fits(points, law, hold_out, store=store, registries=registries, note=notes.append))
    curves = [_curve(*fit, points) for fit in fits]
    more: dict[str, pd.DataFrame] = {}
    if task is None:  # a single figure needs none of these
        more = {
            "two_steps": two_steps(points, hold_out, registries, notes.append),
            "forecasts": forecasts(points, registries, notes.append),
            "back_tests": back_tests(points, law or RISING, registries, notes.append),
            "documents": _documents(store),
        }
    return ReportData(
        title=printable(title or f"Scaling report of {store.path.name}"),
        points=_printable(points),
        curves=_printable(pd.concat(curves, ignore_index=True) if curves else pd.DataFrame()),
        held_out=_printable(_held_out(fits)),
        choices=_printable(_choices(store, task)),
        runs=_printable(_runs(points)),
        notes=[printable(note) for note in notes],
        **{name: _printable(frame) for name, frame in more.items()},
    )


def _points(store: PointStore, task: str | None) -> pd.DataFrame:
    """Return long points with the name of each checkpoint, a mark at the metric that each task shows, and whether that
    metric is a rate.

    Raises UsageError where no point says how large its model is.
    """
    points, task_metrics = store.points(task), store.tasks(task)
    if not scales_of(points):
        columns = choose(name for name in points.columns if points[name].notna().any())
        raise UsageError(f"{store.path} has no params, tokens, flops or loss; columns are: {columns}; see --map")
    points = points.assign(label=[label(row) for _, row in points.iterrows()])
    shown = points["metric"] == points["task"].map(task_metrics)
    rises = points["metric"].isin([metric for metric in set(task_metrics.values()) if store.rises(metric)])
    is_no_rate = shown & ~(points["value"].between(0, 1) & rises)
    return points.assign(shown=shown, is_rate=~points["task"].isin(set(points["task"][is_no_rate])))


def scales_of(points: pd.DataFrame) -> list[str]:
    """Return the scales that some point has."""
    return [name for name in SCALES if name in points.columns and points[name].notna().any()]


def _documents(store: PointStore) -> pd.DataFrame:
    """Return the documents of each task that divide families most; none for a store without choices."""
    try:
        return document_rows(read_documents(store), sort="disagreement", count=SHOWN)
    except StoreError:
        return pd.DataFrame()


def _printable(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame whose texts, names of families and tasks among them, hold no control characters."""
    texts = [name for name in frame.columns if frame[name].dtype.kind not in "fiub"]
    return frame.assign(**{name: frame[name].map(_shown) for name in texts})


def _shown(value: V) -> V | str:
    return printable(value) if isinstance(value, str) else value


Fit = tuple[str, str, LawFit]


def _fits(
    points: pd.DataFrame,
    law: str | None,
    hold_out: str,
    *,
    note: Callable[[str], None],
    store: PointStore,
    registries: Registries,
) -> Iterator[Fit]:
    """Fit a law to each task and family; note why those without a curve have none."""
    for (task, metric), task_points in points[points["shown"]].groupby(["task", "metric"]):
        known = store if store.holds_errors_of(task_points) else None
        name = law or _default_law(task_points["value"], rises=store.rises(str(metric)))
        options: dict[str, Any] = {"hold_out": hold_out, "store": known, "registries": registries}
        between = points[(points["task"] == task) & (points["metric"] == via_of(name, registries))]
        task_points = pd.concat([task_points, between.loc[between.index.difference(task_points.index)]])
        for said in hold_out_notes(task_points, hold_out):
            note(f"{task}: {said}")
        try:
            for family, result in fit_families(task_points, name, value=str(metric), **options):
                if isinstance(result, LawError):
                    note(f"{name}: {task}, {family}: {result}")
                    continue
                if result.no_freedom:
                    note(f"{name}: {task}, {family}: no interval is drawn: {result.no_freedom}")
                yield str(task), family, result
        except LawError as error:
            note(f"{name}: {task}: {error}")


def _default_law(values: pd.Series, *, rises: bool) -> str:
    """Return the law of values that rise as scores do, of values that fall as losses do, or of any."""
    is_share = bool(values.between(0, 1).all())
    return RISING if rises and is_share else "line" if rises else "power"


def _curve(task: str, family: str, fit: LawFit, points: pd.DataFrame) -> pd.DataFrame:
    """Return places on a fitted curve, with intervals at all levels.

    Other scales than compute are interpolated in logarithms between the final checkpoints of the sizes. Places on them
    are missing where compute does not follow from them: below the smallest size, and where sizes share their tokens.
    """
    family_points = points[(points["task"] == task) & (points["family"] == family) & points["shown"]]
    low, high = float(family_points["flops"].min()), float(family_points["flops"].max()) * BEYOND
    grid = pd.DataFrame({"flops": np.geomspace(low, high, GRID)})
    finals = family_points.sort_values("flops").groupby("size", sort=False).tail(1).sort_values("flops")
    for name in SCALES[1:]:
        grid[name] = _interpolated(finals, name, grid["flops"].to_numpy())
    try:
        columns = {"value": fit.predict(grid)["value"]}
        for level in LEVELS:
            predicted = replace(fit, options=replace(fit.options, level=level)).predict(grid)
            columns |= {f"{end}_{level:.0%}".rstrip("%"): predicted[end] for end in ("low", "high")}
    except LawError:
        return pd.DataFrame()
    for name in SCALES[1:]:
        grid.loc[~_follows(finals, name, grid["flops"].to_numpy()), name] = np.nan
    return grid.assign(task=task, family=family, metric=fit.value, law=fit.law, **columns)


def _follows(finals: pd.DataFrame, name: str, flops: Floats) -> Bools:
    """Mark the places (n,) at which compute follows from another scale, which grows or falls from size to size."""
    known = finals[["flops", name]].dropna() if name in finals.columns else pd.DataFrame()
    steps = np.diff(known[name]) if len(known) > 1 else np.zeros(1)
    if not ((steps > 0).all() or (steps < 0).all()):
        return np.zeros(len(flops), dtype=bool)
    return np.asarray((flops >= known["flops"].min()) & (flops <= known["flops"].max()))


def _interpolated(finals: pd.DataFrame, name: str, flops: Floats) -> Floats | float:
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


def _ranked(logprob: Floats, is_gold: Bools, doc: Ints) -> dict[str, float]:
    """Return the mean log-probability of the gold choice and of the wrong choices by rank within their document."""
    frame = pd.DataFrame({"logprob": logprob, "doc": doc})
    wrong = frame[~is_gold]
    rank = wrong.groupby("doc")["logprob"].rank(method="first", ascending=False)
    means = wrong["logprob"].groupby(rank).mean()
    named = {
        f"wrong choice {int(k)}": float(v) for k, v in zip(means.index.to_numpy(), means, strict=True) if k <= RANKS
    }
    return {"gold": float(frame[is_gold]["logprob"].mean()), **named}


def _runs(points: pd.DataFrame) -> pd.DataFrame:
    shown = points[points["shown"]]
    columns = [name for name in ("family", "size", "label", *SCALES, "engine", "dtype") if name in shown.columns]
    counts = [name for name in ("truncated", "ties") if name in shown.columns]
    counted = shown.groupby("label", sort=False)[counts].sum(min_count=1).reset_index()
    return shown[columns].drop_duplicates("label").merge(counted, on="label").reset_index(drop=True)
