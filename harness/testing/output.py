"""The contracts of table formats, figures of the report and commands, and examples to test them on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from harness.charts import LEVELS, Panel, ReportData, specification
from harness.tables import Measured, Range, Table
from harness.testing.findings import Findings, collected, expect_call
from harness.types import Scalar

if TYPE_CHECKING:
    import pandas as pd

TASKS, FAMILIES, SIZES = ("addition", "agreement"), ("aster", "birch"), ("s", "m", "l")
FIELD = re.compile(r'"field": "(\w+)"')
MADE = re.compile(r'"as": "(\w+)"')  # a column that the chart computes


def example_table() -> Table:
    """Return a table with text, numbers, errors, intervals, missing cells and characters that formats must escape."""
    rows = (
        ("a | b", 3, Measured(0.5, 0.02), Range(0.7, 0.6, 0.8)),
        ("50 % & more_or_less", None, Measured(0.25, 0.1), Range(0.7, float("nan"), float("nan"))),
    )
    return Table("example", "Example", ("task", "n", "score", "predicted"), rows, ("A note.",))


def check_reporter(render: Callable[[Sequence[Table]], str]) -> None:
    """Check a table format: it returns text for one table, two tables and an empty table, the same at each call.

    Raises an AssertionError that lists all failures.
    """
    table = example_table()
    with collected(f"reporter {getattr(render, '__name__', render)!r}") as findings:
        findings.vital(expect_call, render, [table])
        for tables in ([table], [table, replace(table, name="second")], [replace(table, rows=())]):
            findings.run(_check_text, render, tables)


def _check_text(render: Callable[[Sequence[Table]], str], tables: Sequence[Table]) -> None:
    text = render(tables)
    assert isinstance(text, str), f"it returned {text!r}; expected text"
    assert render(tables) == text, "it returns a different text at the second call"


def example_report() -> ReportData:
    """Return artificial report data: two tasks, two families, three sizes, a fitted curve and a held-out point."""
    import pandas as pd

    points = pd.DataFrame([_point(t, f, k) for t in TASKS for f in FAMILIES for k in range(len(SIZES))])
    curves = pd.concat([_curve(points, task, family) for task in TASKS for family in FAMILIES], ignore_index=True)
    held = points[points["size"] == SIZES[-1]]
    columns = ["task", "family", "metric", "label", "flops", "stderr"]
    held_out = held[columns].assign(
        law="sigmoid", measured=held["value"], predicted=0.6, low=0.5, high=0.8, inside=True
    )
    scales = ["task", "family", "label", "flops", "params", "tokens", "loss"]
    choices = pd.concat(
        [points[scales].assign(choice=c, value=-1.0 - k) for k, c in enumerate(("gold", "wrong choice 1"))]
    )
    runs = points[points["task"] == TASKS[0]][["family", "size", *scales[2:], "engine", "dtype", "truncated", "ties"]]
    return ReportData("Example", points, curves, held_out, choices, runs.reset_index(drop=True))


def _point(task: str, family: str, k: int) -> dict[str, Scalar]:
    params = 1e7 * 10**k
    value = 0.3 + 0.2 * k
    return {
        "family": family, "size": SIZES[k], "step": 100, "seed": 0, "label": f"{family}:{SIZES[k]}@100",
        "params": params, "params_non_embedding": 0.9 * params, "tokens": 20 * params, "flops": 120 * params**2,
        "flops_convention": "6ND", "loss": 3.0 - 0.3 * k, "annealed": None, "task": task, "metric": "acc",
        "value": value, "stderr": 0.02, "low": value - 0.04, "high": value + 0.04, "n": 400, "ties": 0, "truncated": 0,
        "chance": 0.25, "engine": "fake", "dtype": "float32", "settings": "s", "fingerprint": task, "checkpoint": "c",
        "shown": True,
    }  # fmt: skip


def _curve(points: pd.DataFrame, task: str, family: str) -> pd.DataFrame:
    family_points = points[(points["task"] == task) & (points["family"] == family)]
    bounds = {f"low_{level:.0%}".rstrip("%"): family_points["value"] - level / 10 for level in LEVELS}
    bounds |= {f"high_{level:.0%}".rstrip("%"): family_points["value"] + level / 10 for level in LEVELS}
    kept = ["task", "metric", "family", "flops", "params", "tokens", "loss", "value"]
    return family_points[kept].assign(law="sigmoid", **bounds)


def check_panel(make: Callable[[ReportData], object]) -> None:
    """Check a figure of the report: it draws only existing columns, has a description, and accepts data without fits.

    Raises an AssertionError that lists all failures.
    """
    import pandas as pd

    data = example_report()
    without = replace(data, curves=pd.DataFrame(), held_out=pd.DataFrame(), choices=pd.DataFrame())
    with collected(f"panel {getattr(make, '__name__', make)!r}") as findings:
        findings.vital(expect_call, make, data)
        findings.run(_check_panel, make, data, findings)
        findings.run(_check_panel, make, without, findings)


def _check_panel(make: Callable[[ReportData], object], data: ReportData, findings: Findings) -> None:
    before = data.points.copy()
    panel = make(data)
    findings.expect(data.points.equals(before), "it modifies its input points")
    if panel is None:
        return
    assert isinstance(panel, Panel), f"it returned {panel!r}; expected a harness.Panel or None"
    findings.expect(bool(panel.title.strip()), "its title is empty")
    findings.expect(bool(panel.about.strip()), "about is empty; it is the text alternative of the figure")
    chart = json.dumps(specification(panel.chart))
    fields, made = set(FIELD.findall(chart)), {name for name in ("x",) if name in panel.controls}
    made |= set(MADE.findall(chart))
    absent = fields - set(panel.rows.columns) - made
    findings.expect(not absent, f"the chart draws {', '.join(sorted(absent))}, but the rows have no such column")


def check_command(command: click.Command) -> None:
    """Check a command: it has a docstring, its options have help texts, and `--help` works.

    Raises an AssertionError that lists all failures.
    """
    from click.testing import CliRunner

    with collected(f"command {command.name!r}") as findings:
        findings.expect(bool((command.help or "").strip()), "it has no docstring, which is its help text")
        for option in (p for p in command.params if isinstance(p, click.Option)):
            findings.expect(bool(option.help), f"the option {option.opts[0]} has no help text")
        result = CliRunner().invoke(command, ["--help"])
        findings.expect(result.exit_code == 0, f"--help ends with status {result.exit_code}: {result.output}")
