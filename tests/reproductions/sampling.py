"""Published fits of the share of samples that pass."""

from __future__ import annotations

import numpy as np

from tests.reproductions.targets import Numbers, Target, parameters, quick, read


def tries() -> Numbers:
    """pass@k up to 100 tries, and at 10,000."""
    points = read("monkeys", "pythia_math_pass_at_k_mean.csv")
    found = {}
    for size in ("2.8B", "1B"):
        own = points[points["model_size"] == size]
        law = quick(own[["k", "pass_at_k"]], "pass_at_k", "pass_at_k", hold_out="k > 100")
        (last,) = [row["predicted"] for row in law.hold_out if row["k"] == 10000]
        found |= {f"{size}: b": law.steps[0].parameters["b"], f"{size}: pass@10000": last}
    return found


def sizes() -> Numbers:
    """pass@1 and pass@10 from 70M to 1B, and of 2.8B."""
    points = read("monkeys", "pythia_math_pass_at_k_mean.csv")
    found = {}
    for k in (1, 10):
        own = points[points["k"] == k].drop(columns=["model_size", "k"])
        arguments = {"hold_out": "params > 2e9", "objective": "loglog_least_squares"}
        law = quick(own, "pass_until", "pass_at_k", **arguments)
        reached = np.log(-np.log(own.loc[own["params"] < 2e9, "pass_at_k"]))
        explained = 1 - 2 * law.steps[0].cost / float(((reached - reached.mean()) ** 2).sum())
        (last,) = law.hold_out
        names = (f"k = {k}: alpha", f"k = {k}: R2", f"k = {k}: 2.8B")
        found |= dict(zip(names, (law.steps[0].parameters["alpha"], explained, last["predicted"]), strict=True))
    return found


def generative() -> Numbers:
    """pass@1 from parameters and tokens, fitted up to 2.8B and predicted above."""
    points = read("monkeys", "pythia_gsm8k_pass_at_1_by_checkpoint.csv")
    points = points[(points["pass_at_1"] > 0) & (points["tokens"] >= 6e9)].drop(columns="model_size")
    found = quick(points, "generative_nd", "pass_at_1", hold_out="params > 3e9")
    errors = [abs(np.log(row["predicted"]) / np.log(row["measured"]) - 1) for row in found.hold_out]
    return parameters(found) | {"error, %": 100 * float(np.mean(errors)), "held out": float(len(errors))}


TARGETS = [
    Target(
        "O10",
        "Brown et al. 2024 (Large Language Monkeys), Pythia on MATH",
        "pass_at_k, k to 100",
        tries,
        {
            "2.8B: b": (0.342, 1e-3), "2.8B: pass@10000": (0.8321, 1e-3), "1B: b": (0.298, 1e-3),
            "1B: pass@10000": (0.7138, 1e-3),
        },
    ),
    Target(
        "O11",
        "the same samples, after Hu et al. 2024",
        "pass_until, loglog_least_squares, 2.8B held out",
        sizes,
        {
            "k = 1: alpha": (0.1605, 1e-3), "k = 1: R2": (0.935, 1e-3), "k = 1: 2.8B": (0.02015, 1e-4),
            "k = 10: alpha": (0.2373, 1e-3), "k = 10: R2": (0.930, 1e-3), "k = 10: 2.8B": (0.13489, 7e-4),
        },
    ),
    Target(
        "O12",
        "Pythia on GSM8K, pass@1",
        "generative_nd, sizes above 3e9 held out",
        generative,
        {
            "E0": (3.69, 0.11), "beta": (0.410, 0.0123), "gamma": (0.977, 0.0293), "objective": (0.21936, 1.4e-4),
            "error, %": (8.11, 0.3), "held out": (8, 0),
        },
    ),
]  # fmt: skip
