"""The command capabilities: principal components of benchmarks, and what families achieve per compute.

The method is that of Ruan et al. 2024.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import harness
from harness import LawError, Measured, Table
from harness.tables import Cell
from harness_plugins.analyses.capability_lines import FEWEST, Lines, coordinates, efficiency, equivalents, select
from harness_plugins.laws.capabilities import Space

if TYPE_CHECKING:
    import click
    import pandas as pd


def capabilities(
    points: pd.DataFrame,
    benchmarks: Sequence[str],
    *,
    reference: str | None = None,
    count: int | None = None,
    components: int = 3,
    level: float = 0.9,
) -> list[Table]:
    """Return tables of the principal components, of PC1 over compute per family, and of compute equivalents.

    :param points: one row per model, with family, flops (missing if unknown) and one column per benchmark (0 to 1).
    :param reference: a family; adds a table of the compute that it needs for the capability of every model.
    :param count: number of models to select so that they best predict all others in the first `components`.
    """
    missing = {"family", "flops"} - set(points.columns)
    if missing:
        raise LawError(
            f"the points have no column {', '.join(sorted(missing))}; expected family and flops for every model"
        )
    from harness.points import refuse_twice
    from harness.tables import noted

    points = points.reset_index(drop=True)
    refuse_twice(points)
    projected, space = coordinates(points, benchmarks)
    lines = efficiency(projected)
    tables = [_components(space, benchmarks), *noted([_families(lines)], _left_out(points, lines))]
    if reference:
        tables.append(_equivalents(projected, lines, reference, level))
    if count:
        coordinates_of_models = projected[[f"pc{k}" for k in range(1, components + 1)]].to_numpy()
        chosen, loss = select(coordinates_of_models, count)
        tables.append(_selection(projected, chosen, loss, components))
    return tables


def _left_out(points: pd.DataFrame, lines: Lines) -> tuple[str, ...]:
    """Return a note on the models excluded from the lines, by reason."""
    known, named = points["flops"] > 0, points["family"].notna()
    few = known & named & ~points["family"].astype(str).isin(lines.names)
    why = {
        "of unknown flops": int((~known).sum()),
        "of unknown family": int((known & ~named).sum()),
        f"of families with fewer than {FEWEST} budgets": int(few.sum()),
    }
    left = ", ".join(f"{count} {reason}" for reason, count in why.items() if count)
    return (f"Excluded from the lines, of {len(points)} models: {left}.",) if left else ()


def _components(space: Space, benchmarks: Sequence[str]) -> Table:
    rows: list[tuple[Cell, ...]] = [("share of variance", *map(float, space.explained))]
    rows += [(name, *map(float, loadings)) for name, loadings in zip(benchmarks, space.axes.T, strict=True)]
    columns = ("", *(f"PC{k}" for k in range(1, len(space.axes) + 1)))
    return Table("components", "Principal components of the benchmarks", columns, tuple(rows))


def _families(lines: Lines) -> Table:
    order = np.argsort(-lines.theta, kind="stable")
    errors = lines.errors()
    rows = [
        (lines.names[f], int(lines.n[f]), Measured(float(lines.theta[f]), float(errors[f])), float(lines.r2[f]))
        for f in order
    ]
    about = (
        f"PC1 = theta log10 FLOPs + nu per family, with a pooled residual standard deviation of {lines.scatter:.3g} "
        f"({lines.dof} degrees of freedom)."
    )
    return Table("efficiency", "PC1 from compute", ("family", "models", "theta", "R2"), tuple(rows), (about,))


def _equivalents(points: pd.DataFrame, lines: Lines, reference: str, level: float) -> Table:
    equivalent = sorted(equivalents(points, lines, reference, level=level), key=lambda model: -model[2].value)
    low, high = lines.flops[lines.names.index(reference)]
    rows = [
        (_name(dict(row)), float(row["flops"]), best, gain, max(1.0, low / best.value, best.value / high))
        for row, best, gain in equivalent
    ]
    notes = (
        f"Intervals ({level:.0%}) are those of the line of {reference}, without the error of each model's scores.",
        f"beyond: factor by which that compute lies outside the fitted range, {low:.3g} to {high:.3g} FLOPs.",
        "A gain is not meaningful far below that range, where benchmarks are at chance.",
    )
    columns = ("model", "FLOPs", f"FLOPs of {reference}", "gain", "beyond")
    return Table("equivalents", f"Compute that {reference} needs for the same PC1", columns, tuple(rows), notes)


def _selection(points: pd.DataFrame, chosen: Sequence[int], loss: float, components: int) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (_name(dict(points.iloc[i])), *(float(points[f"pc{k}"][i]) for k in range(1, components + 1))) for i in chosen
    ]
    about = f"Prediction variance ({components} components) relative to that of all {len(points)} models: {loss:.3g}."
    columns = ("model", *(f"PC{k}" for k in range(1, components + 1)))
    return Table("selection", "Models that best predict the others", columns, tuple(rows), (about,))


def _name(row: Mapping[str, Any]) -> str:
    import pandas as pd

    from harness.points import label

    named = {**row, "label": row["model"]} if "model" in row and "label" not in row else row
    return label(pd.Series(dict(named)))


@harness.hookimpl
def register_commands(cli: click.Group) -> None:
    """Add harness capabilities."""
    import click

    @cli.command("capabilities")
    @click.argument("points", type=click.Path(path_type=Path))
    @click.option("--benchmarks", required=True, help="Columns with scores from 0 to 1, separated by commas.")
    @click.option("--reference", help="Family in whose compute all models are expressed.")
    @click.option(
        "--select", "count", type=click.IntRange(min=2), help="Number of models to select for a new benchmark."
    )
    @click.option(
        "--components",
        default=3,
        show_default=True,
        type=click.IntRange(1, 5),
        help="Number of components used for the selection.",
    )
    @click.option(
        "--map", "renames", multiple=True, metavar="THEIRS=OURS", help="Rename or compute a column, as in harness fit."
    )
    @click.option(
        "--level",
        default=0.9,
        show_default=True,
        type=click.FloatRange(0.01, 0.999),
        help="Coverage level of the intervals.",
    )
    @click.option("--where", metavar="EXPR", help="Expression that selects models.")
    @click.option("--label", metavar="COLUMN", help="Column with the names of models.")
    @harness.duplicates_option
    @harness.table_options
    @click.pass_obj
    def command(
        host: harness.PluginHost, /, points: Path, benchmarks: str, suffix: str | None, output: Path | None,
        **asked: Any,
    ) -> None:  # fmt: skip
        """Compute the shared components of benchmarks for models of many families, and compare the families' use of
        compute.

        POINTS is a CSV or Parquet table with one row per model: family, flops, and one column per benchmark; or a store
        whose tasks are the benchmarks, each in its own metric. Missing scores are imputed.
        """
        from harness.tables import noted

        how = {name: asked.pop(name) for name in ("renames", "where", "label", "drop_duplicates")}
        models, notes = _models(points, host, **how)
        names = [name.strip() for name in benchmarks.split(",") if name.strip()]
        harness.print_tables(noted(capabilities(models, names, **asked), notes), host, suffix=suffix, output=output)


def _models(
    path: Path, host: Any, *, renames: Sequence[str], where: str | None, label: str | None, drop_duplicates: bool
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return one row per model from a table or a store, and notes."""
    from harness.points import benchmark_table, labelled, query, read_table, renamed

    notes: tuple[str, ...] = ()
    if path.is_dir():
        table = benchmark_table(harness.open_store(path, registries=host))
    else:
        table, notes = read_table(path, drop_duplicates=drop_duplicates)
    named = renamed(table, labelled(renames, label))
    return query(named, where), notes
