"""What the benchmark of forecasts was to reach, beside what its sections say came out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from harness.tables import Table

Row = dict[str, str]


def rows(path: Path) -> list[Row]:
    """Return the rows of the first table of a section."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(cells[0], cells_of_row, strict=True)) for cells_of_row in cells[2:]]


def pick(rows_read: list[Row], target: str, method: str) -> Row:
    """Return the row of a target whose method begins as said."""
    return next(row for row in rows_read if row["target"] == target and row["method"].startswith(method))


def change(rows_read: list[Row], targets: list[str], law: str) -> str:
    """Return mean interval scores of the forecast and of a law, and how far the first is below."""
    mine, theirs = (
        sum(float(pick(rows_read, target, method)["interval score"]) for target in targets) / len(targets)
        for method in ("forecast", law)
    )
    return f"{mine:.3f}, {law} {theirs:.3f} ({mine / theirs - 1:+.0%})"


def simulated(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield the targets of simulations."""
    text, rows_read = path.read_text(encoding="utf-8"), rows(path)
    settings = [row for row in rows_read if row["method"] == "forecast" and not row["target"].startswith("all")]
    bands = [row for row in rows_read if row["target"].startswith("all")]
    shares = [row["covered"].split(": ")[1] for row in settings]
    ratio = re.search(r"mean ratio of interval scores ([\d.]+), largest ([\d.]+)", text)
    oracle = [row["covered"].split(": ")[1] for row in rows_read if row["method"] == "oracle"]
    wanted = "coverage 87-93 %"
    yield f"simulations, {settings[0]['n']} ladders a setting (400 wanted)", wanted, ", ".join(shares)
    labels = [f"{row['target'].removeprefix('all, true accuracy ')}: {row['covered']}" for row in bands]
    yield "simulations, by true accuracy", "85-95 % above .45, at least 80 % below", "; ".join(labels)
    if ratio:
        said = f"mean {ratio[1]}, largest {ratio[2]}; the oracle covers {', '.join(oracle)}"
        yield "simulations, interval score over the oracle's", "mean <= 1.2, largest <= 1.35", said


def reached(folder: Path) -> Table:
    """Return the table of targets; sections that are missing are left out."""
    lines: list[tuple[str, str, str]] = []
    if (folder / "simulations.md").is_file():
        lines += simulated(folder / "simulations.md")
    shapes = rows(folder / "shapes.md")
    said = "; ".join(f"{row['ladders']} {row['abstains']} of {row['n']}" for row in shapes)
    lines.append(("abstention by the ladder", "monotone <= 5 %, not monotone >= 80 %", said))
    olmo, pythia, nano = (rows(folder / f"{name}.md") for name in ("olmo", "pythia", "nano"))
    lines.append(("OLMo 7B, interval score", "25 % below the best law of 0.1.0", change(olmo, ["7B"], "two_step of")))
    one = ["12B from 6.9B", "6.9B from 2.8B"]
    wanted = "25 % below sigmoid of 0.1.0"
    lines.append(("Pythia one rung ahead, interval score", wanted, change(pythia, one, "sigmoid")))
    lines.append(("Pythia 12B from 2.8B, interval score", wanted, change(pythia, ["12B from 2.8B"], "sigmoid")))
    last, plain = (pick(nano, "last rung from four", name) for name in ("forecast", "forecast, "))
    lines.append(("nano, last rung: abstains", "at most 20 %", f"{int(last['n']) - int(plain['n'])} of {last['n']}"))
    width = (
        f"covered {plain['covered']}, median width {plain['median width']}, interval score {plain['interval score']}"
    )
    lines.append(("nano, last rung, not abstained", "covers >= 85 %, width <= .20, score <= .20", width))
    said = f"covered {last['covered']}, median width {last['median width']}, interval score {last['interval score']}"
    lines.append(("nano, last rung, all", "(shown)", said))
    three = [pick(nano, "fourth rung from three", name) for name in ("forecast", "forecast, ")]
    said = f"{three[0]['covered']}; not abstained {three[1]['covered']}"
    lines.append(("nano, from three rungs", "covers >= 80 %", said))
    opt = [
        pick(rows(folder / "opt.md"), name, "forecast") for name in ("175B from 30B", "30B from 13B", "13B from 6.7B")
    ]
    lines.append(("OPT", "covers >= 85 %", "; ".join(f"{row['target']}: {row['covered']}" for row in opt)))
    tables = rows(folder / "benchmarks.md")
    covered = pick(tables, "largest", "forecast")["covered"]
    lines.append(("observational table, coverage", "85-95 %", covered))
    said = change(tables, ["largest"], "family intercept")
    lines.append(("observational table, interval score", "25 % below family intercept + slope", said))
    return Table(
        "targets", "What forecasts were to reach, and what came out", ("where", "wanted", "came out"), tuple(lines)
    )
