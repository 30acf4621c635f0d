"""How laws would have done: each fitted to sizes up to k, and held to what size k + 1 then measured.

    found = harness.back_test(store.points(task="nano_ordering"), value="acc")
    print(found.rows)                     a row a law and prediction

Whoever compares laws on the largest size alone picks the one that won there by chance. A back-test repeats the
prediction at every size that has smaller ones before it, and asks three things of a law: how far off it is, whether its
intervals hold the truth as often as they say, and whether it beats laws that know nothing (`last`: nothing changes;
`line`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from harness.errors import LawError, UsageError, choose
from harness.fitting.columns import labelled, renamed
from harness.fitting.fit import by_family, fit, prepared
from harness.fitting.forecast_scores import interval_score
from harness.fitting.ladder import column
from harness.fitting.laws import steps_of
from harness.fitting.published_values import UNBOUNDED
from harness.fitting.result import LawFit
from harness.fitting.runs import along, label
from harness.host import default_host
from harness.registries import Registries
from harness.store.points import open_store, read_points
from harness.tables import Measured, Range, Table
from harness.types.laws import ComposedLaw, Law, traits

FIRST = 3  # sizes that the first prediction has before it
TEST = ["task", "family", "point"]  # what tells predictions apart
FLAT = 1e-6  # of the range of the points: a law that moves less does not describe them


@dataclass(frozen=True)
class BackTest:
    """What every law said of every size, and what was measured: `rows`, a frame with a row a law and prediction.

    Columns: task, family, law, sizes (fitted), target, point (its number in the points), measured, stderr, predicted,
    low, high, error, inside, beyond, interval_score, rank (1 is the best by interval score; laws that made no
    prediction come last, and are not among the rows). `missing` names these laws, and why.
    """

    rows: pd.DataFrame
    value: str
    level: float
    missing: tuple[tuple[str, str], ...] = ()
    said: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Return notes on the points, and the first reason why each law made no prediction, of how many."""
        why: dict[str, list[str]] = {}
        for law, reason in self.missing:
            why.setdefault(law, []).append(reason)
        more = {law: f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else "" for law, reasons in why.items()}
        failed = (f"{law} makes no prediction: {reasons[0]}{more[law]}" for law, reasons in sorted(why.items()))
        return (*self.said, *failed)

    def summary(self) -> Table:
        """Return a row a law, best mean rank first."""
        rows = sorted((self._law(law) for law in self.rows["law"].unique()), key=lambda row: row[-2])
        columns = (
            *("law", "predictions", "mean error", "median error", "bias", "inside", "median width", "interval score"),
            *("won", "mean rank", "beyond"),
        )
        about = (
            "Fitted to the sizes up to k, for every k, and held to the last checkpoint of size k + 1. Error: absolute, "
            f"of {self.value}, ± standard error (units: families and tasks). Inside: the {self.level:.0%} interval "
            "held what was measured, with the 95 % interval of that share. Interval score: mean of "
            "width plus misses. Won: best interval score of all. Mean rank: by interval score; a law that made no "
            "prediction, or one without an interval, comes last. Beyond: median factor beyond what was fitted."
        )
        return Table("back_test", "Laws that had to predict the next size", columns, tuple(rows), (about, *self.notes))

    def details(self) -> Table:
        """Return every prediction of every law."""
        rows = [
            (
                row["task"],
                row["target"],
                row["law"],
                Measured(row["measured"], row["stderr"]),
                Range(row["predicted"], row["low"], row["high"]),
                row["error"],
                row["inside"],
                row["rank"],
            )
            for row in self.rows.sort_values(["task", "family", "sizes", "target", "rank"], kind="stable").to_dict(
                "records"
            )
        ]
        columns = ("task", "target", "law", "measured", "predicted", "error", "inside", "rank")
        return Table("back_test_predictions", "Every prediction", columns, tuple(rows))

    def _law(self, law: str) -> tuple[Any, ...]:
        own, tests = self.rows[self.rows["law"] == law], self._tests()
        size = own["error"].abs()
        known = own["inside"].dropna().astype(bool)
        missing = tests - len(own)
        last = float(self.rows["rank"].max())
        rank = (own["rank"].sum() + last * missing) / tests
        return (
            law,
            f"{len(own)} of {tests}",
            Measured(float(size.mean()), _clustered(size, own["cluster"])),
            float(size.median()),
            float(own["error"].mean()),
            _share(int(known.sum()), len(known)),
            float((own["high"] - own["low"]).median()),
            float(own["interval_score"].mean()),
            int((own["rank"] == 1).sum()),
            float(rank),
            float(own["beyond"].median()),
        )

    def _tests(self) -> int:
        return len(self.rows.drop_duplicates(TEST))


def _clustered(values: pd.Series[float], clusters: pd.Series[Any]) -> float:
    """Return the standard error of a mean, of which values of one cluster are not independent.

    Few clusters may agree by chance: it is never below that of independent values.
    """
    sums = (values - values.mean()).groupby(clusters).sum()
    g, n = len(sums), len(values)
    if n < 2:
        return float("nan")
    apart = float(values.std(ddof=1) / np.sqrt(n))
    return max(float(np.sqrt((sums**2).sum() * g / (g - 1)) / n), apart) if g > 1 else apart


def _share(hits: int, n: int) -> str:
    """Return hits of n with the share and its 95 % interval (Wilson's)."""
    if not n:
        return "-"
    low, high = stats.binomtest(hits, n).proportion_ci(method="wilson")
    return f"{hits} of {n}: {hits / n:.0%} [{low:.0%}, {high:.0%}]"


def back_test(
    points: pd.DataFrame,
    laws: Sequence[str | Law] | None = None,
    *,
    value: str,
    via: str | None = None,
    where: str | None = None,
    first: int = FIRST,
    registries: Registries | None = None,
    **options: Any,
) -> BackTest:
    """Fit laws to the sizes up to k, and predict the last checkpoint of size k + 1, for every k from `first` on.

    :param points: as of `harness.fit`, with a column params that orders the sizes of each family.
    :param laws: names or laws; by default all that are registered and apply (their columns are there, their range holds
        the values, and they are not flat on every ladder).
    :param value: as of `harness.fit`; so are via, where and options (bootstrap, level, law_options ...).
    :param first: how many sizes the first fit has.

    Laws that pool families are fitted to all of them, up to the same k. Raises LawError where no size has `first`
    smaller ones in its family, or no law makes any prediction.
    """
    registries = registries or default_host()
    frame = _with_rungs(prepared(points, None, value, where), first)
    named: list[Law] = [registries.laws[law] if isinstance(law, str) else law for law in laws or registries.laws]
    able = [law for law in named if laws or not _lacks(law, frame, value, via)]
    tests = list(_tests(frame, first))
    rows: list[dict[str, Any]] = []
    missing: list[tuple[str, str]] = []
    for law in able:
        found, failures = _try(law, tests, value=value, via=via, registries=registries, **options)
        if laws or traits(law).baseline or any(row["moves"] for row in found):
            rows += found
            missing += [(law.name, reason) for reason in failures]
        elif found:
            missing.append((law.name, f"{_of_task(frame)}flat on every ladder, so it does not describe this value"))
        else:
            missing.append((law.name, failures[0]))
    if not rows:
        raise LawError(f"no law makes any prediction of {value}; tried: {choose(law.name for law in able)}")
    table = pd.DataFrame(rows).drop(columns="moves")
    level = float(options.get("level", 0.9))
    y, low, high = (table[name].to_numpy(dtype=np.float64) for name in ("measured", "low", "high"))
    table["interval_score"] = interval_score(y, low, high, level)
    groups = [table[key] for key in TEST]
    table["rank"] = table["interval_score"].groupby(groups).rank(method="min", na_option="bottom")
    return BackTest(table, value, level, tuple(missing))


def _of_task(frame: pd.DataFrame) -> str:
    tasks = sorted(set(frame["task"].astype(str))) if "task" in frame.columns else []
    return f"{', '.join(tasks)}: " if tasks else ""


def _with_rungs(frame: pd.DataFrame, first: int) -> pd.DataFrame:
    """Return points with the number of their size in their family, from 1; raise LawError where there are too few."""
    names = {position: name for name, own in by_family(frame) for position in own.index}
    families = pd.Series(names, dtype=object).reindex(frame.index)
    params = pd.Series(column(frame, "params"), index=frame.index)
    frame = frame.assign(
        point=np.arange(len(frame)), rung=params.groupby(families).rank(method="dense").astype(int), of_family=families
    )
    if frame["rung"].max() <= first:
        raise LawError(
            f"the largest family has {frame['rung'].max()} sizes; a back-test from {first} sizes needs {first + 1}"
        )
    return frame.reset_index(drop=True)


def _lacks(law: Law, frame: pd.DataFrame, value: str, via: str | None) -> bool:
    """Say whether a law has no use for these points: columns are missing, or values lie outside its range."""
    needs = {*steps_of(law)[0].features, *traits(law).needs}
    if isinstance(law, ComposedLaw):
        needs.add(via or law.via)
    low, high = traits(steps_of(law)[-1]).value_range
    y = column(frame, value)
    return not needs or not needs <= set(frame.columns) or y.min() < low or y.max() > high


def _tests(frame: pd.DataFrame, first: int) -> Iterator[pd.DataFrame]:
    """Yield, for each k, the sizes up to k of all families, and the last checkpoint of the next, if there is one."""
    for k in range(first, int(frame["rung"].max())):
        following = frame[frame["rung"] == k + 1]
        targets = following.iloc[along(following)]
        targets = targets.groupby([name for name in ("of_family", "seed") if name in frame], sort=False).tail(1)
        test = pd.concat([frame[frame["rung"] <= k], targets], ignore_index=True)
        yield test.assign(is_target=test["rung"] > k)


def _try(
    law: Law, tests: Iterable[pd.DataFrame], *, value: str, **arguments: Any
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the predictions of one law, and what went wrong."""
    rows: list[dict[str, Any]] = []
    failures: list[str] = []
    for test in tests:
        groups = [test] if traits(law).pools else [own for _, own in test.groupby("of_family")]
        for own in (group for group in groups if group["is_target"].any()):
            k = int(own["rung"].max()) - 1
            try:
                found = fit(own, law, value=value, hold_out="is_target", **arguments)
            except LawError as error:
                where = [*([own["task"].iloc[0]] if "task" in own else []), choose(set(own["of_family"]))]
                failures.append(f"{', '.join(name for name in where if name)} up to size {k}: {error}")
                continue
            targets = own[own["is_target"]]
            rows += [
                {
                    "task": str(row.get("task", "")),
                    "family": row["of_family"],
                    "law": law.name,
                    "sizes": k,
                    "target": label(row),
                    "point": row["point"],
                    **{name: held[name] for name in ("measured", "stderr", "predicted", "low", "high", "error")},
                    "inside": held["inside"],
                    "beyond": held["beyond"],
                    "cluster": f"{row['of_family']} {row.get('task', '')}",
                    "moves": _moves(found, own, value),
                }
                for (_, row), held in zip(targets.iterrows(), found.hold_out, strict=True)
            ]
    return rows, failures


def _moves(found: LawFit, own: pd.DataFrame, value: str) -> bool:
    """Say whether a fitted law changes at all over the points."""
    curve = found.curve(found.steps[0].read(own))
    return bool(np.ptp(curve) > FLAT * np.ptp(column(own, value)))


def back_test_file(
    path: Path,
    *,
    laws: Sequence[str] = (),
    task: str | None = None,
    metric: str | None = None,
    value: str | None = None,
    renames: Sequence[str] = (),
    params_column: str | None = None,
    run: str | None = None,
    label: str | None = None,
    drop_duplicates: bool = False,
    registries: Registries | None = None,
    **arguments: Any,
) -> BackTest:
    """Back-test laws on a store (one task, or all with right answers) or a table file; arguments as of `back_test`.

    `renames`, `params_column`, `run`, `label` and `drop_duplicates` are as of `harness.fitting.fit.fit_file`.
    """
    registries = registries or default_host()
    names = list(laws) or list(registries.laws)
    via = [arguments.get("via"), *(getattr(registries.laws[name], "via", None) for name in names)]
    tasks = [task] if task or not path.is_dir() else _scored_tasks(path, registries)
    found = []
    for name in tasks:
        read = read_points(path, name, [metric or value, *via], registries, drop_duplicates=drop_duplicates)
        points = renamed(read.points, labelled(renames, label), params_column, run)
        wanted = metric or value or read.metric
        if wanted is None:
            raise UsageError(f"{path} has columns {choose(points.columns)}; name the one to predict with --value")
        if arguments.get("resample") in {"documents", "joint"}:
            arguments["store"] = read.store
        tested = back_test(points, laws or None, value=wanted, registries=registries, **arguments)
        found.append(replace(tested, said=read.notes))
    return joined(found)


def _scored_tasks(path: Path, registries: Registries) -> list[str]:
    """Return the tasks of a store that have right answers: choices, and texts that pass or fail."""
    store = open_store(path, registries=registries)
    kinds = {str(meta["name"]): meta["kind"] for meta in store.task_meta.values()}
    own = store.tasks()
    imported = {name for name, metric in own.items() if name not in kinds and not UNBOUNDED.search(metric)}
    return sorted(imported | {name for name in own if kinds.get(name) in {"choice", "generate"}})


def joined(found: Sequence[BackTest]) -> BackTest:
    """Return the back-tests of several tasks as one."""
    values = list(dict.fromkeys(own.value for own in found))
    rows = pd.concat([own.rows for own in found], ignore_index=True)
    missing = tuple(pair for own in found for pair in own.missing)
    said = tuple(dict.fromkeys(note for own in found for note in own.said))
    return BackTest(rows, " and ".join(values), found[0].level, missing, said)
