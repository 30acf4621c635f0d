"""What a cell is: the digest of what was asked of which weights. Never a path, a name or a revision label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from harness.files import digest_of

OPTIONAL = {"chat_template", "system_prompt", "adapter", "sampling"}  # of settings: empty where they are not used


@dataclass(frozen=True)
class Settings:
    """What changes the numbers beside weights and prompts; part of the identity of a cell.

    `chat_template` is the digest of a template and of how it is applied, `system_prompt` that of a text, `adapter` that
    of the files of an adapter; each is empty where it is not used.
    """

    engine: str
    dtype: str
    quantisation: str
    bos: str
    max_length: int
    truncation: str
    chat_template: str = ""
    system_prompt: str = ""
    adapter: str = ""
    sampling: Mapping[str, Any] = field(default_factory=dict)  # of texts: sampler, its options, temperature, checker

    @property
    def digest(self) -> str:
        """Return the digest of all of them; those that are not used (OPTIONAL) do not change it."""
        return digest_of({name: value for name, value in asdict(self).items() if name not in OPTIONAL or value})


@dataclass(frozen=True, order=True)
class CellId:
    """Digests of checkpoint, prompts and settings; together the name of a file in the store."""

    checkpoint: str
    fingerprint: str
    settings: str

    @property
    def name(self) -> str:
        """Return the file name without suffix."""
        return f"{self.checkpoint}-{self.fingerprint}-{self.settings}"

    @classmethod
    def of(cls, name: str) -> CellId:
        """Return the identity that a file name stands for."""
        return cls(*name.split("-"))
