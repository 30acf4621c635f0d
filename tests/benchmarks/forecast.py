"""Accuracy of forecasts: on simulated ladders against an oracle, and on open ladders against the laws of 0.1.0.

    python -m tests.benchmarks.forecast STORE STORES [SECTION..]     writes results/forecasts

STORE is that of `make demo`; STORES how many simulated stores of eight tasks a setting has; sections are simulations,
shapes, olmo, pythia, nano, opt and benchmarks, all by default; `join` writes none. calibration.md joins what every
section has written, after about.md, which is written by hand.
The method was chosen on simulations with other seeds and on lower rungs; about.md says where targets were seen before.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import special, stats

import harness
from harness.fitting.fit import fit
from harness.fitting.forecast_results import Forecast
from harness.fitting.forecast_scores import LEVELS, PredictionScores, score
from harness.fitting.forecast_stack import combine
from harness.fitting.wide_points import widen
from harness.host import default_host
from harness.tables import Table
from harness.types import Floats
from tests.benchmarks import forecast_data as data
from tests.benchmarks.forecast_targets import reached
from tests.benchmarks.forecast_worlds import AHEAD, SETTINGS, TASKS, Oracle, store
from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / "results" / "forecasts"
SEED = 1000  # of the first simulated store that is scored; the method was developed on others
BANDS = (0.0, 0.45, 0.6, 0.75, 0.9, 1.01)
COLUMNS = (
    "target",
    "method",
    "n",
    "MAE",
    "covered",
    "95 % interval",
    "median width",
    "mean width",
    "interval score",
    "CRPS",
)
LAW = {"bootstrap": 200, "starts": 16}


def row(target: str, method: str, scores: PredictionScores) -> tuple[Any, ...]:
    """Return a row of scores."""
    low, high = scores.coverage_interval
    share = f"{scores.covered} of {scores.n}: {scores.coverage:.0%}"
    widths = (scores.median_width, scores.mean_width, scores.interval_score, scores.crps)
    return (
        target,
        method,
        scores.n,
        f"{scores.mae:.3f}",
        share,
        f"{low:.0%} to {high:.0%}",
        *(f"{x:.3f}" for x in widths),
    )


def references(y: Floats, last: Floats, chance: Floats) -> Iterator[tuple[str, Floats]]:
    """Yield `last`, give or take .05, and a constant: anything from chance to 1."""
    yield "last", np.clip(last[:, None] + 0.05 * stats.norm.ppf(LEVELS), 0, 1)
    low = np.nan_to_num(chance)[:, None]
    yield "constant", low + (1 - low) * LEVELS


def by_law(
    points: pd.DataFrame, held: pd.DataFrame, law: str, value: str = "acc", via: str | None = None
) -> tuple[Floats, str]:
    """Return the quantiles (1, Q) of a law of 0.1.0 at one target, and why there are none."""
    try:
        fitted = fit(points, law, value=value, via=via, registries=default_host(), resample="runs", **LAW)
        drawn = fitted.sample(held, np.random.default_rng(0))
        return np.nan_to_num(np.quantile(drawn, LEVELS, axis=0).T, nan=0.5), ""
    except harness.LawError as error:
        return np.full((1, len(LEVELS)), np.nan), str(error)


def laws(
    cases: Sequence[tuple[pd.DataFrame, pd.DataFrame]], names: Sequence[str], via: str | None
) -> dict[str, Floats]:
    """Return the quantiles (cases, Q) of laws; cases are pairs of what is fitted and the one target."""
    return {name: np.concatenate([by_law(*case, name, via=via)[0] for case in cases]) for name in names}


def misses(forecast: Forecast) -> list[str]:
    """Name every measured target outside its interval."""
    frame = forecast.frame
    outside = (frame["measured"] < frame["low"] - 1e-12) | (frame["measured"] > frame["high"] + 1e-12)
    return [
        f"{r.task}, {r.family}: measured {r.measured:.3f}, forecast {r.median:.3f} [{r.low:.3f}, {r.high:.3f}]"
        f"{' (abstained)' if r.verdict.startswith('abstain') else ''}"
        for r in frame[outside].itertuples()
    ]


def ladders(
    name: str, target: str, points: pd.DataFrame, tops: Sequence[str], *, via: str | None, names: Sequence[str]
) -> tuple[list[tuple[Any, ...]], list[str]]:
    """Forecast sizes `tops` (one per call of harness.forecast: the largest that is left) and score laws beside it."""
    smaller = points[~points["size"].isin(tops[1:])]
    forecast = harness.forecast(smaller, via=via)
    frame = forecast.frame
    y = frame["measured"].to_numpy(dtype=np.float64)
    cases = []
    for task, family in zip(frame["task"], frame["family"], strict=True):
        ladder_points = smaller[(smaller["task"] == task) & (smaller["family"] == family)]
        held = ladder_points["params"] == ladder_points["params"].max()
        rung = ladder_points[held].sort_values("tokens" if "tokens" in ladder_points else "flops").tail(1)
        cases.append((ladder_points[~held], rung))
    last = np.array([ladder_points.sort_values(["params", "tokens"])["acc"].iloc[-1] for ladder_points, _ in cases])
    chance = np.array([ladder_points["chance"].iloc[0] for ladder_points, _ in cases])
    clear = ~forecast.abstained.to_numpy()
    clusters = np.array(frame["task"])

    def scored(quantiles: Floats, rows: np.ndarray) -> PredictionScores:
        rows = rows & np.isfinite(quantiles[:, 0])
        return score(y[rows], quantiles[rows], clusters=list(clusters[rows]))

    every = np.ones(len(y), dtype=bool)
    methods = {**laws(cases, names, via), **dict(references(y, last, chance))}
    rows = [row(target, "forecast", scored(forecast.quantiles, every))]
    if clear.any() and not clear.all():
        rows.append(row(target, f"forecast, {int((~clear).sum())} abstained", scored(forecast.quantiles, clear)))
    for method, quantiles in methods.items():
        rows.append(row(target, f"{method} of 0.1.0" if method in names else method, scored(quantiles, every)))
        if clear.any() and not clear.all():
            rows.append(row(target, f"{method}, the same rows", scored(quantiles, clear)))
    notes = [f"Missed, {name}: {line}." for line in misses(forecast)] or [f"Missed, {name}: none."]
    said = [f"{r.task}, {r.family}: {r.verdict}" for r in frame[~clear].itertuples()]
    notes += [f"Abstained, {name}: {'; '.join(said)}."] if said else []
    notes.append(f"Earlier rungs of these ladders, {name}: {forecast.earlier}.")
    return rows, notes


def table(name: str, title: str, made: Sequence[tuple[list[tuple[Any, ...]], list[str]]], *notes: str) -> Table:
    """Join rows and notes."""
    rows = tuple(line for lines, _ in made for line in lines)
    return Table(name, title, COLUMNS, rows, (*(note for _, lines in made for note in lines), *notes))


def olmo() -> Table:
    points = data.olmo()
    counted = points[points["task"] != "mmlu"]
    names = ("two_step", "single_step", "two_step_nd")
    made = [ladders("7B", "7B", counted, ["7B"], via="bpb", names=names)]
    shown = points[points["task"] == "mmlu"]
    made.append(ladders("mmlu", "7B, mmlu (not counted)", shown, ["7B"], via="bpb", names=()))
    return table("olmo", "OLMo ladder up to 1.3B, and the 7B (hellaswag, piqa, four MMLU categories)", made)


def pythia() -> Table:
    points, names = data.pythia(), ("sigmoid",)
    steps = [("12B from 6.9B", ["12b"]), ("6.9B from 2.8B", ["6.9b", "12b"])]
    made = [ladders(target, target, points, tops, via=None, names=names) for target, tops in steps]
    far = points[points["size"] != "6.9b"]
    made.append(ladders("12B from 2.8B", "12B from 2.8B", far, ["12b"], via=None, names=names))
    return table("pythia", "Pythia up to 2.8B, and 6.9B and 12B (LAMBADA, PIQA; with and without duplicates)", made)


def nano(path: Path) -> Table:
    points = widen(data.nano(path))
    sizes = ["w192l5", "w128l4"]
    via, names = "gold_bits_per_byte", ("two_step", "sigmoid")
    made = [
        ladders("last rung", "last rung from four", points, sizes[:1], via=via, names=names),
        ladders(
            "three rungs", "fourth rung from three", points[points["size"] != sizes[0]], sizes[1:], via=via, names=()
        ),
    ]
    about = "Laws of 0.1.0 have all checkpoints, the forecast run ends. The last rung was seen during development."
    return table("nano", "The nano ladder, seven tasks of three families", made, about)


def opt() -> Table:
    points = data.opt()
    made = [
        ladders("175B", "175B from 30B", points, ["175b"], via=None, names=("sigmoid",)),
        ladders("30B", "30B from 13B", points[points["params"] < 1e11], ["30b"], via=None, names=()),
        ladders("13B", "13B from 6.7B", points[points["params"] < 2e10], ["13b"], via=None, names=()),
    ]
    return table("opt", "OPT on three small tasks of BIG-bench", made)


def benchmarks() -> Table:
    """Forecast the largest model of each family from its smaller ones and all other families."""
    from harness.fitting.forecast_runs import ForecastRun
    from harness.fitting.rungs import earlier, read_ladders

    points = data.benchmarks()
    points = points[points["flops"].notna()]
    every = [ladder for ladder in read_ladders(points, "acc") if ladder.rungs >= 1]
    parts = [default_host().forecasters[name] for name in ("families", "capability")]
    run = ForecastRun(every, [], parts, 0, 0.5, lambda *_: None, 1, many=True)
    cases, _ = run.cases([(i, cut) for i, ladder in enumerate(every) for cut in earlier(ladder, 1)])
    family = np.array([every[i].family for i in cases.ladder])
    task = np.array([every[i].task for i in cases.ladder])
    whole = np.array([every[i].rungs for i in cases.ladder])
    is_top = (cases.target == whole) & (cases.rungs == whole - 1)
    quantiles = np.full((len(cases.y), len(LEVELS)), np.nan)
    base = quantiles.copy()
    for name in sorted(set(family)):
        new = is_top & (family == name)
        past = cases.take(~((family == name) & (cases.target == whole)))
        quantiles[new] = combine(past, cases.take(new), np.ones(2)).quantiles
        for i in np.flatnonzero(new):
            base[i] = shared_slope(points[points["task"] == task[i]], name, every[cases.ladder[i]])
    rows = is_top & np.isfinite(base[:, 0])
    last = np.array([every[i].value[every[i].tops[-2]] if every[i].rungs > 1 else np.nan for i in cases.ladder])
    clusters = list(family[rows])
    single = dict(zip(cases.names, cases.quantiles, strict=True))
    methods = {"forecast": quantiles, **single, "family intercept + slope": base}
    methods |= dict(references(cases.y, last, np.array([every[i].chance for i in cases.ladder])))
    made = [
        row("largest", name, score(cases.y[rows], ladder[rows], clusters=clusters)) for name, ladder in methods.items()
    ]
    outside = (cases.y < quantiles[:, 5]) | (cases.y > quantiles[:, 95])
    lines = [
        f"{task[i]}, {family[i]}: {cases.y[i]:.3f}, forecast {quantiles[i, 50]:.3f}"
        for i in np.flatnonzero(rows & outside)
    ]
    about = (
        f"{len(set(clusters))} families, eight benchmarks; coverage intervals count families. Hyperparameters per task "
        "(four) are learnt once from all rows but those of one ladder. Missed: " + "; ".join(lines) + "."
    )
    return table(
        "benchmarks", "The largest model of each family from its smaller ones and all other families", [(made, [about])]
    )


def shared_slope(points: pd.DataFrame, family: str, ladder: Any) -> Floats:
    """Return the quantiles (Q,) of a line in ln FLOPs with an intercept per family, in logits, by least squares."""
    top = (points["family"] == family) & (np.log(points["flops"]) > ladder.order[ladder.tops[-2]] + 1e-9)
    smaller = points[~top]
    if not (smaller["family"] == family).any():
        return np.full(len(LEVELS), np.nan)
    names = sorted(set(smaller["family"]))
    design = np.column_stack(
        [np.log(smaller["flops"]), *[(smaller["family"] == name).to_numpy(float) for name in names]]
    )
    y = special.logit(np.clip(smaller["acc"], 0.005, 0.995))
    at = np.array([ladder.order[ladder.tops[-1]], *[float(name == family) for name in names]])
    inverse = np.linalg.pinv(design.T @ design)
    beta = inverse @ design.T @ y
    free = len(y) - design.shape[1]
    spread = np.sqrt(((y - design @ beta) ** 2).sum() / free * (1 + at @ inverse @ at))
    return np.asarray(special.expit(at @ beta + spread * stats.t.ppf(LEVELS, free)))


Simulated = dict[str, dict[str, list[Floats]]]  # setting and distance -> what came of it -> a part per store


def simulate(name: str, seed: int, made: Simulated) -> None:
    """Add one store to what came of each distance: y, true, ours (n, Q), oracle (n, Q), abstained."""
    sizes, checkpoints = SETTINGS[name]
    points, _ = store(sizes, checkpoints, seed)
    ends = points[points["step"] == 1000]
    tops = [ends[ends["rung"] == sizes + j].sort_values("task") for j in range(len(AHEAD))]
    aims = {key: [float(top[key].iloc[0]) for top in tops] for key in ("params", "tokens")}
    forecast = harness.forecast(points[points["rung"] < sizes], via="bpb", seed=seed, **aims)
    oracle = Oracle().quantiles(points, sizes, [1, 2], np.random.default_rng(seed))
    for j, ahead in enumerate(AHEAD):
        at_distance = np.arange(len(forecast.frame)) % len(AHEAD) == j
        parts = {
            "y": tops[j]["acc"].to_numpy(),
            "true": tops[j]["true"].to_numpy(),
            "ours": forecast.quantiles[at_distance],
            "oracle": oracle[j],
            "abstained": forecast.abstained.to_numpy()[at_distance].astype(float),
        }
        for key, part in parts.items():
            made.setdefault(f"{name}, {ahead}x", {}).setdefault(key, []).append(part)


def simulations(stores: int) -> Table:
    """Simulate every setting, store by store; what is there is written after each."""
    made: Simulated = {}
    for seed in range(SEED, SEED + stores):
        for name in SETTINGS:
            simulate(name, seed, made)
        write("simulations", simulated(made, seed - SEED + 1))
    return simulated(made, stores)


def simulated(made: Simulated, stores: int) -> Table:
    """Return the table of simulations."""
    rows: list[tuple[Any, ...]] = []
    notes, ratios = [], []
    joined = {label: {key: np.concatenate(parts) for key, parts in scores.items()} for label, scores in made.items()}
    for label, scores in joined.items():
        mine, best = score(scores["y"], scores["ours"]), score(scores["y"], scores["oracle"])
        rows += [row(label, "forecast", mine), row(label, "oracle", best)]
        ratios.append(mine.interval_score / best.interval_score)
        abstained = scores["abstained"].mean()
        notes.append(f"{label}: interval score {ratios[-1]:.2f} times the oracle's; {abstained:.1%} abstained.")
    every = {key: np.concatenate([scores[key] for scores in joined.values()]) for key in ("y", "true", "ours")}
    for low, high in pairwise(BANDS):
        band = (every["true"] >= low) & (every["true"] < high)
        if band.any():
            scores = score(every["y"][band], every["ours"][band])
            rows.append(row(f"all, true accuracy {low:g} to {min(high, 1):g}", "forecast", scores))
    about = (
        f"{stores * TASKS} ladders a setting in {stores} stores of {TASKS} tasks; mean ratio of interval scores "
        f"{np.mean(ratios):.2f}, largest {np.max(ratios):.2f}. The oracle has the true law, the true noise and the "
        "distribution that parameters were drawn from; a store is forecast as a whole."
    )
    return Table("simulations", "Simulated ladders, the true law known", COLUMNS, tuple(rows), (about, *notes))


def shapes(stores: int) -> Table:
    rows = []
    for shape, label in (("", "monotone"), ("falls", "falls after the middle"), ("chance", "at chance")):
        said = []
        for seed in range(SEED, SEED + stores):
            points, _ = store(5, 1, seed, shape)
            forecast = harness.forecast(
                points[points["rung"] < 5], params=4.5e9, tokens=9e10, seed=seed, forecasters=["walk"]
            )
            said += [why.split(":")[1] if why.startswith("abstain") else "" for why in forecast.frame["verdict"]]
        curve = [why for why in said if why and "interval" not in why]
        low, high = stats.binomtest(len(curve), len(said)).proportion_ci(method="wilson")
        rows.append((label, len(said), f"{len(curve) / len(said):.1%}", f"{low:.1%} to {high:.1%}"))
    about = "Reasons of the ladder alone (not the width of the interval); five sizes, 500 documents."
    return Table(
        "shapes", "How often it abstains", ("ladders", "n", "abstains", "95 % interval"), tuple(rows), (about,)
    )


def write(name: str, written: Table) -> None:
    """Write a section."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.md").write_text(default_host().reporters["md"]([written]) + "\n", encoding="utf-8")


def main() -> None:
    """Write the sections that are asked for, and calibration.md of all that are there."""
    path, stores, asked = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    made: dict[str, Callable[[], Table]] = {
        "simulations": partial(simulations, stores),
        "shapes": partial(shapes, stores),
        "olmo": olmo,
        "pythia": pythia,
        "nano": partial(nano, path),
        "opt": opt,
        "benchmarks": benchmarks,
    }
    for name in asked or made:
        if name == "join":
            continue
        write(name, made[name]())
        print(name, flush=True)
    join(list(made))


def join(names: Sequence[str]) -> None:
    """Write calibration.md: targets, how it was made, and all sections that are there."""
    paths = [FOLDER / f"{name}.md" for name in names]
    texts = [path.read_text(encoding="utf-8").strip() for path in paths if path.is_file()]
    head = default_host().reporters["md"]([reached(FOLDER)]).strip()
    about = (FOLDER / "about.md").read_text(encoding="utf-8").strip()
    (FOLDER / "calibration.md").write_text("\n\n".join([head, about, *texts]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
