"""Published fits of accuracy: in one step, in two, and with a break."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from tests.reproductions.targets import Numbers, Target, parameters, quick, read


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
    late = points[points["step"] >= 3000]
    return {
        "Spearman": float(late["acc"].corr(late["flops"], method="spearman")),
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


STEP_1 = {"mmlu": (38.07, 100.1, 0.226, 0.236, 0.454), "hellaswag": (11.23, 60.37, 0.196, 0.256, 0.502)}
STEP_1 |= {"piqa": (405.7, 10.16, 0.398, 0.153, 0.722)}
STEP_2 = {"mmlu": (-0.742, 0.616, 4.83, 1.0), "hellaswag": (-0.730, 0.767, 12.74, 0.992)}
STEP_2 |= {"piqa": (-0.459, 0.963, 5.03, 1.0)}


def two_steps() -> Numbers:
    """Bits per byte from the ends of 16 runs, accuracy from bits per byte along them, in sequence at 7B."""
    points = read("olmo_ladder", "ladder_runs_16.csv.gz")
    runs = [run.sort_values("step") for _, run in points.groupby(["params", "chinchilla_multiple"])]
    found = {}
    for task in STEP_1:
        ends = pd.DataFrame([_end(run, task) for run in runs])
        along = pd.concat([_along(run, task) for run in runs], ignore_index=True)
        first, second = quick(ends, "chinchilla", "bpb"), quick(along, "accuracy_from_loss", "acc")
        bits = first.predict(params=[6887575552.0], tokens=[3945065873408.0])["value"]
        found[f"{task}, %"] = 100 * float(second.predict(loss=bits)["value"].iloc[0])
        found |= {f"{task}: {name}": value for name, value in (parameters(first) | parameters(second)).items()}
    return found


def _expected() -> dict[str, tuple[float, float]]:
    """Return what two_steps should give: exponents and E within 0.01, factors within 10 %, the rest within 2 %."""
    found = {"mmlu, %": (48.4, 0.2), "hellaswag, %": (82.5, 0.2), "piqa, %": (81.2, 0.2)}
    for task, values in STEP_1.items():
        names = dict(zip(("A", "B", "alpha", "beta", "E"), values, strict=True))
        found |= {f"{task}: {k}": (v, 0.1 * v if k in "AB" else 0.01) for k, v in names.items()}
        names = dict(zip(("p", "x0", "k", "q"), STEP_2[task], strict=True))
        found |= {f"{task}: {k}": (v, 0.02 * abs(v)) for k, v in names.items()}
    return found


def _end(run: pd.DataFrame, task: str) -> Numbers:
    last = run.iloc[-1]
    return {"params": last["params"], "tokens": last["tokens"], "bpb": run[f"bpb_{task}"].tail(5).mean()}


def _along(run: pd.DataFrame, task: str) -> pd.DataFrame:
    """Return a run without its first tenth, smoothed over five evaluations."""
    kept = run.iloc[math.ceil(0.1 * len(run)) :]
    smooth = kept[[f"bpb_{task}", f"acc_{task}"]].rolling(5, min_periods=1).mean()
    return smooth.set_axis(["loss", "acc"], axis=1)


def broken() -> Numbers:
    """The loss of four-digit addition in the size of the training set, which falls off a cliff."""
    points = read("bnsl", "four_digit_addition_first_14.csv")
    found = quick(points, "broken_power", "test_cross_entropy", law_options={"feature": "train_set_size"})
    misses = np.log(found.predict(points)["value"] / points["test_cross_entropy"])
    return parameters(found) | {"rms of ln y": float(np.sqrt(np.mean(misses**2)))}


TARGETS = [
    Target(
        "O5",
        "Bhagia et al. 2024 (OLMo ladder), 7B",
        "chinchilla on 16 run ends, accuracy_from_loss on the runs, chained",
        two_steps,
        _expected(),
    ),
    Target(
        "O15, LAMBADA",
        "Pythia v1 evaluations",
        "sigmoid in 6 N D from step 512, 6.9B and 12B held out",
        lambada,
        {"Spearman": (0.968, 1e-3), "mean error": (0.0573, 1e-3), "12b": (0.7014, 1e-3), "6.9b": (0.6885, 1e-3)},
    ),
    Target(
        "O15, PIQA",
        "Pythia v1 evaluations",
        "the same",
        piqa,
        {"Spearman": (0.970, 1e-3), "mean error": (0.0178, 1e-3), "12b": (0.7705, 1e-3), "6.9b": (0.7617, 1e-3)},
    ),
    Target(
        "O18",
        "Caballero et al. 2023 (BNSL), four-digit addition",
        "broken_power on 14 points",
        broken,
        {
            "rms of ln y": (0.0006, 1e-5), "a": (0.4139, 0.0083), "b": (2.277, 0.046), "c0": (0.0551, 0.0011),
            "c1": (5.663, 0.113), "d1": (612.6, 12.3), "f1": (0.0592, 0.0012),
        },
    ),
]  # fmt: skip
