"""Every error that a user can meet.

    HarnessError
    ├── UsageError        the command names something that does not exist        (exit status 2)
    ├── PluginError       a plugin cannot be loaded, or breaks a contract
    ├── FamilyError       a family file or a checkpoint folder is wrong
    ├── TaskError         a task file or one of its documents is wrong
    ├── TokenError        a prompt cannot be turned into tokens as asked
    ├── EngineError       an engine cannot open or score a checkpoint
    │   └── OutOfMemory   not even one sequence fits
    ├── StoreError        the store cannot answer
    │   └── DamagedFile   a file of the store is damaged
    ├── MetricError       a metric cannot be computed from these scores
    ├── LawError          a law cannot be fitted to these points
    └── SuiteError        some cells failed; the others are stored

A message says what was found, what was expected and what to do.
"""

from __future__ import annotations

from collections.abc import Iterable


class HarnessError(Exception):
    """Any error of ours; the command line prints it as one line."""


class UsageError(HarnessError, LookupError):
    """The user named something that does not exist."""


class PluginError(HarnessError):
    """A plugin cannot be loaded, or breaks a contract; the message names the plugin."""


class FamilyError(HarnessError, ValueError):
    """A family file or a checkpoint folder is wrong."""


class TaskError(HarnessError, ValueError):
    """A task file or one of its documents is wrong."""


class TokenError(HarnessError, ValueError):
    """A prompt cannot be turned into tokens as asked."""


class EngineError(HarnessError, RuntimeError):
    """An engine cannot open or score a checkpoint."""


class OutOfMemory(EngineError, MemoryError):
    """Not even one sequence fits into memory."""


class StoreError(HarnessError):
    """The store cannot answer."""


class DamagedFile(StoreError):
    """A file of the store is damaged, for the reason `why`.

    `found` is the first part of the message: which file, why, and where it was moved. The last part is the `remedy`.
    """

    def __init__(self, path: object, why: str, moved: str = "", remedy: str = "run harness eval again") -> None:
        super().__init__(path, why, moved, remedy)
        self.path, self.why, self.remedy = path, why, remedy
        self.found = f"{path} is damaged ({why}){moved}"

    def __str__(self) -> str:
        return f"{self.found}; {self.remedy}"


class MetricError(HarnessError, ValueError):
    """A metric cannot be computed from these scores."""


class LawError(HarnessError, ValueError):
    """A law cannot be fitted to these points."""


class SuiteError(HarnessError):
    """Some cells failed; the others are stored."""


def choose(names: Iterable[object]) -> str:
    """Return a readable list of names, for the last part of a message."""
    return ", ".join(sorted(str(name) for name in names)) or "none"
