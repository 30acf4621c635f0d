"""All errors of the harness.

    HarnessError
    ├── UsageError        an argument is invalid or names something unknown       (exit status 2)
    ├── PluginError       a plugin cannot be loaded, or breaks a contract
    ├── FamilyError       a family file or a checkpoint folder is invalid
    ├── TaskError         a task file or one of its documents is invalid
    ├── TokenError        a prompt cannot be tokenised as requested
    ├── EngineError       an engine cannot open or score a checkpoint
    │   └── OutOfMemory   one sequence does not fit into memory
    ├── StoreError        the store cannot be read or written
    │   └── DamagedFile   a file of the store is damaged
    ├── MetricError       a metric cannot be computed from these scores
    ├── LawError          a law cannot be fitted to these points
    └── SuiteError        some cells failed; the others are stored

A message says what was found, what was expected and what to do.
"""

from __future__ import annotations

from collections.abc import Iterable


class HarnessError(Exception):
    """Base class of all errors of the harness; the command line prints them as one line."""


class UsageError(HarnessError, LookupError):
    """An argument is invalid or names something unknown."""


class PluginError(HarnessError):
    """A plugin cannot be loaded, or breaks a contract; the message names the plugin."""


class FamilyError(HarnessError, ValueError):
    """A family file or a checkpoint folder is invalid."""


class TaskError(HarnessError, ValueError):
    """A task file or one of its documents is invalid."""


class TokenError(HarnessError, ValueError):
    """A prompt cannot be tokenised as requested."""


class EngineError(HarnessError, RuntimeError):
    """An engine cannot open or score a checkpoint."""


class OutOfMemory(EngineError, MemoryError):
    """One sequence does not fit into memory."""


class StoreError(HarnessError):
    """The store cannot be read or written."""


class DamagedFile(StoreError):
    """A file of the store is damaged, for the reason `why`.

    `problem` is the first part of the message: which file, why, and where it was moved. The last part is the `remedy`.
    """

    def __init__(self, path: object, why: str, moved: str = "", remedy: str = "run harness eval again") -> None:
        super().__init__(path, why, moved, remedy)
        self.path, self.why, self.remedy = path, why, remedy
        self.problem = f"{path} is damaged ({why}){moved}"

    def __str__(self) -> str:
        return f"{self.problem}; {self.remedy}"


class MetricError(HarnessError, ValueError):
    """A metric cannot be computed from these scores."""


class LawError(HarnessError, ValueError):
    """A law cannot be fitted to these points."""


class SuiteError(HarnessError):
    """Some cells failed; the others are stored."""


def choose(names: Iterable[object]) -> str:
    """Return a readable list of names, for the last part of a message."""
    return ", ".join(sorted(str(name) for name in names)) or "none"


LISTED = 12  # names that a message lists in full
NEAR = 0.6  # similarity (difflib) from which a name is suggested


def suggest(name: object, names: Iterable[object], listed_by: str = "") -> str:
    """Return the last part of a message about an unknown name: the nearest names, or those that exist.

    `listed_by` is the command that lists all names; without it, a long list is cut after LISTED names.

    >>> suggest("chinchila", ["chinchilla", "power"])
    "did you mean 'chinchilla'?"
    >>> suggest("x", ["acc", "brier"])
    'there are: acc, brier'
    """
    known = sorted({str(known) for known in names})
    near = nearest(str(name), known)
    every = f"`{listed_by}` lists all {len(known)}" if listed_by else ""
    if near:
        asked = f"did you mean {' or '.join(map(repr, near))}?"
        return f"{asked} ({every})" if every and len(known) > LISTED else asked
    if len(known) <= LISTED:
        return f"there are: {choose(known)}"
    return every or f"there are: {', '.join(known[:LISTED])} and {len(known) - LISTED} more"


def nearest(name: str, names: Iterable[str], count: int = 3) -> list[str]:
    """Return the names most like a mistyped one, at most `count`; case does not matter."""
    from difflib import SequenceMatcher

    likeness = {known: SequenceMatcher(None, name.lower(), known.lower()).ratio() for known in names}
    best = max(likeness.values(), default=0.0)
    if best >= NEAR:
        near = (known for known, ratio in likeness.items() if ratio > best - 0.05)
        return sorted(near, key=lambda known: (-likeness[known], known))[:count]
    containing = [known for known in likeness if len(name) > 2 and name.lower() in known.lower()]
    return containing if len(containing) <= count else []
