"""Published trends, and estimators whose exact answers are known."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pandas as pd

from harness.fitting.crossings import crossovers
from harness.fitting.result import LawFit
from harness.types import Floats
from harness_plugins.analyses import curve_shapes, estimators
from harness_plugins.analyses.document_scores import STEPS, read_document_scores
from harness_plugins.analyses.power_laws import pareto_power
from harness_plugins.analyses.predictability import StepCorrelations, correlations
from tests.reproductions.targets import Numbers, Target, quick, read


def counts() -> Numbers:
    """The mean over problems from 10,000 samples each, against the published mean at every k."""
    own, means = read("monkeys", "pythia_math_counts_1b_2p8b.csv"), read("monkeys", "pythia_math_pass_at_k_mean.csv")
    means = means[means["model_size"].isin(set(own["model_size"]))]
    errors = []
    for row in means.to_dict("records"):
        problems = own[own["model_size"] == row["model_size"]]
        found = estimators.mean_pass_at_k(problems["n_correct"], problems["n_samples"], int(row["k"]))
        errors.append(abs(found.value - row["pass_at_k"]))
    return {"values of k, both sizes": float(len(errors)), "largest difference": float(max(errors))}


@cache
def chain_of_items() -> dict[str, list[StepCorrelations]]:
    """The steps from log-probability to accuracy of five tasks on four sizes of GPT-2, by task."""
    documents = read("inverse_scaling", "gpt2_per_item_5_tasks.csv.gz")
    p_choices = np.exp(documents["log_p_choices_correct"])
    logp_gold = documents["log_p_choices_correct"] + documents["log_mass_choices"]
    documents = documents.assign(
        logp_gold=logp_gold, p_vocab=np.exp(logp_gold), p_choices=p_choices, brier=(1 - p_choices) ** 2
    )
    documents = documents.rename(columns={"item": "doc_id", "correct": "acc"})
    return {one.task: correlations(one) for one in read_document_scores(documents, scale="params")}


def mean_correlations() -> Numbers:
    """Spearman's correlation with size at each step, averaged over documents."""
    steps = chain_of_items()
    return {f"{t}, {s.name}": float(s.rho["spearman"].mean()) for t, found in steps.items() for s in found}


def strong_correlations() -> Numbers:
    """The share of documents whose |correlation| exceeds 0.75."""
    steps = chain_of_items()
    return {f"{t}, {s.name}": float(s.strong().mean()) for t, found in steps.items() for s in found}


def steps_of_tasks(*rows: tuple[float, ...]) -> dict[str, tuple[float, float]]:
    """Name published numbers (one row per task) by task and step."""
    tasks = ("boolq-0shot", "scope-neglect-0shot", "scope-neglect-1shot", "dice-0shot", "dice-1shot")
    return {
        f"{task}, {step}": (value, 1e-3)
        for task, row in zip(tasks, rows, strict=True)
        for step, value in zip(STEPS, row, strict=True)
    }


def breakthroughs() -> Numbers:
    """The last step of each of six sizes of OPT."""
    points = read("hitchhiker", "opt_bigbench_3_tasks.csv").sort_values(["params", "step"])
    last = points.groupby("params").tail(1)
    found: Numbers = {}
    for task in ("codelinedescription", "implicatures", "whatisthetao"):
        scores = last[task].to_numpy()
        found |= {
            f"L, {task}": float(curve_shapes.linearity(scores)),
            f"B, {task}": float(curve_shapes.breakthroughness(scores)),
        }
    return found


def frontier() -> Numbers:
    """The lowest segmentation error of CLIP at each compute; fitted to the cheaper 80 %, the others predicted."""
    points = read("laion", "clip_segmentation_581.csv")
    found = pareto_power(points["compute_flop"], 1 - points["miou"], up_to=0.8)
    beyond = found.flops > np.quantile(found.flops, 0.8)
    errors = np.abs(found.curve(found.flops) / found.best - 1)[beyond]
    return {
        "points": float(len(found.flops)), "fitted": float((~beyond).sum()), "a": found.a, "b": found.b,
        "error, %": 100 * float(errors.mean()),
    }  # fmt: skip


def sampled_until() -> Numbers:
    """200,000 times five successes at a pass rate of 0.01."""
    trials = np.random.default_rng(0).negative_binomial(5, 0.01, size=200_000) + 5
    return {
        "mean of r / K": float((5 / trials).mean()),
        "mean of (r - 1) / (K - 1)": float(estimators.pass_until(np.full(200_000, 5), trials)[0].mean()),
    }


def active() -> Numbers:
    """Four documents, over all orders of selection."""
    losses, weights = np.array([3, 1.2, 0.4, 2.2]), np.array([0.5, 0.2, 0.1, 0.2])
    found: Numbers = {"worked case": estimators.lure(losses[:2], np.array([0.5, 0.25]), 4).value}
    for labelled in (1, 2, 3, 4):
        values, chances = [], []
        for order in map(list, itertools.permutations(range(4), labelled)):
            left = 1 - np.concatenate([[0], np.cumsum(weights[order])[:-1]])
            q = np.clip(weights[order] / left, 0, 1)
            values.append(estimators.lure(losses[order], q, 4).value)
            chances.append(q.prod())
        mean = np.average(values, weights=chances)
        found[f"mean, M = {labelled}"] = float(mean)
        found[f"sd, M = {labelled}"] = float(np.sqrt(np.average((values - mean) ** 2, weights=chances)))
    return found


def seeds_and_documents() -> Numbers:
    """60 data sets of 20 seeds and 400 examples."""
    errors = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        own = 0.02 + 0.03 * rng.normal(size=(20, 1)) + 0.2 * rng.normal(size=400) + 0.3 * rng.normal(size=(20, 400))
        errors.append(estimators.multi_bootstrap(own, resamples=500).stderr)
    return {"mean standard error": float(np.mean(errors))}


def verifier() -> Numbers:
    """p 0.3, t 0.9, f 0.1."""
    found = {k: estimators.verified(0.3, 0.9, 0.1, k) for k in (1, 2, 5, 20)}
    return {
        "accept rate": found[1].accepted,
        "precision": found[1].precision,
        **{f"success in {k}": one.success for k, one in found.items()},
    }


def crossing_laws() -> Numbers:
    """Two power laws of compute, fitted to points of them without noise, and two that do not cross."""
    flops = np.geomspace(1e18, 1e24, 40)
    fits = [power_of(flops, a * flops**-b) for a, b in ((30, 0.06), (100, 0.085))]
    ((one,), _) = crossovers(*fits)
    far = np.geomspace(1e14, 1e26, 40)
    apart = [power_of(far, e + k * 10 ** (-b * np.log10(far))) for e, k, b in ((1.7, 60, 0.1), (1.6, 30, 0.07))]
    return {
        "FLOPs": one.value, "value": float(fits[0].curve({"flops": np.array([one.value])})[0]),
        "crossovers of the others": float(len(crossovers(*apart)[0])),
    }  # fmt: skip


def power_of(flops: Floats, values: Floats) -> LawFit:
    """Fit the law power to points."""
    return quick(pd.DataFrame({"flops": flops, "loss": values}), "power", "loss")


def curves() -> Numbers:
    """Five curves, the third with more than half of its steps 0."""
    cases = [
        (0, 0.25, 0.5, 0.75, 1), (1, 0.75, 0.5, 0.25, 0), (0, 0, 0, 0, 1), (0, 0.1, 0.1, 0.2, 0.9),
        (0.5, 0.3, 0.1, 0.4, 0.7),
    ]  # fmt: skip
    found: Numbers = {}
    for number, case in enumerate(np.array(cases, dtype=np.float64), 1):
        found |= {
            f"L, {number}": float(curve_shapes.linearity(case)),
            f"B, {number}": float(curve_shapes.breakthroughness(case)),
        }
    return found


def u_shape() -> Numbers:
    """Five scores that fall and rise."""
    found = curve_shapes.quadratic(np.arange(5.0), np.array([0.6, 0.45, 0.4, 0.5, 0.65]))
    return {"u": found.u.value, "v": found.v, "w": found.w, "vertex": found.vertex}


def passes() -> Numbers:
    """Three of ten."""
    return {f"pass@{k}": float(estimators.pass_at_k([3], [10], k)[0]) for k in (1, 2, 5, 8)}


def near(values: dict[str, float], allowed: float) -> dict[str, tuple[float, float]]:
    """Return values with one difference allowed to all."""
    return {name: (value, allowed) for name, value in values.items()}


BY_HAND = "exact, from the formula"
TARGETS = [
    Target(
        "O10, counts",
        "Brown et al. 2024 (Large Language Monkeys), Pythia on MATH",
        "mean_pass_at_k of counts of successes in 10,000 samples",
        counts,
        {"values of k, both sizes": (202, 0), "largest difference": (0, 1e-9)},
    ),
    Target(
        "O13, mean",
        "McKenzie et al. 2023 (Inverse Scaling), GPT-2; Schaeffer et al. 2024",
        "correlations of every item with size, Spearman; mean over items",
        mean_correlations,
        steps_of_tasks(
            (0.515, 0.515, 0.039, 0.039, 0.032), (0.847, 0.847, 0.053, 0.053, 0.001),
            (0.779, 0.779, 0.028, 0.028, 0.022), (0.361, 0.361, 0.275, 0.275, 0.275),
            (0.043, 0.043, 0.281, 0.281, 0.033),
        ),
    ),
    Target(
        "O13, strong",
        "the same",
        "share of items with |rho| > 0.75",
        strong_correlations,
        steps_of_tasks(
            (0.539, 0.539, 0.288, 0.288, 0.450), (0.896, 0.896, 0.281, 0.281, 0.268),
            (0.719, 0.719, 0.342, 0.342, 0.152), (0.672, 0.672, 0.871, 0.871, 0.951),
            (0.258, 0.258, 0.837, 0.837, 0.085),
        ),
    ),
    Target(
        "O14",
        "Srivastava et al. 2022 (BIG-bench), on OPT (Choshen et al. 2024)",
        "linearity, breakthroughness of the last steps of six sizes",
        breakthroughs,
        near(
            {
                "L, codelinedescription": 2.817, "B, codelinedescription": 3.333, "L, implicatures": 1.774,
                "B, implicatures": 1.900, "L, whatisthetao": 1.501, "B, whatisthetao": 1.667,
            },
            1e-3,
        ),
    ),
    Target(
        "O17",
        "Cherti et al. 2023 (CLIP), segmentation error",
        "pareto_power up to the 80 % quantile of the frontier's compute",
        frontier,
        {"points": (31, 0), "fitted": (25, 0), "a": (8.25, 0.25), "b": (-0.0591, 1e-3), "error, %": (4.89, 0.1)},
    ),
    Target(
        "S6",
        BY_HAND,
        "pass_until, 5 successes at 0.01",
        sampled_until,
        {"mean of r / K": (0.01247, 2e-4), "mean of (r - 1) / (K - 1)": (0.01, 2e-4)},
    ),
    Target(
        "S9",
        BY_HAND,
        "lure, over all orders of picking",
        active,
        near(
            {
                "worked case": 1.8, "mean, M = 1": 1.7, "mean, M = 2": 1.7, "mean, M = 3": 1.7, "mean, M = 4": 1.7,
                "sd, M = 1": 0.545436, "sd, M = 2": 0.305596, "sd, M = 3": 0.167636, "sd, M = 4": 0,
            },
            1e-6,
        ),
    ),
    Target(
        "S10",
        "mean over 60 draws; 0.0125 without the residual's share",
        "multi_bootstrap of 20 seeds x 400 documents",
        seeds_and_documents,
        {"mean standard error": (0.0131, 8e-4)},
    ),
    Target(
        "S11",
        BY_HAND,
        "verified, p 0.3, t 0.9, f 0.1",
        verifier,
        near(
            {
                "accept rate": 0.34, "precision": 0.794118, "success in 1": 0.27, "success in 2": 0.4482,
                "success in 5": 0.694668, "success in 20": 0.793922,
            },
            1e-6,
        ),
    ),
    Target(
        "S12",
        BY_HAND,
        "crossovers of two fits of power, without noise",
        crossing_laws,
        {"FLOPs": (8.22526e20, 1e17), "value": (1.66806, 1e-5), "crossovers of the others": (0, 0)},
    ),
    Target(
        "S13",
        BY_HAND,
        "linearity, breakthroughness",
        curves,
        near(
            {
                "L, 1": 4, "B, 1": 4, "L, 2": -4, "B, 2": -4, "L, 3": 2, "B, 3": 100, "L, 4": 2.5205, "B, 4": 9,
                "L, 5": 2.3534, "B, 5": 2.3534,
            },
            1e-4,
        ),
    ),
    Target(
        "S14",
        BY_HAND,
        "quadratic",
        u_shape,
        near({"u": 0.053571, "v": -0.199286, "w": 0.597143, "vertex": 1.86}, 1e-6),
    ),
    Target(
        "S15",
        BY_HAND,
        "pass_at_k, 3 of 10",
        passes,
        near({"pass@1": 0.3, "pass@2": 0.533333, "pass@5": 0.916667, "pass@8": 1}, 1e-6),
    ),
]  # fmt: skip
