"""Published fits, made again.

python -m tests.reproductions > results/reproductions/laws.md
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.tables import Table
from tests.reproductions import losses, observational, sampling, synthetic, tasks, trends
from tests.reproductions.targets import Target, host

TARGETS: list[Target] = [
    *losses.TARGETS,
    *tasks.TARGETS,
    *sampling.TARGETS,
    *synthetic.TARGETS,
    *observational.TARGETS,
    *trends.TARGETS,
]


def rows() -> Iterator[tuple[str, str, str, str, str, str, str]]:
    """Yield target, source, procedure, number, expected, tolerance and obtained; the first three once a target."""
    for target in TARGETS:
        about = (target.name, target.source, target.procedure)
        for what, (value, allowed) in target.expected.items():
            yield (*about, what, f"{value:.6g}", f"{allowed:.2g}", f"{target.obtained[what]:.5g}")
            about = ("", "", "")


def table() -> str:
    """Return the table of all targets as Markdown."""
    columns = ("target", "source", "procedure", "number", "expected", "tolerance", "obtained")
    notes = (
        "Expected is what was published, or what another program finds in the published data.",
        "Made by `python -m tests.reproductions`; a test holds every number to its tolerance.",
    )
    found: str = host().reporters["md"]([Table("laws", "Published fits, made again", columns, tuple(rows()), notes)])
    return found
