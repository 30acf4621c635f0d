"""Open ladders for the benchmark of forecasts, with what is held out told apart: points as `harness.forecast` takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

import harness
from tests.reproductions.targets import read

MMLU = ("mmlu_stem", "mmlu_humanities", "mmlu_social_sciences", "mmlu_other")
OLMO_DOCS = {
    "hellaswag": 10042, "piqa": 1838, "mmlu": 14042, "mmlu_stem": 3153, "mmlu_humanities": 4705,
    "mmlu_social_sciences": 3077, "mmlu_other": 3107,
}  # fmt: skip
CHANCE = {"piqa": 0.5, "lambada_openai": 0.0, "codelinedescription": 0.25, "implicatures": 0.5, "whatisthetao": 0.25}
OPT_DOCS = {"codelinedescription": 60, "implicatures": 492, "whatisthetao": 36}
BENCHMARKS = {
    "mmlu": 0.25, "arc_c": 0.25, "hellaswag": 0.25, "winograd": 0.5, "truthfulqa": 0.25, "gsm8k": 0.0,
    "xwinograd": 0.5, "humaneval": 0.0,
}  # fmt: skip


def olmo(*, last: int = 5) -> pd.DataFrame:
    """The ends of 16 runs up to 1.3B (means of the last evaluations), and the 7B; a run is a size and a length."""
    runs = read("olmo_ladder", "ladder_runs_16.csv.gz").sort_values("step")
    large = read("olmo_ladder", "target_7b.csv")
    rows = []
    for task, docs in OLMO_DOCS.items():
        columns = {f"bpb_{task}": "bpb", f"acc_{task}": "acc"}
        ends = [
            run.rename(columns=columns).tail(last)[["bpb", "acc", "params"]].mean().to_frame().T.assign(
                size=f"{size}-{multiple:g}x", tokens=run["tokens"].iloc[-1]
            )
            for (size, multiple), run in runs.groupby(["model_size", "chinchilla_multiple"])
        ]  # fmt: skip
        top = large.rename(columns=columns)[["bpb", "acc", "params", "tokens"]].assign(size="7B")
        points = pd.concat([*ends, top], ignore_index=True)
        chance = CHANCE.get(task, 0.25)
        rows.append(points.assign(family="olmo", task=task, acc_n=float(docs), chance=chance))
    frame = pd.concat(rows, ignore_index=True)
    return frame.assign(flops=6.0 * frame["params"] * frame["tokens"])


def pythia() -> pd.DataFrame:
    """Pythia v1 with and without duplicates: LAMBADA and PIQA at the end of training."""
    points = read("pythia", "pythia_v1_zero_shot_lambada_piqa.csv").query("metric == 'acc' and step == 143000")
    return points.assign(
        flops=6.0 * points["params"] * points["tokens"],
        family=np.where(points["deduped"], "pythia-deduped", "pythia"),
        acc=points["value"],
        acc_stderr=points["stderr"],
        chance=points["task"].map(CHANCE),
    ).drop(columns=["metric", "value", "stderr", "model"])


def opt() -> pd.DataFrame:
    """OPT to 175B on three tasks of BIG-bench: the end of each run."""
    points = read("hitchhiker", "opt_bigbench_3_tasks.csv")
    points = points.rename(columns={"model_size": "size", "flop": "flops"}).assign(family="opt")
    tables = [
        points.assign(task=task, acc=points[task] / 100, acc_n=float(docs), chance=CHANCE[task])
        for task, docs in OPT_DOCS.items()
    ]
    return pd.concat(tables, ignore_index=True).drop(columns=list(OPT_DOCS))


def nano(store: Path) -> pd.DataFrame:
    """The store of `make demo`: accuracy on seven tasks of three families."""
    return harness.open_store(store).points(metrics=["acc", "gold_bits_per_byte", "logp_gold"])


def benchmarks() -> pd.DataFrame:
    """77 models of 21 families on eight benchmarks (Ruan et al. 2024), a row per model and benchmark."""
    points = read("obsscaling", "base_llm_benchmarks.csv")
    points = points.assign(
        flops=points["flops_1e21"] * 1e21,
        params=points["model_size_b"] * 1e9,
        tokens=points["pretraining_tokens_t"] * 1e12,
    ).rename(columns={"model_family": "family", "model": "size"})
    columns = ["family", "size", "params", "tokens", "flops"]
    tables = [
        points[[*columns, task]].rename(columns={task: "acc"}).assign(task=task, chance=chance)
        for task, chance in BENCHMARKS.items()
    ]
    frame = pd.concat(tables, ignore_index=True)
    return frame[frame["acc"].notna()].reset_index(drop=True)
