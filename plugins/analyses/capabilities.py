"""The command capabilities: principal components of benchmarks, and what families achieve per compute.

The method is that of Ruan et al. 2024.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import harness
from harness import Floats, Ints, LawError, Measured, Range, Table, UsageError
from harness_plugins.laws.capabilities import Space

if TYPE_CHECKING:
    import click
    import pandas as pd

FEWEST = 3  # models of known compute needed to fit a family
DRAWS = 10_000
RIDGE = 1e-6  # keeps the design invertible for the first few models


def coordinates(points: pd.DataFrame, benchmarks: Sequence[str]) -> tuple[pd.DataFrame, Space]:
    """Return points with columns pc1, pc2 .. (principal components of benchmark scores), and their space.

    Ruan et al. 2024, sec. 3; missing scores are imputed. Raises LawError for scores outside [0, 1].
    """
    from harness.points import readable

    scores = np.column_stack([readable(points, name) for name in benchmarks]).astype(np.float64)
    if np.nanmin(scores) < 0 or np.nanmax(scores) > 1:
        raise LawError(f"benchmarks run from {np.nanmin(scores):.4g} to {np.nanmax(scores):.4g}; expected 0 to 1")
    space = Space.of(scores)
    projected = space.coordinates(scores)
    return points.assign(**{f"pc{k}": x for k, x in enumerate(projected.T, 1)}), space


@dataclass(frozen=True)
class Lines:
    """Lines PC1 = theta log10 C + nu of families (F,), with one pooled residual standard deviation.

    `inverse` (F, 2, 2) is (X' X)^-1 of each line, for (theta, nu). `flops` (F, 2) is the range of compute fitted.
    `scatter` is the pooled residual standard deviation with `dof` degrees of freedom.
    """

    names: tuple[str, ...]
    theta: Floats
    nu: Floats
    r2: Floats
    n: Ints
    inverse: Floats
    flops: Floats
    scatter: float
    dof: int

    def errors(self) -> Floats:
        """Return the standard errors (F,) of theta."""
        return np.asarray(self.scatter * np.sqrt(self.inverse[:, 0, 0]))

    def draws(self, family: str, rng: np.random.Generator) -> Floats:
        """Return draws (DRAWS, 2) of theta and nu of a family, from Student's t."""
        f = self.names.index(family)
        scale = self.scatter * np.sqrt(self.dof / rng.chisquare(self.dof, size=(DRAWS, 1)))
        normal = rng.normal(size=(DRAWS, 2)) @ np.linalg.cholesky(self.inverse[f]).T
        return np.asarray([self.theta[f], self.nu[f]] + scale * normal)


def efficiency(points: pd.DataFrame, column: str = "pc1") -> Lines:
    """Fit the line of each family with three models or more of known flops (Ruan et al. 2024, sec. 3.3).

    All lines share one residual variance, because three points leave one degree of freedom. Raises LawError if no
    family has enough models.
    """
    from harness.points import column as values

    known = points[points["flops"] > 0]
    fitted = [(str(f), t) for f, t in known.groupby("family") if t["flops"].nunique() >= FEWEST]
    if not fitted:
        raise LawError(f"no family has {FEWEST} models of known flops; found {len(known)} models with flops in total")
    fits, squares = [], 0.0
    for _, table in fitted:
        x, y = np.log10(values(table, "flops")), values(table, column)
        design = np.column_stack([x, np.ones_like(x)])
        line = np.linalg.lstsq(design, y, rcond=None)[0]
        residual = float(((y - design @ line) ** 2).sum())
        squares += residual
        r2 = 1 - residual / float(((y - y.mean()) ** 2).sum())
        fits.append((line, r2, len(x), np.linalg.inv(design.T @ design), 10 ** np.array([x.min(), x.max()])))
    lines, shares, n, inverse, flops = (np.array(x) for x in zip(*fits, strict=True))
    dof = int(n.sum() - 2 * len(n))
    names = tuple(name for name, _ in fitted)
    return Lines(names, lines[:, 0], lines[:, 1], shares, n, inverse, flops, float(np.sqrt(squares / dof)), dof)


def equivalents(
    points: pd.DataFrame, lines: Lines, reference: str, *, level: float = 0.9, seed: int = 0
) -> list[tuple[pd.Series[Any], Range, Range]]:
    """Return, for each model of known flops, C_eq = 10^((PC1 - nu) / theta) of a reference family, and C_eq / C.

    C_eq is the compute that the reference family needs for the same capability. Intervals are those of the reference
    line. Raises UsageError for a family without a line.
    """
    if reference not in lines.names:
        raise UsageError(f"--reference {reference!r} has no fitted line; expected one of: {', '.join(lines.names)}")
    f, draws = lines.names.index(reference), lines.draws(reference, np.random.default_rng(seed))
    tails = [(1 - level) / 2, (1 + level) / 2]
    equivalent = []
    for _, row in points[points["flops"] > 0].iterrows():
        with np.errstate(over="ignore", divide="ignore"):
            best = 10 ** ((row["pc1"] - lines.nu[f]) / lines.theta[f])
            low, high = np.quantile(10 ** ((row["pc1"] - draws[:, 1]) / draws[:, 0]), tails)
        gain = Range(*(float(x / row["flops"]) for x in (best, low, high)))
        equivalent.append((row, Range(float(best), float(low), float(high)), gain))
    return equivalent


def select(capabilities: Floats, count: int) -> tuple[list[int], float]:
    """Select the rows of (n, K) that minimise the prediction variance at all rows (V-optimality, Ruan et al. 2024).

    Returns row numbers, and the mean prediction variance relative to that with all rows measured (1: no loss). Greedy
    selection is followed by exchanges until none improves the criterion.
    """
    design = np.column_stack([np.ones(len(capabilities)), capabilities])  # (n, K + 1)
    if not design.shape[1] <= count <= len(design):
        raise UsageError(f"{count} models to select: expected {design.shape[1]} to {len(design)}")
    everything = design.T @ design

    def variance(moments: Floats) -> Floats:
        return np.asarray(np.einsum("...ij,ji->...", np.linalg.inv(moments), everything))

    outer = design[:, :, None] * design[:, None, :]  # (n, K + 1, K + 1)
    moments = RIDGE * np.eye(design.shape[1])
    chosen: list[int] = []
    for _ in range(count):
        cost = variance(moments + outer)
        cost[chosen] = np.inf
        chosen.append(int(np.argmin(cost)))
        moments = moments + outer[chosen[-1]]
    while True:
        swaps = variance((moments - outer[chosen])[:, None] + outer)  # (count, n): one out, another in
        swaps[:, chosen] = np.inf
        i, j = np.unravel_index(int(np.argmin(swaps)), swaps.shape)
        if swaps[i, j] >= variance(moments) * (1 - 1e-9):
            break
        moments = moments - outer[chosen[i]] + outer[j]
        chosen[i] = int(j)
    return sorted(chosen), float(variance(moments) / design.shape[1])


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
        kept = projected[[f"pc{k}" for k in range(1, components + 1)]].to_numpy()
        tables.append(_selection(projected, *select(kept, count), components))
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
    left = ", ".join(f"{count} {what}" for what, count in why.items() if count)
    return (f"Excluded from the lines, of {len(points)} models: {left}.",) if left else ()


def _components(space: Space, benchmarks: Sequence[str]) -> Table:
    rows = [("share of variance", *map(float, space.explained))]
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
    low, high = lines.flops[lines.names.index(reference)]
    equivalent = sorted(equivalents(points, lines, reference, level=level), key=lambda model: -model[2].value)
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
    rows = [
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
    return (query(named, where) if where else named), notes
