"""Every command that reads points takes a store, imported points, and a table, with --map, --where and --label."""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from harness.cli import main
from harness.host import PluginHost
from tests.conftest import published


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the published table of Pythia, a store that imported it, and a store that also has OPT."""
    folder = tmp_path_factory.mktemp("alike")
    pythia = published("laws", "pythia", "pythia_v1_zero_shot_lambada_piqa.csv")
    opt = published("laws", "hitchhiker", "opt_bigbench_3_tasks.csv")
    last = pd.read_csv(pythia).query("task == 'piqa' and metric == 'acc' and step >= 110000")
    last = last[~last["model"].str.contains("bf16")]  # one size
    last.rename(columns={"n_tokens": "D", "model": "name"}).to_csv(folder / "piqa.csv", index=False)
    rename = ["--map", "D=tokens", "--label", "name"]
    assert run("import", folder / "piqa.csv", *rename, "-o", folder / "store").exit_code == 0
    assert run("import", folder / "piqa.csv", *rename, "-o", folder / "mixed").exit_code == 0
    result = run("import", opt, "--family", "opt", "--where", "step >= 100000", "-o", folder / "mixed")
    assert result.exit_code == 0, result.output
    return {"table": folder / "piqa.csv", "store": folder / "store", "mixed": folder / "mixed"}


QUICK = ["--bootstrap", "20"]
COMMANDS = {
    "compare": ["--law", "line", "--reach", "line", "--score", "0.7"],
    "decide": ["--task", "piqa", *QUICK],
    "trends": ["--task", "piqa", *QUICK],
    "rank": ["--at", "flops=1e21", "--task", "piqa", "--law", "line", *QUICK],
    "versus": ["pythia-1.4b", "pythia-12b", "--task", "piqa"],
    "predictability": ["--task", "piqa", "--law", "line", *QUICK],
    "forecast": ["--task", "piqa", "--at", "largest"],
    "capabilities": ["--benchmarks", "piqa"],
    "fit": ["--law", "line", "--hold-out", "largest", "--task", "piqa", *QUICK],
    "plot": ["--task", "piqa", "--law", "line"],
    "report": ["--law", "line"],
}
SLOW = {"report", "compare", "decide", "trends"}
NAMES = ["--map", "D=tokens", "--label", "name", "--map", "n_params=params"]
CASES = [
    pytest.param(command, source, marks=[pytest.mark.soak] if command in SLOW or source != "table" else [])
    for command in COMMANDS
    for source in ("table", "store", "mixed")
]


@pytest.mark.parametrize(("command", "source"), CASES)
def test_a_command_takes_a_table_imported_points_and_a_mix(
    sources: dict[str, Path], tmp_path: Path, command: str, source: str
):
    """The names of the table are mapped on the command line; a store has been told when it was imported."""
    also = {
        ("fit", "table"): " and deduped",
        ("capabilities", "mixed"): " and family != 'opt'",
    }  # of a raw table; of models with piqa
    both = " or family == 'opt'" if source == "mixed" else ""
    asked = [*COMMANDS[command], "--where", "params > 1e8" + also.get((command, source), both)]
    if source == "table":
        asked += [*NAMES, *{"fit": ["--value", "acc"], "capabilities": WIDE}.get(command, [])]
    if command in {"plot", "report"}:
        asked += ["-o", tmp_path / ("f.svg" if command == "plot" else "r.html")]
    result = run(command, sources[source], *asked)
    assert result.exit_code == 0, result.output
    shown = result.output
    if command in {"plot", "report"}:
        shown = next(tmp_path.iterdir()).read_text(encoding="utf-8")
    assert "piqa" in shown
    assert "pythia" in shown or command in {"capabilities", "predictability"}  # which may not name families


WIDE = ["--map", "value=piqa", "--map", "6 * params * tokens=flops", "--map", "deduped=family"]


@pytest.mark.parametrize("command", sorted(set(COMMANDS) | {"import"}))
def test_every_command_that_reads_points_has_the_options_of_points(command: str, host: PluginHost):
    group = click.Group(commands=dict(main.commands))
    host.add_commands(group)
    options = {name for parameter in group.commands[command].params for name in parameter.opts}
    assert {"--map", "--where", "--label"} <= options


@pytest.fixture
def ladder(tmp_path: Path) -> pd.DataFrame:
    """Return two families of four sizes with two checkpoints each."""
    rows = [
        {"family": family, "size": f"{n:g}M", "params": n * 1e6, "tokens": 10e6 * n * step, "step": step,
         "task": "t", "metric": "acc", "value": 0.3 + 0.1 * i + 0.02 * step + 0.01 * (family == "b"), "stderr": 0.01}
        for family in "ab" for i, n in enumerate((10, 30, 100, 300)) for step in (1, 2)
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(flops=lambda table: 6 * table["params"] * table["tokens"])


def tables_of(points: pd.DataFrame, folder: Path) -> dict[str, list[dict[str, object]]]:
    points.to_csv(folder / "points.csv", index=False)
    result = run("compare", folder / "points.csv", "--format", "json")
    assert result.exit_code == 0, result.output
    return {name: table["rows"] for name, table in json.loads(result.stdout).items()}


def test_the_largest_size_without_params_is_that_of_the_most_flops(ladder: pd.DataFrame, tmp_path: Path):
    """Without params, all sizes of a family were averaged as if they were seeds, and called the largest."""
    for known in (ladder, ladder.drop(columns="params"), ladder.drop(columns="step")):
        output = tables_of(known.sample(frac=1, random_state=0), tmp_path)
        assert [output["families"][0][family] for family in "ab"] == pytest.approx([0.64, 0.65])
        assert [row["t"] for row in output["ladder"]][:4] == pytest.approx([0.34, 0.44, 0.54, 0.64])
    points = ladder[ladder["step"] == 2].drop(columns=["params", "tokens", "flops"])
    points.to_csv(tmp_path / "points.csv", index=False)
    output = run("compare", tmp_path / "points.csv")
    assert output.exit_code == 1
    assert "the largest size of a is unknown: 100M, 10M, 300M, 30M have neither params nor FLOPs" in output.stderr


def test_imported_accuracies_are_forecast_beside_their_measurements(ladder: pd.DataFrame, tmp_path: Path):
    """`compare` said of every imported accuracy that it is not one, and forecast none."""
    predictions = tables_of(ladder, tmp_path)["predictions"]
    assert [(row["target"], row["measured"]) for row in predictions] == [("a:300M@2", 0.64), ("b:300M@2", 0.65)]
    assert not tables_of(ladder.assign(metric="err", value=1 - ladder["value"]), tmp_path)["predictions"]


def test_families_are_ranked_by_a_column_loss(ladder: pd.DataFrame, tmp_path: Path):
    """A column loss is also the training loss of a checkpoint, so that `rank --metric loss` refused the table."""
    points = ladder.drop(columns=["task", "metric", "value", "stderr"]).assign(loss=3 - ladder["value"])
    points.to_csv(tmp_path / "points.csv", index=False)
    asked = ["--metric", "loss", "--at", "flops=1e17", "--law", "line", *QUICK, "--format", "json"]
    result = run("rank", tmp_path / "points.csv", *asked)
    assert result.exit_code == 0, result.output
    scores = {row["family"]: row["score"] for row in json.loads(result.stdout)["scores"]["rows"]}
    line = {
        family: np.polyfit(np.log10(of_family["flops"]), of_family["loss"], 1)
        for family, of_family in points.groupby("family")
    }
    assert scores == {family: pytest.approx(np.polyval(of_family, 17), abs=1e-4) for family, of_family in line.items()}
    result = run("rank", tmp_path / "points.csv", *asked, "--where", "family == 'a'")
    assert "The only family is a." in result.stderr
