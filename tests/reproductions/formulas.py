"""Published fits of formulas: of loss, of accuracy, and of one behind the other."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from tests.reproductions.targets import Numbers, Target, parameters, quick, read


def chinchilla() -> Numbers:
    """Approach 3 on 240 points; the optimal parameters at a budget follow from the parameters."""
    own = parameters(quick(read("epoch", "chinchilla_points_240.csv"), "chinchilla", "loss"))
    own |= {"A": math.exp(own["a"]), "B": math.exp(own["b"])}
    total = own["alpha"] + own["beta"]
    ratio = (own["alpha"] * own["A"] / (own["beta"] * own["B"])) ** (1 / total)
    params = ratio * (5.76e23 / 6) ** (own["beta"] / total)
    return own | {"exponent of N": own["beta"] / total, "N at 5.76e23": params, "D at 5.76e23": 5.76e23 / 6 / params}


def chinchilla_squares() -> Numbers:
    """The same points by least squares of the loss itself."""
    own = parameters(quick(read("epoch", "chinchilla_points_240.csv"), "chinchilla", "loss", objective="least_squares"))
    return own | {"mean squared error": 2 * own["objective"] / 240}


def chinchilla_errors() -> Numbers:
    """Standard errors of the same fit."""
    points = read("epoch", "chinchilla_points_240.csv")
    return dict(quick(points, "chinchilla", "loss", bootstrap=1000).steps[0].stderr)


def isoflops() -> Numbers:
    """Approach 3 on the points of the IsoFLOP curves."""
    return parameters(quick(read("isoflops", "isoflop_points_124.csv"), "chinchilla", "loss"))


def generative() -> Numbers:
    """-ln pass@1 from parameters and tokens, fitted up to 2.8B and predicted above."""
    points = read("monkeys", "pythia_gsm8k_pass_at_1_by_checkpoint.csv")
    points = points[(points["pass_at_1"] > 0) & (points["tokens"] >= 6e9)]
    points = points.assign(y=-np.log(points["pass_at_1"])).drop(columns="model_size")
    found = quick(points, "chinchilla", "y", objective="log_least_squares", hold_out="params > 3e9")
    errors = [abs(row["relative_error"]) for row in found.hold_out]
    return parameters(found) | {"error, %": 100 * float(np.mean(errors))}


def pythia(task: str) -> Numbers:
    """Accuracy from compute in one step; the two largest sizes are predicted."""
    points = read("pythia", "pythia_v1_zero_shot_lambada_piqa.csv")
    points = points[(points["metric"] == "acc") & (points["step"] >= 512) & (points["task"] == task)]
    points = points.assign(flops=6.0 * points["params"] * points["tokens"]).drop(columns=["metric", "task"])
    points = points.rename(columns={"value": "acc"})
    largest = "size in ['6.9b', '12b']"
    found = quick(points, "sigmoid", "acc", hold_out=largest)
    held = pd.DataFrame(found.hold_out).assign(model=points.query(largest)["model"].to_numpy())
    last = held[held["point"].str.endswith("@143000")].set_index("model")["predicted"]
    return {
        "mean error": float(held["error"].abs().mean()),
        "12b": float(last["pythia-12b-deduped"]),
        "6.9b": float(last["pythia-6.9b-deduped"]),
    }


def lambada() -> Numbers:
    """LAMBADA."""
    return pythia("lambada_openai")


def piqa() -> Numbers:
    """PIQA."""
    return pythia("piqa")


def partial_curves() -> Numbers:
    """The last 30 % of the tokens of OPT 13B and 30B, from all smaller sizes; E is not determined, and that is said."""
    points = read("hitchhiker", "opt_trajectories_to_30b.csv")
    points = points[points["tokens"] >= 1e10].assign(loss=lambda t: np.log(t["perplexity"]))
    found: Numbers = {}
    for size in ("13b", "30b"):
        own = points[points["model_size"].str.lower() == size]
        late = own[own["tokens"] >= 0.7 * own["tokens"].max()]
        law = quick(points[points["params"] < own["params"].iloc[0]], "chinchilla", "loss")
        predicted = law.predict(late)["value"].to_numpy()
        found[f"{size}, %"] = 100 * float(np.mean(np.abs(predicted / late["loss"].to_numpy() - 1)))
        found[f"{size}: E warned of"] = float(any("E lies at its bound" in warning for warning in law.warnings))
    return found


def two_steps() -> Numbers:
    """Bits per byte from the ends of 16 runs, accuracy from bits per byte along them, one behind the other at 7B."""
    points = read("olmo_ladder", "ladder_runs_16.csv.gz")
    runs = [run.sort_values("step") for _, run in points.groupby(["params", "chinchilla_multiple"])]
    found = {}
    for task in ("mmlu", "hellaswag", "piqa"):
        ends = pd.DataFrame([_end(run, task) for run in runs])
        along = pd.concat([_along(run, task) for run in runs], ignore_index=True)
        bits = quick(ends, "chinchilla", "bpb").predict(params=[6887575552.0], tokens=[3945065873408.0])["value"]
        predicted = quick(along, "accuracy_from_loss", "acc").predict(loss=bits)["value"]
        found[f"{task}, %"] = 100 * float(predicted.iloc[0])
    return found


def _end(run: pd.DataFrame, task: str) -> Numbers:
    last = run.iloc[-1]
    return {"params": last["params"], "tokens": last["tokens"], "bpb": run[f"bpb_{task}"].tail(5).mean()}


def _along(run: pd.DataFrame, task: str) -> pd.DataFrame:
    """Return a run without its first tenth, smoothed over five evaluations."""
    kept = run.iloc[math.ceil(0.1 * len(run)) :]
    smooth = kept[[f"bpb_{task}", f"acc_{task}"]].rolling(5, min_periods=1).mean()
    return smooth.set_axis(["loss", "acc"], axis=1)


BESIROGLU = "Besiroglu et al. 2024 (Chinchilla Scaling: A Replication Attempt)"
TARGETS = [
    Target(
        "O1",
        BESIROGLU,
        "chinchilla, log_huber, 240 points",
        chinchilla,
        {
            "objective": (0.00101827, 3e-8), "E": (1.8172, 1e-3), "alpha": (0.3473, 1e-3), "beta": (0.3672, 1e-3),
            "A": (477.8, 4.8), "B": (2143, 43), "exponent of N": (0.5139, 2e-3), "N at 5.76e23": (7.32e10, 2.2e9),
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
        "O2",
        BESIROGLU,
        "standard errors of O1 from 1,000 resamples of points (theirs: 4,000 bootstraps)",
        chinchilla_errors,
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
        "O5",
        "Bhagia et al. 2024 (OLMo ladder), 7B",
        "chinchilla on 16 run ends, accuracy_from_loss on the runs, chained",
        two_steps,
        {"mmlu, %": (48.4, 0.2), "hellaswag, %": (82.5, 0.2), "piqa, %": (81.2, 0.2)},
    ),
    Target(
        "O12",
        "Pythia on GSM8K, pass@1",
        "chinchilla of -ln pass@1, log_least_squares, sizes above 3e9 held out",
        generative,
        {
            "E": (3.69, 0.11), "alpha": (0.410, 0.0123), "beta": (0.977, 0.0293), "objective": (0.21936, 1.4e-4),
            "error, %": (8.11, 0.3),
        },
    ),
    Target(
        "O15, LAMBADA",
        "Pythia v1 evaluations",
        "sigmoid in 6 N D from step 512, 6.9B and 12B held out",
        lambada,
        {"mean error": (0.0573, 1e-3), "12b": (0.7014, 1e-3), "6.9b": (0.6885, 1e-3)},
    ),
    Target(
        "O15, PIQA",
        "Pythia v1 evaluations",
        "the same",
        piqa,
        {"mean error": (0.0178, 1e-3), "12b": (0.7705, 1e-3), "6.9b": (0.7617, 1e-3)},
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
