"""Published fits of loss in parameters and tokens."""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.fitting.result import LawFit
from tests.reproductions.targets import Numbers, Target, parameters, quick, read

BUDGET = 5.76e23  # FLOPs of Gopher, for which Hoffmann et al. chose a model


def chinchilla() -> Numbers:
    """Approach 3 on 240 points; the best split of a budget follows."""
    found = quick(read("epoch", "chinchilla_points_240.csv"), "chinchilla", "loss")
    best = found.optimal(BUDGET).iloc[0]
    return parameters(found) | {"N at 5.76e23": float(best["params"]), "D at 5.76e23": float(best["tokens"])}


def chinchilla_squares() -> Numbers:
    """The same points by least squares of the loss itself."""
    own = parameters(quick(read("epoch", "chinchilla_points_240.csv"), "chinchilla", "loss", objective="least_squares"))
    return own | {"mean squared error": 2 * own["objective"] / 240}


def chinchilla_huber() -> Numbers:
    """The same points by Huber's loss of the loss itself."""
    own = parameters(quick(read("epoch", "chinchilla_points_240.csv"), "chinchilla", "loss", objective="huber"))
    return own | {"mean Huber loss": own["objective"] / 240}


def chinchilla_errors() -> Numbers:
    """Standard errors of the same fit from the very resamples that were published: 4,000 draws of 240 rows."""
    rows = np.random.RandomState(42)  # the published resamples are those of the legacy generator
    drawn = (rows.choice(240, size=240, replace=True) for _ in range(4000))
    weights = np.array([np.bincount(row, minlength=240) for row in drawn], dtype=np.float64)
    step = quick(read("epoch", "chinchilla_points_240.csv"), "chinchilla", "loss", weights=weights).steps[0]
    draws = dict(zip(step.parameters, step.draws.T, strict=True))
    found = {f"error of {name}": float(draws[name].std(ddof=1)) for name in ("E", "alpha", "beta")}
    for name in ("alpha", "beta"):
        low, middle, high = np.quantile(draws[name], [0.1, 0.5, 0.9])
        found |= {f"{name}, 10 %": float(low), f"{name}, median": float(middle), f"{name}, 90 %": float(high)}
    return found


def own_errors() -> Numbers:
    """Standard errors of the same fit as they come by default, from weights of the points."""
    points = read("epoch", "chinchilla_points_240.csv")
    return dict(quick(points, "chinchilla", "loss", bootstrap=1000).steps[0].stderr)


def isoflops() -> Numbers:
    """Approach 3 on the points of the IsoFLOP curves."""
    return parameters(quick(read("isoflops", "isoflop_points_124.csv"), "chinchilla", "loss"))


def over_trained() -> Numbers:
    """Loss and average error of large models from five small runs and one of 1.4B, with two laws in sequence."""
    runs = read("gadre", "redpajama_models_35.csv").rename(columns={"loss_c4_eval": "loss", "err_avg_17": "error"})
    multiple, smallest = runs["chinchilla_multiple"], runs["params"] == runs["params"].min()
    small = runs["params"].rank(method="dense") <= 4
    one = runs["model_name"].str.startswith("open_lm_1b")
    fitted = runs[(small & (multiple == 1)) | (smallest & (multiple == 16))]
    loss = quick(fitted, "over_trained", "loss")
    error = quick(pd.concat([fitted, runs[one & (multiple == 1)]]), "error_from_loss", "error")
    found = {**parameters(loss), **parameters(error)}
    targets = {"1.4B": runs[one & (multiple == 32)], "6.9B": runs[runs["model_name"].str.startswith("open_lm_7b")]}
    for name, run in targets.items():
        own = run[run["chinchilla_multiple"].isin([1, 32])]
        predicted = loss.predict(own)["value"]
        found[f"loss of {name}, %"] = _percent(predicted, own["loss"])
        found[f"error of {name}, %"] = _percent(error.predict(loss=predicted)["value"], own["error"])
    return found


def _percent(predicted: pd.Series, measured: pd.Series) -> float:
    ((guess, truth),) = zip(predicted, measured, strict=True)
    return 100 * abs(guess / truth - 1)


def partial_curves() -> Numbers:
    """The last 30 % of the tokens of OPT 13B and 30B, from all smaller sizes; E is not determined (a warning)."""
    points = read("hitchhiker", "opt_trajectories_to_30b.csv")
    points = points[points["tokens"] >= 1e10].assign(loss=lambda t: np.log(t["perplexity"]))
    found: Numbers = {}
    for size in ("13b", "30b"):
        own = points[points["model_size"].str.lower() == size]
        late = own[own["tokens"] >= 0.7 * own["tokens"].max()]
        law: LawFit = quick(points[points["params"] < own["params"].iloc[0]], "chinchilla", "loss")
        predicted = law.predict(late)["value"].to_numpy()
        found[f"{size}, %"] = 100 * float(np.mean(np.abs(predicted / late["loss"].to_numpy() - 1)))
        found[f"{size}: E warned of"] = float(any("E lies at its bound" in warning for warning in law.warnings))
    return found


BESIROGLU = "Besiroglu et al. 2024 (Chinchilla Scaling: A Replication Attempt)"
TARGETS = [
    Target(
        "O1",
        BESIROGLU,
        "chinchilla, log_huber, 240 points",
        chinchilla,
        {
            "objective": (0.00101827, 3e-8), "E": (1.8172, 1e-3), "alpha": (0.3473, 1e-3), "beta": (0.3672, 1e-3),
            "A": (477.8, 4.8), "B": (2143, 43), "exponent of N*": (0.5139, 2e-3), "N at 5.76e23": (7.32e10, 2.2e9),
            "D at 5.76e23": (1.31e12, 4e10),
        },
    ),
    Target(
        "O1, squares",
        "vpnls 0.1.0 on the same points",
        "chinchilla, least_squares",
        chinchilla_squares,
        {
            "mean squared error": (3.46683e-4, 1e-9), "alpha": (0.3576, 1e-3), "beta": (0.4276, 1e-3),
            "E": (1.8828, 1e-3),
        },
    ),
    Target(
        "O1, Huber",
        "vpnls 0.1.0 on the same points",
        "chinchilla, huber",
        chinchilla_huber,
        {
            "mean Huber loss": (1.2068e-5, 1e-9), "alpha": (0.3443, 2e-3), "beta": (0.3730, 2e-3), "E": (1.8201, 2e-3),
        },
    ),
    Target(
        "O2",
        BESIROGLU,
        "standard errors of O1 from the 4,000 published resamples",
        chinchilla_errors,
        {
            "error of E": (0.02566, 2.6e-4), "error of alpha": (0.01540, 1.6e-4), "error of beta": (0.02059, 2.1e-4),
            "alpha, median": (0.3463, 5e-4), "beta, median": (0.3686, 5e-4), "alpha, 10 %": (0.3252, 1e-3),
            "alpha, 90 %": (0.3654, 1e-3), "beta, 10 %": (0.3461, 1e-3), "beta, 90 %": (0.3975, 1e-3),
        },
    ),
    Target(
        "O2, our resamples",
        BESIROGLU,
        "standard errors of O1 from 1,000 random weightings of the points",
        own_errors,
        {"E": (0.02566, 0.05 * 0.02566), "alpha": (0.0154, 0.05 * 0.0154), "beta": (0.02059, 0.05 * 0.02059)},
    ),
    Target(
        "O3",
        "IsoFLOP points of Hoffmann et al. 2022, approach 3 (Open-Athena)",
        "chinchilla, log_huber, 124 points",
        isoflops,
        {"objective": (0.000579, 5e-7), "alpha": (0.3777, 2e-3), "beta": (0.3928, 2e-3), "E": (1.8722, 2e-3)},
    ),
    Target(
        "O4",
        "Gadre et al. 2024, RedPajama",
        "over_trained on 5 runs, error_from_loss on 6; relative errors of what they predict",
        over_trained,
        {
            "a": (166.2, 0.1), "b": (366.7, 0.1), "c": (-0.27285, 2e-5), "E": (1.83665, 2e-5), "eps": (0.85699, 2e-5),
            "k": (2.206, 1e-3), "gamma": (0.7146, 1e-4), "loss of 1.4B, %": (0.7103, 0.01),
            "loss of 6.9B, %": (0.7320, 0.01), "error of 1.4B, %": (3.6365, 0.01), "error of 6.9B, %": (0.0464, 0.01),
        },
    ),
    Target(
        "O16",
        "Choshen et al. 2024 (OPT loss curves)",
        "chinchilla of ln perplexity from 1e10 tokens, all smaller sizes; last 30 % of tokens predicted",
        partial_curves,
        {
            "13b, %": (0.45, 0.03), "30b, %": (0.61, 0.03), "13b: E warned of": (1, 0), "30b: E warned of": (1, 0),
        },
    ),
]  # fmt: skip
