"""Identity of a cell: digests of weights, prompts and settings. Paths, names and revision labels are not part of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from harness.files import digest_of
from harness.types.json import JsonObject

OPTIONAL = {"chat_template", "system_prompt", "adapter", "sampling"}  # settings that are empty if unused


@dataclass(frozen=True)
class Settings:
    """Settings that change numbers besides weights and prompts; part of the identity of a cell.

    `chat_template` is the digest of a template and its options, `system_prompt` that of a text, `adapter` that of the
    files of an adapter. Each is empty if unused.
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
    sampling: JsonObject = field(default_factory=dict)  # of generated text: sampler, its options, temperature, checker

    @property
    def digest(self) -> str:
        """Return the digest of all settings except unused optional ones."""
        return digest_of({name: value for name, value in asdict(self).items() if name not in OPTIONAL or value})


@dataclass(frozen=True, order=True)
class CellId:
    """Digests of checkpoint, prompts and settings; together they are the name of a file in the store."""

    checkpoint: str
    fingerprint: str
    settings: str

    @property
    def name(self) -> str:
        """Return the file name without suffix."""
        return f"{self.checkpoint}-{self.fingerprint}-{self.settings}"

    @classmethod
    def of(cls, name: str) -> CellId:
        """Return the identity for a file name."""
        return cls(*name.split("-"))
