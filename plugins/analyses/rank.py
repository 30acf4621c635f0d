"""harness rank: compare families at equal compute, size, tokens or loss, with the probability of their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import harness
from harness import LawError, Table, UsageError
from harness.errors import choose
from harness.tables import noted
from harness_plugins.analyses.equal_compute import Match, best, likely, ranking, read_matches
from harness_plugins.analyses.equal_points import SCALES, RankOptions

if TYPE_CHECKING:
    import click
    import pandas as pd

    from harness import PointStore


def rank(
    source: PointStore | pd.DataFrame,
    *,
    task: str | None = None,
    where: str | None = None,
    host: Any = None,
    **asked: Any,
) -> list[Table]:
    """Return tables that compare families at equal values of one or more quantities, for every task.

    :param source: a store, or a table with one row per checkpoint: family, the equal quantities, and scores.
    :param where: an expression that selects points.
    :param host: the registries with laws and metrics (default: those of the store, or of all plugins).
    :param asked: at (the equal quantities, of flops, params, tokens and loss, with their values), metric, law,
        reference (family for compute-equivalent gains), pareto (fit only the best scores so far), lower_is_better (for
        a table's column that is not a metric), level, bootstrap, seed.

    The tables: `scores` (each family at the compared point, with the probability that it is the best), `ranking` (the
    order and its probability), `differences` (all pairs) and, for a single equal quantity, `gains` (compute-equivalent
    gain over the reference; not for loss) and `crossovers`. Raises UsageError if no task has two fitted families.
    """
    wanted = RankOptions(**asked)
    host = host or (source.registries if isinstance(source, harness.PointStore) else harness.load_plugins())
    every = list(read_matches(source, wanted, host, task=task, where=where))
    matches = [match for match in every if len(match.families) > 1]
    notes = [note for match in every for note in match.notes]
    if not matches:
        families = {str(name) for match in every for name in match.points.frame["family"]}
        alone = f"The only family is {choose(families)}." if len(families) == 1 else ""
        raise UsageError(f"no task has two families with a fitted law. {' '.join([alone, *notes]).strip()}")
    tables = [_scores(matches, wanted), _ranking(matches, wanted), _differences(matches, wanted)]
    if len(wanted.features) == 1 and wanted.features != ("loss",):
        tables.append(_gains(matches, wanted))
    if len(wanted.features) == 1:
        tables.append(_crossovers(matches, wanted))
    return noted(tables, notes)


def _scores(matches: Sequence[Match], asked: RankOptions) -> Table:
    rows = []
    for match in matches:
        chances = best(match.sign * match.draws)
        for i, (family, fit) in enumerate(match.fits.items()):
            score = asked.range(match.values[i], match.draws[:, i])
            named = (match.points.task, match.points.metric, family)
            rows.append((*named, score, float(chances[i]), fit.law, _outside(match.beyond[i])))
    about = (
        f"The score of each family at {asked.label}, from a law fitted to the family, with {asked.level:.0%} intervals "
        "of the law (not of one more measurement). best: probability that the family is the best."
    )
    how = "outside: factor by which the compared point lies outside the family's fitted range (extrapolation)."
    recipe = "Only the last checkpoint of each run is fitted, so each family keeps its own ratio of tokens to size."
    notes = (about, how, *([recipe] if asked.features in {("params",), ("tokens",)} else []), *_caution(asked))
    columns = ("task", "metric", "family", "score", "best", "law", "outside")
    return Table("scores", f"Families at equal {' and '.join(asked.features)}", columns, tuple(rows), notes)


def _outside(beyond: float) -> str:
    return "" if beyond <= 1 else f"{beyond:.3g}x"


def _caution(asked: RankOptions) -> list[str]:
    """Return the assumptions of the probabilities."""
    if not asked.pareto:
        return ["Probabilities are shares of resamples; they assume that the law is correct."]
    rough = "Resamples of a frontier are approximate, and their intervals are too narrow if few runs define it."
    return [f"Pareto: the law describes the best scores so far. {rough}"]


def _ranking(matches: Sequence[Match], asked: RankOptions) -> Table:
    rows = []
    for match in matches:
        order, chance = ranking(match.sign * match.values, match.sign * match.draws)
        rows.append((match.points.task, match.points.metric, _said(match, order), chance))
    rows += _together(matches)
    about = (
        f"The order of families at {asked.label}, best first, and the probability of exactly this order. A resample "
        f"{_redrawn(matches)}; runs are redrawn for each family, and are the same in all tasks."
    )
    columns = ("task", "metric", "order", "probability")
    return Table("ranking", "Probability of the order", columns, tuple(rows), (about,))


def _has_documents(match: Match) -> bool:
    """Return whether the points of a task have documents in the store, which are resampled for all families alike."""
    frame = match.points.frame
    return match.points.store is not None and "checkpoint" in frame and bool(frame["checkpoint"].notna().all())


def _redrawn(matches: Sequence[Match]) -> str:
    """Say what a resample does with documents."""
    if all(map(_has_documents, matches)):
        return "has the same documents for all families"
    if any(map(_has_documents, matches)):
        return "has the same documents for all families where the store has documents"
    return "redraws scores from their standard errors, where known, because no document is known"


def _said(match: Match, order: Sequence[int]) -> str:
    return " > ".join(match.families[i] for i in order)


def _together(matches: Sequence[Match]) -> Iterator[tuple[Any, ...]]:
    """Yield the order by the mean over tasks, for each metric of several tasks with the same families."""
    alike: dict[Any, list[Match]] = {}
    for match in matches:
        alike.setdefault((match.points.metric, match.families, len(match.draws)), []).append(match)
    for (metric, _, _), group in alike.items():
        if len(group) > 1:
            values = np.mean([match.sign * match.values for match in group], axis=0)
            order, chance = ranking(values, np.mean([match.sign * match.draws for match in group], axis=0))
            yield f"mean of {len(group)} tasks", metric, _said(group[0], order), chance


def _differences(matches: Sequence[Match], asked: RankOptions) -> Table:
    rows = []
    for match in matches:
        for i, j in combinations(range(len(match.families)), 2):
            apart = match.draws[:, i] - match.draws[:, j]
            ahead = match.sign * apart
            chance = float(likely((ahead > 0) + 0.5 * (ahead == 0)))
            difference = asked.range(match.values[i] - match.values[j], apart)
            rows.append(
                (match.points.task, match.points.metric, match.families[i], match.families[j], difference, chance)
            )
    paired = " Documents are paired." if all(map(_has_documents, matches)) else ""
    about = f"A - B at {asked.label}, and the probability that A is better.{paired}"
    columns = ("task", "metric", "A", "B", "A - B", "A better")
    return Table("differences", "Differences of all pairs", columns, tuple(rows), (about,))


def _gains(matches: Sequence[Match], asked: RankOptions) -> Table:
    scale = asked.features[0]
    rows, notes = [], []
    for match in matches:
        reference = asked.reference or match.families[0]
        if reference not in match.fits:
            raise UsageError(f"{match.points.task}: {reference} has no fit; expected one of {choose(match.families)}")
        for family in match.families:
            if family == reference:
                continue
            try:
                gain = harness.gain(
                    match.fits[family], match.fits[reference], asked.places[scale], rises=match.points.rises
                )
            except LawError as error:
                notes.append(f"{match.points.task}, {family}: {error}")
                continue
            inside = match.fits[reference].domain[scale]
            rows.append((match.points.task, family, reference, gain, _remark(gain.value * asked.places[scale], inside)))
    about = (
        f"gain: factor in {_named(scale)} that the reference needs to reach the family's score at {asked.label}; above "
        "1, the family is ahead."
    )
    columns = ("task", "family", "reference", "gain", "remark")
    return Table("gains", f"{_titled(scale)} gain over a reference family", columns, tuple(rows), (about, *notes))


def _named(scale: str) -> str:
    return "compute" if scale == "flops" else scale


def _titled(scale: str) -> str:
    return "Compute-equivalent" if scale == "flops" else f"Equivalent {scale}"


def _remark(place: float, inside: tuple[float, float]) -> str:
    if not np.isfinite(place):
        return "the reference does not reach the score"
    if place == 0:
        return "the reference is ahead everywhere"
    low, high = inside
    beyond = max(place / high, low / place)
    return f"reference extrapolated {beyond:.3g}x" if beyond > 1 else ""


def _crossovers(matches: Sequence[Match], asked: RankOptions) -> Table:
    rows: list[tuple[Any, ...]] = []
    notes: list[str] = []
    for match in matches:
        for a, b in combinations(match.families, 2):
            try:
                rows += _crossings(match, a, b)
            except LawError as error:
                notes.append(f"{match.points.task}, {a} and {b}: {error}")
    scale = asked.features[0]
    about = (
        f"The {_named(scale)} at which two families have equal scores, within the measured range of both. crossing: "
        "share of resamples in which they cross anywhere."
    )
    columns = ("task", "A", "B", _named(scale), "crossing", "remark")
    return Table("crossovers", "Crossings of two families", columns, tuple(rows), (about, *notes))


def _crossings(match: Match, a: str, b: str) -> Iterator[tuple[Any, ...]]:
    crossings, share = harness.crossovers(match.fits[a], match.fits[b])
    if not crossings:
        yield match.points.task, a, b, None, share, "none within the measured range"
    yield from ((match.points.task, a, b, crossing, share, "") for crossing in crossings)


def places(pairs: Sequence[str]) -> dict[str, float]:
    """Parse NAME=VALUE pairs of equal quantities, separated by commas; raise UsageError for invalid ones."""
    values: dict[str, float] = {}
    for pair in ",".join(pairs).split(","):
        name, sign, value = pair.partition("=")
        try:
            values[name.strip()] = float(value)
        except ValueError as error:
            raise UsageError(f"--at {pair!r}: expected NAME=NUMBER, such as flops=1e15 ({choose(SCALES)})") from error
        if not sign or name.strip() not in SCALES:
            raise UsageError(f"--at {pair!r}: expected one of {choose(SCALES)}, such as flops=1e15")
    return values


@harness.hookimpl
def register_commands(cli: click.Group) -> None:
    """Add harness rank."""
    import click

    @cli.command("rank")
    @click.argument("points", type=click.Path(path_type=Path))
    @click.option(
        "--at",
        multiple=True,
        required=True,
        metavar="NAME=VALUE",
        help="Equal quantities: flops=1e15, params=1e9, tokens=2e10, loss=2.5, or params=1e9,tokens=2e10.",
    )
    @click.option("--task", help="Task to compare (default: all).")
    @click.option("--metric", help="Metric of a store (default: the task's), or column of a table.")
    @click.option("--reference", metavar="FAMILY", help="Family for compute-equivalent gains (default: the first).")
    @click.option("--law", help="Law fitted to each family (default: sigmoid, or power, of the equal quantity).")
    @click.option(
        "--pareto", is_flag=True, help="Fit a power law of FLOPs to the Pareto frontier (the best scores so far) only."
    )
    @click.option("--lower-is-better", is_flag=True, help="Lower values of a table's column are better.")
    @click.option("--where", metavar="EXPR", help="Expression that selects points.")
    @harness.point_options
    @harness.interval_options
    @harness.table_options
    @click.pass_obj
    def command(
        host: harness.PluginHost, /, points: Path, at: tuple[str, ...], suffix: str | None, output: Path | None,
        **asked: Any,
    ) -> None:  # fmt: skip
        """Rank families at equal compute, parameters, tokens or loss, with the probability of the order.

        POINTS is a store, or a CSV or Parquet table as harness import reads it. Scores come from laws fitted to each
        family, never from the nearest checkpoint.
        """
        from harness.points import open_asked

        metric = asked.pop("metric")
        source = open_asked(points, asked, host, metrics=[metric] if metric else [])
        asked |= {"where": source.where, "metric": metric if points.is_dir() else None}
        tables = noted(rank(source.store, at=places(at), host=host, **asked), source.notes)
        harness.print_tables(tables, host, suffix=suffix, output=output)
