"""The command `harness laws`: formula, required points and source of every law."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import harness
from harness import Table

if TYPE_CHECKING:
    import click


def law_table(host: Any) -> Table:
    """Return the table of all laws; unverified formulas are marked."""
    rows = tuple(_row(host.laws[name]) for name in host.laws)
    notes = ("`harness ls laws` lists the parameters. harness/README.md describes objectives and intervals.",)
    return Table("laws", "Laws", ("law", "formula", "features", "takes", "source"), rows, notes)


def _row(law: Any) -> tuple[str, str, str, str, str]:
    steps = getattr(law, "steps", (law,))
    marks = sorted({mark for step in steps if (mark := getattr(step, "experimental", ""))})
    about = (type(law).__doc__ or "").strip().split("\n")[0]
    if len(steps) > 1:
        about = f"{' -> '.join(step.name for step in steps)}, via {law.via}"
    takes = getattr(law, "takes", "") or ", ".join(getattr(law, "needs", ()))
    source = getattr(law, "source", "") + "".join(f" (experimental: {mark})" for mark in marks)
    return law.name, about, ", ".join(steps[0].features), takes, source


@harness.hookimpl
def register_commands(cli: click.Group) -> None:
    """Add `harness laws`."""
    import click

    @cli.command("laws")
    @harness.table_options
    @click.pass_obj
    def laws(host: Any, /, **output: Any) -> None:
        """List the available laws with formula, features, required points and source."""
        harness.print_tables([law_table(host)], host, every_row=True, **output)
