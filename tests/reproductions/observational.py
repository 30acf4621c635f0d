"""Published procedures: capabilities from benchmarks, and compute-optimal exponents."""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness_plugins.analyses.capability_lines import coordinates, efficiency, equivalents
from harness_plugins.laws.capabilities import Space
from harness_plugins.laws.isoflop_curves import exponent
from tests.reproductions.targets import Numbers, Target, quick, read

BENCHMARKS = ("mmlu", "arc_c", "hellaswag", "winograd", "truthfulqa", "gsm8k", "xwinograd", "humaneval")
WORDS = "word_unscrambling_2shot_exact_match"
PRODUCTS = "arithmetic_2digit_multiplication_2shot_acc"


def models() -> pd.DataFrame:
    """Return the published models with our names of columns; the weak ones have up to 84e21 FLOPs."""
    frame = read("obsscaling", "base_llm_benchmarks.csv")
    return frame.assign(flops=frame["flops_1e21"] * 1e21, params=frame["model_size_b"] * 1e9)


def plane() -> Numbers:
    """The components of all 77 models."""
    space = Space.of(models()[list(BENCHMARKS)].to_numpy())
    loadings = dict(zip(BENCHMARKS, space.axes[0], strict=True))
    explained = {f"share of PC{k}": share for k, share in enumerate(space.explained, 1)}
    return {name: float(value) for name, value in {**explained, **loadings}.items()}


def compute_equivalents() -> Numbers:
    """PC1 on log10 C in every family, and the compute that Llama-2 would need for the capability of phi-2."""
    points, _ = coordinates(models().rename(columns={"model_family": "family"}), BENCHMARKS)
    lines = efficiency(points)
    llama = lines.names.index("Llama-2")
    gains = {row["model"]: gain for row, _, gain in equivalents(points, lines, "Llama-2")}
    return {
        "families": float(len(lines.names)),
        "mean R2": float(lines.r2.mean()),
        "smallest R2": float(lines.r2.min()),
        "R2 above 0.9": float((lines.r2 > 0.9).sum()),
        "Llama-2, theta": float(lines.theta[llama]),
        "Llama-2, nu at 1e21": float(lines.nu[llama] + 21 * lines.theta[llama]),
        "phi-2, gain": gains["microsoft/phi-2"].value,
    }


def emergent(task: str, benchmarks: tuple[str, ...]) -> Numbers:
    """Mean squared errors of the strong models, predicted from the weak ones."""
    table = models().merge(read("obsscaling", "emergent_tasks.csv"), on="model")
    strong = "not flops <= 84e21"

    def error(where: str | None = None, **options: object) -> float:
        found = quick(table, "observational", task, hold_out=strong, where=where, law_options=options)
        return float(np.mean([row["error"] ** 2 for row in found.hold_out]))

    names = ",".join(benchmarks)
    found = {f"PC1-{k}": error(benchmarks=names, components=k) for k in (1, 2, 3)}
    spread = float(table.query(strong)[task].var(ddof=0))
    known = error("flops == flops", measure="flops")
    found |= {"R2 of PC1-3": 1 - found["PC1-3"] / spread, "log10 C": known, "log10 N": error(measure="params")}
    return found | {"chosen on the ladder": error(benchmarks=names)}


def words() -> Numbers:
    """Word unscrambling."""
    return emergent(WORDS, BENCHMARKS)


def products() -> Numbers:
    """Products of numbers of two digits; GSM8K is left out of the benchmarks."""
    return emergent(PRODUCTS, tuple(name for name in BENCHMARKS if name != "gsm8k"))


def optima() -> Numbers:
    """Exponents of published minima, and of the underlying curves."""
    pairs, points = read("formll", "optimal_pairs.csv"), read("formll", "isoflop_points.csv")
    found: Numbers = {}
    for setting, own in pairs.groupby("setting"):
        flops, best, error = (own[name].to_numpy() for name in ("budget_flop", "n_params_opt", "log_n_opt_std"))
        found[f"{setting}, ordinary"], _ = exponent(flops, best)
        found[f"{setting}, weighted"], _ = exponent(flops, best, error)
        curves = points[points["setting"] == setting].rename(columns={"budget_flop": "flops"})
        for curve in ("akima", "parabola"):
            law = quick(curves, "isoflop", "loss", law_options={"curve": curve})
            found[f"{setting}, {curve}"] = law.steps[0].parameters["a"]
    return found


RUAN = "Ruan et al. 2024 (Observational Scaling Laws)"
TARGETS = [
    Target(
        "O6",
        RUAN,
        "components of 77 models x 8 benchmarks, gaps filled by the first",
        plane,
        {
            "share of PC1": (0.8016, 2e-3), "share of PC2": (0.1190, 2e-3), "share of PC3": (0.0463, 2e-3),
            "share of PC4": (0.0136, 2e-3), "share of PC5": (0.0113, 2e-3), "mmlu": (0.448, 2e-3),
            "arc_c": (0.344, 2e-3), "hellaswag": (0.379, 2e-3), "winograd": (0.242, 2e-3), "truthfulqa": (0.085, 2e-3),
            "gsm8k": (0.552, 2e-3), "xwinograd": (0.214, 2e-3), "humaneval": (0.347, 2e-3),
        },
    ),
    Target(
        "O7, words",
        RUAN,
        "observational, 44 models up to 84e21 FLOPs; squared error on the other 21 (log10 C: 19)",
        words,
        {
            "PC1-1": (0.0243, 5e-4), "PC1-2": (0.0037, 5e-4), "PC1-3": (0.0024, 5e-4), "R2 of PC1-3": (0.881, 2e-3),
            "log10 C": (0.0185, 5e-4),
            "log10 N": (0.0740, 5e-4),
        },
    ),
    Target(
        "O7, products",
        RUAN,
        "the same, without GSM8K",
        products,
        {
            "PC1-1": (0.0250, 5e-4), "PC1-2": (0.0118, 5e-4), "PC1-3": (0.0169, 5e-4), "log10 C": (0.0265, 5e-4),
            "log10 N": (0.2619, 5e-4),
        },
    ),
    Target(
        "O8",
        RUAN,
        "PC1 of O6 on log10 C in each family; the compute of Llama-2 for the PC1 of phi-2, over its own",
        compute_equivalents,
        {
            "families": (14, 0), "mean R2": (0.966, 1e-3), "smallest R2": (0.899, 1e-3), "R2 above 0.9": (13, 0),
            "Llama-2, theta": (0.5204, 2e-3), "Llama-2, nu at 1e21": (-0.9242, 2e-3), "phi-2, gain": (19.9, 0.3),
        },
    ),
    Target(
        "O9",
        "Porian et al. 2024 (Resolving Discrepancies), RefinedWeb",
        "slope of ln N* on ln C over 12 published minima; and isoflop on the points of the curves",
        optima,
        {
            "rw_cosine, ordinary": (0.5714, 1e-3), "rw_cosine, weighted": (0.5715, 1e-3),
            "rw_cosine, akima": (0.5714, 5e-3), "rw_tuned, ordinary": (0.4970, 1e-3),
            "rw_tuned, weighted": (0.4969, 1e-3), "rw_tuned, akima": (0.4970, 5e-3),
        },
    ),
]  # fmt: skip
