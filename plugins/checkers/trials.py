"""Values of one run in a sandbox: the tests of a program, its limits and its verdict."""

from __future__ import annotations

from dataclasses import dataclass

from harness import Outcome


@dataclass(frozen=True)
class Limits:
    """Limits of a program: CPU and wall-clock seconds, bytes of memory, threads (including those of its tests), bytes
    of a file, and bytes of its folder, which is in memory.

    A program cannot start other processes, so these limits cover everything it does. Its tests run in their own
    process, with the same memory limit.
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
    """Tests of a program. The task provides `before`, which is trusted and runs before `source`.

    Names that neither defines come from the program. If the tests or Python define a name too, the program's value is
    used only for `entry_points`.
    """

    source: str
    entry_points: tuple[str, ...] = ()
    before: str = ""


@dataclass(frozen=True)
class Verdict:
    """An outcome and the program's CPU seconds; `cpu` is None if the wall-clock limit ended the program."""

    outcome: Outcome
    cpu: float | None
