"""Options of a fit: objective, resamples, level of intervals, starting points and seed."""

from __future__ import annotations

from dataclasses import dataclass

from harness.errors import UsageError

PUBLISHED = "published"  # use the starting points of the law's publication


@dataclass(frozen=True)
class Options:
    """How a law is fitted. The fit records every option."""

    objective: str | None = None
    resample: str | None = None
    bootstrap: int = 1000
    level: float = 0.9
    starts: int | str = 32
    seed: int = 0
    step1_where: str | None = None
    step2_where: str | None = None
    step1_objective: str | None = None

    @property
    def of_steps(self) -> bool:
        """Return whether options are set that only a law of two steps has."""
        return any((self.step1_where, self.step2_where, self.step1_objective))

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise UsageError(f"level={self.level}: expected a share between 0 and 1, such as 0.9")
        if self.bootstrap < 2:
            raise UsageError(f"bootstrap={self.bootstrap}: expected 2 resamples or more")
        if self.starts != PUBLISHED and not (str(self.starts).isdigit() and int(self.starts) >= 1):
            raise UsageError(f"starts={self.starts}: expected 1 or more, or {PUBLISHED!r}")
