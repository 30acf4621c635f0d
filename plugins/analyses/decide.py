"""harness decide: what the small scale says of which family is best at the large one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import harness
from harness import Floats, LawError, Measured, Table, UsageError
from harness_plugins.analyses.contests import PROXIES, Asked, Contest, Scale, large_rows, read_contests
from harness_plugins.analyses.decisions import agreement, mean_known, signal_to_noise
from harness_plugins.analyses.shapes import CORRECTIONS

if TYPE_CHECKING:
    import click
    import pandas as pd

    from harness import LawFit, PointStore

SPAN = 1.5  # factor in tokens beyond which late checkpoints have learned, too


def decide(store: PointStore, *, task: str | None = None, where: str | None = None, **asked: Any) -> list[Table]:
    """Return tables that say whether small scales rank families as the large one does, for every task.

    :param where: an expression over points; others are left out.
    :param asked: small (expressions, each of which chooses one size of every family; by default every rung below the
        largest, counted from the smallest), large (an expression, or largest), metric (by which families are ranked at
        the large scale; each task's own by default), late (checkpoints at the end of a run that say how much a score
        moves), law (whose curves may cross; by default sigmoid for values that rise, power
        for those that fall), level, correction (holm or bh), bootstrap, seed.

    The tables: `decisions` (the share of pairs of families that a small scale orders right, by the metric itself and by
    continuous ones), `pairs` (which), `noise` (how far families lie apart over how much a score moves late in training)
    and `crossovers` (compute at which the laws of two families cross). Raises UsageError for fewer than two families
    and for expressions that choose no size of a family, or several.
    """
    wanted = Asked(**asked)
    contests = list(read_contests(store, task, where, wanted))
    if not contests:
        raise UsageError(f"{store.path} holds no task of choices {task or ''} with a metric to rank families by")
    first = [table(contests, wanted) for table in (_decisions, _pairs, _noise)]
    return [*first, _crossovers(store, contests, wanted)]


def _clear(contests: Sequence[Contest], asked: Asked, scale: int | None = None) -> Floats:
    """Say for every task and pair whether its difference at the large scale, or a small one, is beyond documents."""
    from scipy.stats import norm

    p = []
    for contest in contests:
        at = contest.large if scale is None else contest.small[scale]
        first, second = np.triu_indices(len(contest.families), 1)
        values, draws = at.values[contest.metric], at.draws[contest.metric]
        difference = values[first] - values[second]
        errors = (draws[:, first] - draws[:, second]).std(axis=0, ddof=1)
        z = np.divide(np.abs(difference), errors, out=np.where(difference == 0, 0.0, np.inf), where=errors > 0)
        p.append(2 * norm.sf(z))
    return np.asarray(CORRECTIONS[asked.correction](np.concatenate(p)) < 1 - asked.level)


def _decisions(contests: Sequence[Contest], asked: Asked) -> Table:
    proxies = [name for name in PROXIES if any(name in contest.large.values for contest in contests)]
    used = [contest for contest in contests if set(proxies) <= set(contest.large.values)]
    clear = np.concatenate([np.repeat(contest in used, _count(contest)) for contest in contests])
    clear = _clear(contests, asked)[clear]
    rows = []
    for number, scale in enumerate(used[0].small):
        for metric in ("", *proxies):
            values, draws = _agreements(used, number, metric)
            rows.append(
                (
                    *(scale.label, metric or "the metric itself", len(used), int(np.isfinite(values).sum())),
                    *(asked.range(mean_known(values), mean_known(draws)), int(clear.sum())),
                    asked.range(mean_known(values[clear]), mean_known(draws[:, clear])),
                )
            )
    left = sorted({contest.task for contest in contests} - {contest.task for contest in used})
    about = (
        f"The share of pairs of families that the small scale orders as the large one ({asked.large}) does, over tasks"
        f"{' (not ' + ', '.join(left) + ', without choices)' if left else ''}; a coin has 0.5. clear pairs: those "
        f"whose difference at the large scale is beyond documents ({1 - asked.level:.0%}, {asked.correction})."
    )
    caution = (
        f"{asked.level:.0%} intervals are over documents, which both scales share; the families are those there are, "
        "and pairs that share a family are not independent."
    )
    columns = ("small", "ranked by", "tasks", "pairs", "agree", "clear pairs", "agree where clear")
    title = "Does the small scale rank families as the large one?"
    return Table("decisions", title, columns, tuple(rows), (about, caution), optional=("tasks", "clear pairs"))


def _count(contest: Contest) -> int:
    return len(contest.families) * (len(contest.families) - 1) // 2


def _agreements(contests: Sequence[Contest], number: int, metric: str) -> tuple[Floats, Floats]:
    """Return the agreement of all tasks' pairs (P,) and its draws (R, P), ranked by a metric at a small scale."""
    values, draws = [], []
    for contest in contests:
        name, small = metric or contest.metric, contest.small[number]
        values.append(agreement(small.values[name], contest.large.values[contest.metric]))
        draws.append(agreement(small.draws[name], contest.large.draws[contest.metric]))
    return np.concatenate(values), np.concatenate(draws, axis=1)


def _pairs(contests: Sequence[Contest], asked: Asked) -> Table:
    clear = iter(_clear(contests, asked))
    small = [iter(_clear(contests, asked, number)) for number in range(len(contests[0].small))]
    rows = []
    for contest in contests:
        for i, j in combinations(range(len(contest.families)), 2):
            values, draws = contest.large.values[contest.metric], contest.large.draws[contest.metric]
            error = float((draws[:, i] - draws[:, j]).std(ddof=1))
            known = bool(next(clear))
            said = [
                _ahead(contest, scale, (i, j), bool(next(mark)))
                for scale, mark in zip(contest.small, small, strict=True)
            ]
            names = (contest.families[i], contest.families[j])
            rows.append(
                (contest.task, contest.metric, *names, Measured(float(values[i] - values[j]), error), known, *said)
            )
    about = (
        "A - B: at the large scale, by the metric itself, turned round where less is better, with the error of paired "
        f"documents; clear: at {1 - asked.level:.0%} ({asked.correction}). Then who is ahead at each small scale; in "
        "brackets where that is not clear."
    )
    columns = ("task", "metric", "A", "B", "A - B", "clear", *(scale.label for scale in contests[0].small))
    return Table("pairs", "Who is ahead, pair by pair", columns, tuple(rows), (about,))


def _ahead(contest: Contest, scale: Scale, pair: tuple[int, int], clear: bool) -> str:
    a, b = (scale.values[contest.metric][i] for i in pair)
    name = "neither" if a == b else contest.families[pair[0] if a > b else pair[1]]
    return name if clear else f"({name})"


def _noise(contests: Sequence[Contest], asked: Asked) -> Table:
    rows, notes, spans = [], [], []
    for contest in contests:
        runs = list(_late(contest.points, asked.late))
        try:
            found = signal_to_noise(
                contest.points[large_rows(contest.points, asked.large)][contest.metric].to_numpy(),
                [run[contest.metric].to_numpy() for run in runs],
                level=asked.level,
            )
        except LawError as error:
            notes.append(f"{contest.task}: {error}")
            continue
        spans += [float(run["tokens"].max() / run["tokens"].min()) for run in runs if run["tokens"].notna().all()]
        names = ", ".join(f"{run['family'].iloc[0]} {run['size'].iloc[0]}" for run in runs)
        values = contest.large.values[contest.metric]
        rows.append((contest.task, contest.metric, float(np.ptp(values)), found, names))
    about = (
        "signal: the largest difference of two families at the large scale. signal to noise: that, over the standard "
        f"deviation of the last {asked.late} checkpoints of runs, both relative to their means (Heineman et al. 2025), "
        f"with a {asked.level:.0%} interval for so few checkpoints; of each family's largest size that has several."
    )
    if spans and max(spans) > SPAN:
        notes.append(
            f"The late checkpoints lie up to {max(spans):.3g} times apart in tokens: they differ by what was learned, "
            "not only by noise, so that signal to noise is too low."
        )
    columns = ("task", "metric", "signal", "signal to noise", "late checkpoints of")
    return Table(
        "noise", "How far families lie apart, over how much a score moves", columns, tuple(rows), (about, *notes)
    )


def _late(points: pd.DataFrame, late: int) -> Iterator[pd.DataFrame]:
    """Yield the last checkpoints of the runs of each family's largest size that has several."""
    import numpy as np

    from harness.points import largest, runs_of

    runs = runs_of(points).number
    several = points[np.bincount(runs)[runs] > 1]
    several = several[largest(several)]
    for _, run in several.groupby(runs_of(several).number, sort=True):
        yield run.tail(late)


def _crossovers(store: PointStore, contests: Sequence[Contest], asked: Asked) -> Table:
    """Fit a law to every family, with the same documents in resample r of all and runs redrawn for each by itself."""
    rows: list[tuple[Any, ...]] = []
    notes: list[str] = []
    for contest in contests:
        fits = dict(_fits(store, contest, asked, notes))
        for a, b in combinations(fits, 2):
            rows += _between(contest, (a, b), (fits[a], fits[b]), notes)
    about = (
        "Where the laws of two families are equal, in the compute that both were fitted to, with "
        f"{asked.level:.0%} intervals from resamples that share documents; ahead first: at the smallest common budget. "
        "crossing: the share of resamples in which they cross anywhere."
    )
    columns = ("task", "law", "A", "B", "ahead first", "FLOPs", "crossing", "remark")
    return Table("crossovers", "Where the laws of two families cross", columns, tuple(rows), (about, *notes))


def _fits(store: PointStore, contest: Contest, asked: Asked, notes: list[str]) -> Iterator[tuple[str, LawFit]]:
    shared = _shared_documents(store, asked.seed)
    for number, family in enumerate(contest.families):
        points = contest.points[contest.points["family"] == family]
        law = asked.law or ("sigmoid" if contest.rises else "power")
        options = {"bootstrap": asked.bootstrap, "level": asked.level, "seed": asked.seed + number}
        try:
            yield (
                family,
                harness.fit(points, law, value=contest.metric, store=shared, registries=store.registries, **options),
            )
        except LawError as error:
            notes.append(f"{contest.task}, {family}: {error}")


def _shared_documents(store: PointStore, seed: int) -> PointStore:
    """Return the store with the same resamples of documents for every fit, whatever the seed of its runs."""

    class Shared(harness.PointStore):
        def replicates(
            self, points: pd.DataFrame, names: Sequence[str], count: int, rng: np.random.Generator
        ) -> dict[str, Floats]:
            del rng
            return super().replicates(points, names, count, np.random.default_rng([seed, 1]))

    return Shared(store.path, registries=store.registries)


def _between(
    contest: Contest, names: tuple[str, str], fits: tuple[LawFit, LawFit], notes: list[str]
) -> Iterator[tuple[Any, ...]]:
    try:
        found, share = harness.crossovers(*fits)
    except LawError as error:
        notes.append(f"{contest.task}, {' and '.join(names)}: {error}")
        return
    start = np.array([max(fit.steps[0].domain["flops"][0] for fit in fits)])
    sign = 1 if contest.rises else -1
    gap = sign * float(fits[0].curve({"flops": start})[0] - fits[1].curve({"flops": start})[0])
    first = "neither" if gap == 0 else names[0] if gap > 0 else names[1]
    known = (contest.task, fits[0].law, *names, first)
    if not found:
        yield *known, None, share, "no crossover within range"
    yield from ((*known, one, share, "") for one in found)


@harness.hookimpl
def register_commands(cli: click.Group) -> None:
    """Add harness decide."""
    import click

    @cli.command("decide")
    @click.argument("store", type=click.Path(path_type=Path))
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
    @harness.interval_options
    @harness.table_options
    @click.pass_obj
    def command(
        host: harness.PluginHost, /, store: Path, suffix: str | None, output: Path | None, **asked: Any
    ) -> None:
        """Test whether small sizes rank families as the large one does, measure noise, and find crossings of laws."""
        tables = decide(harness.open_store(store, registries=host), **asked)
        harness.print_tables(tables, host, suffix=suffix, output=output)
