"""The command decide: do small scales rank families as the large scale does (Magnusson et al. 2025, DataDecide)?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import harness
from harness import Floats, LawError, Measured, Range, Table, UsageError
from harness_plugins.analyses.decisions import agreement, mean_known, signal_to_noise
from harness_plugins.analyses.equal_points import shared_documents
from harness_plugins.analyses.multiple_tests import CORRECTIONS
from harness_plugins.analyses.ranking_tests import clear_pairs, unequal_sizes, untested
from harness_plugins.analyses.rankings import PROXIES, DecideOptions, Ranking, Scale, large_rows, read_rankings

if TYPE_CHECKING:
    import click
    import pandas as pd

    from harness import LawFit, PointStore

SPAN = 1.5  # ratio of tokens above which late checkpoints differ by learning, not only by noise


def decide(store: PointStore, *, task: str | None = None, where: str | None = None, **options: Any) -> list[Table]:
    """Return tables that compare the ranking of families at small scales with that at the large scale, for every task.

    :param where: an expression that selects points.
    :param options: small (expressions, each of which selects one size per family; default: every rung below the
        largest, counted from the smallest), large (an expression, or largest), metric (ranks families at the large
        scale; default: the task's), late (number of last checkpoints per run used to measure noise), law (used for
        crossings; default: sigmoid for values that rise, power for those that fall), level, correction (holm or bh),
        bootstrap, seed.

    The tables: `decisions` (share of pairs of families that a small scale orders correctly, by the metric itself and by
    continuous metrics), `pairs` (one row per pair), `noise` (difference of families relative to the noise of late
    checkpoints) and `crossovers` (compute at which the laws of two families cross). Raises UsageError for fewer than
    two families, and for expressions that select no size of a family or several.
    """
    chosen = DecideOptions(**options)
    rankings = list(read_rankings(store, task, where, chosen))
    if not rankings:
        raise UsageError(f"{store.path} has no task {task or ''} with choices and a metric that ranks families")
    first = [table(rankings, chosen) for table in (_decisions, _pairs, _noise)]
    return [*first, _crossovers(store, rankings, chosen)]


def _decisions(rankings: Sequence[Ranking], options: DecideOptions) -> Table:
    proxies = [name for name in PROXIES if any(name in ranking.large.values for ranking in rankings)]
    used = [ranking for ranking in rankings if set(proxies) <= set(ranking.large.values)]
    if not used:  # no task has all of them
        proxies, used = [], list(rankings)
    tested = clear_pairs(rankings, options)
    task_of_pair = np.repeat([ranking.task for ranking in rankings], [_count(ranking) for ranking in rankings])
    rows = []
    for label in small_scales(used):
        at_label = [ranking for ranking in used if label in ranking.small]
        clear = tested[np.isin(task_of_pair, [ranking.task for ranking in at_label])] == 1
        for metric in ("", *proxies):
            values, draws = _agreements(at_label, label, metric)
            rows.append(
                (
                    *(label, metric or "the metric itself", len(at_label), int(np.isfinite(values).sum())),
                    *(_share(values, draws, options), int(clear.sum())),
                    _share(values[clear], draws[:, clear], options),
                )
            )
    tested = tested[np.isin(task_of_pair, [ranking.task for ranking in used])]
    left = sorted({ranking.task for ranking in rankings} - {ranking.task for ranking in used})
    excluded = f" (tasks without choices are excluded: {', '.join(left)})" if left else ""
    about = (
        f"agree: share of pairs of families that the small scale orders as the large one ({options.large}), over tasks"
        f"{excluded}; chance is 0.5. clear pairs: "
        f"the difference at the large scale is significant at {1 - options.level:.0%} ({options.correction})."
    )
    caution = (
        f"{options.level:.0%} intervals are over documents, which both scales share. They do not include the sampling "
        "of families. Pairs that share a family are not independent."
    )
    columns = ("small", "ranked by", "tasks", "pairs", "agree", "clear pairs", "agree where clear")
    title = "Agreement of small scales with the large scale in ranking families"
    said = (about, caution, *unequal_sizes(rankings, options.large), *untested(tested))
    return Table("decisions", title, columns, tuple(rows), said, optional=("tasks", "clear pairs"))


def small_scales(rankings: Sequence[Ranking]) -> list[str]:
    """Return the labels of the small scales that some task has."""
    return list(dict.fromkeys(label for ranking in rankings for label in ranking.small))


def _share(values: Floats, draws: Floats, options: DecideOptions) -> Range:
    """Return the share of pairs (P,) that agree, with its interval; unknown if the errors of a pair are."""
    unknown = np.isfinite(values) & np.isnan(draws).all(axis=0)
    shares = np.empty(0) if unknown.any() else mean_known(draws)
    share: Range = options.range(float(mean_known(values)), shares)
    return share


def _count(ranking: Ranking) -> int:
    return len(ranking.families) * (len(ranking.families) - 1) // 2


def _agreements(rankings: Sequence[Ranking], label: str, metric: str) -> tuple[Floats, Floats]:
    """Return the agreement of all tasks' pairs (P,) and its draws (R, P), ranked by a metric at a small scale."""
    values, draws = [], []
    for ranking in rankings:
        name, small = metric or ranking.metric, ranking.small[label]
        values.append(agreement(small.values[name], ranking.large.values[ranking.metric]))
        draws.append(agreement(small.draws[name], ranking.large.draws[ranking.metric]))
    return np.concatenate(values), np.concatenate(draws, axis=1)


def _pairs(rankings: Sequence[Ranking], options: DecideOptions) -> Table:
    clear, labels = iter(clear_pairs(rankings, options)), small_scales(rankings)
    clear_at_small = {
        label: iter(clear_pairs([ranking for ranking in rankings if label in ranking.small], options, label))
        for label in labels
    }
    rows = []
    for ranking in rankings:
        for i, j in combinations(range(len(ranking.families)), 2):
            values, draws = ranking.large.values[ranking.metric], ranking.large.draws[ranking.metric]
            error = float((draws[:, i] - draws[:, j]).std(ddof=1))
            is_clear = next(clear)
            ahead = [
                _ahead(ranking, ranking.small[label], (i, j), next(clear_at_small[label]) == 1)
                if label in ranking.small
                else None
                for label in labels
            ]
            names = (ranking.families[i], ranking.families[j])
            rows.append(
                (
                    *(ranking.task, ranking.metric, *names, Measured(float(values[i] - values[j]), error)),
                    *(None if np.isnan(is_clear) else bool(is_clear), *ahead),
                )
            )
    about = (
        "A - B: difference of the metric at the large scale (sign reversed if lower is better), with the standard "
        f"error over paired documents, or from the standard errors of a table. clear: significant at "
        f"{1 - options.level:.0%} ({options.correction}). Other columns: the better family at each small scale, in "
        "brackets if the difference is not significant."
    )
    columns = ("task", "metric", "A", "B", "A - B", "clear", *labels)
    return Table("pairs", "Pairs of families", columns, tuple(rows), (about,))


def _ahead(ranking: Ranking, scale: Scale, pair: tuple[int, int], clear: bool) -> str:
    a, b = (scale.values[ranking.metric][i] for i in pair)
    name = "neither" if a == b else ranking.families[pair[0] if a > b else pair[1]]
    return name if clear else f"({name})"


def _noise(rankings: Sequence[Ranking], options: DecideOptions) -> Table:
    rows, notes, spans = [], [], []
    for ranking in rankings:
        runs = list(late_runs(ranking.points, options.late))
        try:
            ratio = signal_to_noise(
                ranking.points[large_rows(ranking.points, options.large)][ranking.metric].to_numpy(),
                [run[ranking.metric].to_numpy() for run in runs],
                level=options.level,
            )
        except LawError as error:
            notes.append(f"{ranking.task}: {error}")
            continue
        spans += [float(run["tokens"].max() / run["tokens"].min()) for run in runs if run["tokens"].notna().all()]
        names = ", ".join(f"{run['family'].iloc[0]} {run['size'].iloc[0]}" for run in runs)
        values = ranking.large.values[ranking.metric]
        rows.append((ranking.task, ranking.metric, float(np.ptp(values)), ratio, names))
    about = (
        "signal: largest difference of two families at the large scale. signal to noise: signal divided by the "
        f"standard deviation over the last {options.late} checkpoints of a run, both relative to their means (Heineman "
        f"et al. 2025), with its {options.level:.0%} interval. Noise is measured on each family's largest size with "
        "several checkpoints."
    )
    if spans and max(spans) > SPAN:
        notes.append(
            f"The tokens of the late checkpoints differ by a factor of up to {max(spans):.3g}. These checkpoints "
            "differ by learning as well as noise, so signal to noise is underestimated."
        )
    columns = ("task", "metric", "signal", "signal to noise", "late checkpoints of")
    return Table("noise", "Differences between families relative to noise", columns, tuple(rows), (about, *notes))


def late_runs(points: pd.DataFrame, late: int) -> Iterator[pd.DataFrame]:
    """Yield the last checkpoints of the runs of each family's largest size with several checkpoints."""
    import numpy as np

    from harness.points import largest, runs_of

    runs = runs_of(points).number
    several = points[np.bincount(runs)[runs] > 1]
    several = several[largest(several)]
    for _, run in several.groupby(runs_of(several).number, sort=True):
        yield run.tail(late)


def _crossovers(store: PointStore, rankings: Sequence[Ranking], options: DecideOptions) -> Table:
    """Fit a law to every family; resample r has the same documents for all families, and runs of each family."""
    rows: list[tuple[Any, ...]] = []
    notes: list[str] = []
    for ranking in rankings:
        fits = dict(_fits(store, ranking, options, notes))
        for a, b in combinations(fits, 2):
            rows += _between(ranking, (a, b), (fits[a], fits[b]), notes)
    shared = " that share documents" if store.cells() else ""
    about = (
        "FLOPs: compute at which the laws of two families are equal, within the compute fitted for both, with "
        f"{options.level:.0%} intervals from resamples{shared}. ahead first: the better family at the "
        "smallest common budget. crossing: share of resamples with a crossing."
    )
    columns = ("task", "law", "A", "B", "ahead first", "FLOPs", "crossing", "remark")
    return Table("crossovers", "Crossings of the laws of two families", columns, tuple(rows), (about, *notes))


def _fits(
    store: PointStore, ranking: Ranking, options: DecideOptions, notes: list[str]
) -> Iterator[tuple[str, LawFit]]:
    shared = shared_documents(store, options.seed)
    for number, family in enumerate(ranking.families):
        points = ranking.points[ranking.points["family"] == family]
        law = options.law or ("sigmoid" if ranking.rises else "power")
        fitting = {"bootstrap": options.bootstrap, "level": options.level, "seed": options.seed + number}
        try:
            yield (
                family,
                harness.fit(points, law, value=ranking.metric, store=shared, registries=store.registries, **fitting),
            )
        except LawError as error:
            notes.append(f"{ranking.task}, {family}: {error}")


def _between(
    ranking: Ranking, names: tuple[str, str], fits: tuple[LawFit, LawFit], notes: list[str]
) -> Iterator[tuple[Any, ...]]:
    try:
        crossings, share = harness.crossovers(*fits)
    except LawError as error:
        notes.append(f"{ranking.task}, {' and '.join(names)}: {error}")
        return
    start = np.array([max(fit.steps[0].domain["flops"][0] for fit in fits)])
    sign = 1 if ranking.rises else -1
    gap = sign * float(fits[0].curve({"flops": start})[0] - fits[1].curve({"flops": start})[0])
    first = "neither" if gap == 0 else names[0] if gap > 0 else names[1]
    known = (ranking.task, fits[0].law, *names, first)
    if not crossings:
        yield *known, None, share, "no crossover within range"
    yield from ((*known, crossing, share, "") for crossing in crossings)


@harness.hookimpl
def register_commands(cli: click.Group) -> None:
    """Add harness decide."""
    import click

    @cli.command("decide")
    @click.argument("store", metavar="POINTS", type=click.Path(path_type=Path))
    @click.option(
        "--small",
        multiple=True,
        metavar="EXPR",
        help="Expression that selects a small size of every family (default: every size).",
    )
    @click.option(
        "--large", default="largest", show_default=True, metavar="EXPR", help="Large size: an expression or largest."
    )
    @click.option("--task", help="Task to analyse (default: all).")
    @click.option("--metric", help="Metric that ranks families at the large size (default: the task's).")
    @click.option("--where", metavar="EXPR", help="Expression that selects points.")
    @click.option(
        "--late",
        default=3,
        show_default=True,
        type=click.IntRange(min=2),
        help="Number of last checkpoints per run used to measure the noise of a score.",
    )
    @click.option("--law", help="Law of compute used to find crossings (default: sigmoid or power).")
    @click.option(
        "--correction",
        default="holm",
        show_default=True,
        type=click.Choice(list(CORRECTIONS)),
        help="Correction for multiple pairs: holm (family-wise error rate) or bh (false discovery rate).",
    )
    @harness.point_options
    @harness.interval_options
    @harness.table_options
    @click.pass_obj
    def command(
        host: harness.PluginHost, /, store: Path, suffix: str | None, output: Path | None, **options: Any
    ) -> None:
        """Test whether small sizes rank families as the large one does, measure noise, and find crossings of laws."""
        from harness.points import open_asked
        from harness.tables import noted

        source = open_asked(store, options, host)
        tables = noted(decide(source.store, where=source.where, **options), source.notes)
        harness.print_tables(tables, host, suffix=suffix, output=output)
