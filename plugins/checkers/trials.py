"""What is tried in a sandbox: a program's tests, what it may use, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass

from harness import Outcome


@dataclass(frozen=True)
class Limits:
    """What a program may use: CPU and wall clock seconds, bytes of memory, threads (with those of its tests), bytes of
    a file and of its folder, which is in memory.

    A program is one process, as others are refused, so that these are limits of all that it starts. Its tests, in a
    process of their own, have the same bytes of memory again.
    """

    cpu: int = 5
    wall: int = 30
    memory: int = 1 << 30
    threads: int = 8
    file_size: int = 16 << 20
    folder: int = 64 << 20


LIMITS = Limits()


@dataclass(frozen=True)
class CodeTests:
    """Tests of a program: `source` runs after `before`, which is the task's own and to be trusted.

    Names that neither defines are the program's; of what they or Python define it may replace `entry_points` only.
    """

    source: str
    entry_points: tuple[str, ...] = ()
    before: str = ""


@dataclass(frozen=True)
class Verdict:
    """An outcome and the CPU seconds that the program took, where it was not ended by the wall clock."""

    outcome: Outcome
    cpu: float | None
