"""The sceptic's tables: every law on ladders that others published, and on the nano ladder.

    python -m tests.reproductions.back_tests STORE [TABLE..]

writes results/back-tests, all tables or those named; STORE is that of `make demo`. The published points are read where
`tests.conftest.published` finds them, and never committed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from harness.cli.output import write_tables
from harness.fitting.fit_files import PointsFile
from harness.fitting.options import Options
from harness.reports.back_test import back_test
from harness.reports.back_test_files import back_test_file
from harness.reports.back_test_result import BackTest, joined
from harness.tables import Table
from harness_plugins.laws.families import FamilySkill
from tests.conftest import REPOSITORY
from tests.reproductions.targets import host, read

OPTIONS = {"bootstrap": 200, "starts": 16}
ABOUT = {
    "nano": "The nano ladder of `make demo`: accuracy on seven tasks of three families, all checkpoints.",
    "opt_loss": "OPT to 30B (Choshen et al. 2024): validation loss along training, from 1e10 tokens on.",
    "opt_tasks": "OPT to 175B (Choshen et al. 2024): accuracy on three tasks of BIG-bench, from 1e10 tokens on.",
    "pythia": "Pythia v1, with and without duplicates: accuracy on LAMBADA and PIQA, from step 512 on.",
    "olmo_bpb": "The OLMo ladder and its 7B (Bhagia et al. 2024): bits per byte of right answers at the end of runs.",
    "benchmarks": "75 models of 21 families (Ruan et al. 2024): four benchmarks, from two sizes on.",
    "olmo_acc": "The OLMo ladder and its 7B: accuracy at the end of runs; two-step laws go by bits per byte.",
}


def opt_loss() -> BackTest:
    points = read("hitchhiker", "opt_trajectories_to_30b.csv").query("tokens >= 1e10")
    points = points.assign(family="opt", flops=10 ** points["log10_flop"]).rename(columns={"model_size": "size"})
    return back_test(points, value="loss", registries=host(), **OPTIONS)


def opt_tasks() -> BackTest:
    points = read("hitchhiker", "opt_bigbench_3_tasks.csv").query("tokens >= 1e10")
    points = points.rename(columns={"model_size": "size", "flop": "flops"}).assign(family="opt")
    tasks = ("codelinedescription", "implicatures", "whatisthetao")
    tables = (points.assign(task=task, acc=points[task] / 100).drop(columns=list(tasks)) for task in tasks)
    return joined([back_test(table, value="acc", registries=host(), **OPTIONS) for table in tables])


def pythia() -> BackTest:
    points = read("pythia", "pythia_v1_zero_shot_lambada_piqa.csv").query("metric == 'acc' and step >= 512")
    points = points.assign(
        flops=6.0 * points["params"] * points["tokens"],
        family=np.where(points["deduped"], "pythia-deduped", "pythia"),
        acc=points["value"],
        acc_stderr=points["stderr"],
    ).drop(columns=["metric", "value", "stderr", "model"])
    return joined(
        [back_test(own, value="acc", registries=host(), **OPTIONS) for _, own in points.groupby("task", sort=True)]
    )


def olmo(value: str) -> BackTest:
    """The ends of 16 runs (bits per byte: mean of the last five evaluations), and the 7B."""
    runs = read("olmo_ladder", "ladder_runs_16.csv.gz").sort_values("step")
    found = []
    for task in ("hellaswag", "mmlu", "piqa"):
        columns = {f"bpb_{task}": "bpb", f"acc_{task}": "acc", "model_size": "size"}
        own = runs.rename(columns=columns)
        kept = ["size", "params", "tokens", "bpb", "acc"]
        ends = [
            own_run.tail(5)
            .mean(numeric_only=True)
            .to_frame()
            .T.assign(size=f"{size}-{multiple:g}x", tokens=own_run["tokens"].iloc[-1])
            for (size, multiple), own_run in own.groupby(["size", "chinchilla_multiple"])
        ]
        large = read("olmo_ladder", "target_7b.csv").rename(columns=columns)
        points = pd.concat([*(end[kept] for end in ends), large[kept]], ignore_index=True)
        points = points.assign(family="olmo", task=task, flops=6.0 * points["params"] * points["tokens"])
        points = points if value == "acc" else points.drop(columns="acc")
        found.append(back_test(points, value=value, via="bpb", registries=host(), **OPTIONS))
    return joined(found)


def benchmarks() -> BackTest:
    """Four benchmarks of Ruan et al. 2024, the next model of every family from the smaller ones, two and more."""
    points = read("obsscaling", "base_llm_benchmarks.csv").query("flops_1e21 == flops_1e21")
    points = points.assign(flops=points["flops_1e21"] * 1e21, params=points["model_size_b"] * 1e9)
    points = points.rename(columns={"model_family": "family", "model": "size"})
    found = []
    for task, chance in (("arc_c", 0.25), ("hellaswag", 0.25), ("winograd", 0.5), ("xwinograd", 0.5)):
        own = points.assign(task=task, acc=points[task]).query("acc == acc")[
            ["family", "size", "flops", "params", "task", "acc"]
        ]
        laws = [FamilySkill(floor=chance), "sigmoid", "line", "last"]
        found.append(back_test(own, laws, value="acc", first=2, registries=host(), **OPTIONS))
    return joined(found)


def tables(store: Path, names: set[str]) -> Iterator[tuple[str, BackTest]]:
    """Yield name and back-test of the tables that are asked for."""
    made = {
        "opt_loss": opt_loss,
        "opt_tasks": opt_tasks,
        "pythia": pythia,
        "olmo_bpb": lambda: olmo("bpb"),
        "olmo_acc": lambda: olmo("acc"),
        "benchmarks": benchmarks,
        "nano": lambda: back_test_file(PointsFile(store), options=Options(**OPTIONS), registries=host()),
    }
    yield from ((name, make()) for name, make in made.items() if name in names)


def main() -> None:
    """Write every table."""
    asked = set(sys.argv[2:])
    for name, found in tables(Path(sys.argv[1]), asked or set(ABOUT)):
        table = found.summary()
        named: Table = replace(table, name=name, title=table.title, notes=(ABOUT[name], *table.notes))
        write_tables([named], host(), REPOSITORY / "results" / "back-tests")
        print(name, flush=True)


if __name__ == "__main__":
    main()
