"""What a cell is: the digest of what was asked of which weights. Never a path, a name or a revision label."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import FamilyError, StoreError
from harness.files import write_whole
from harness.weights import read_config, tensor_headers

TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "tokenizer.model", "spiece.model",
)  # fmt: skip
VOLATILE = {"transformers_version", "_name_or_path"}  # of config.json: say nothing of what the model computes


@dataclass(frozen=True)
class Settings:
    """What changes the numbers beside weights and prompts; part of the identity of a cell."""

    engine: str
    dtype: str
    quantisation: str
    bos: str
    max_length: int
    truncation: str
    sampling: Mapping[str, Any] = field(default_factory=dict)  # of texts: sampler, its options, temperature, checker

    @property
    def digest(self) -> str:
        """Return the digest of all of them; where nothing is sampled, nothing is said of it."""
        return digest_of({name: value for name, value in asdict(self).items() if name != "sampling" or value})


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


def digest_of(value: Any) -> str:
    """Return 64 bits, in hexadecimal, of the SHA-256 of a JSON value: enough to tell a million cells apart."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def config_digest(folder: Path) -> str:
    """Return the digest of config.json without what says nothing of the model."""
    return digest_of({k: v for k, v in read_config(folder).items() if k not in VOLATILE})


def tokenizer_digest(folder: Path) -> str:
    """Return the digest of the tokenizer's files."""
    files = [folder / name for name in TOKENIZER if (folder / name).is_file()]
    return digest_of({file.name: _sha256(file) for file in files})


def tensors_digest(folder: Path) -> str:
    """Return the digest of names, dtypes and shapes of all tensors in safetensors, equal between steps of a run."""
    headers = (tensor_headers(file) for file in folder.glob("*.safetensors"))
    return digest_of(sorted(item for header in headers for item in header.items()))


def weight_files(folder: Path) -> list[Path]:
    """Return the files that hold weights: safetensors, or PyTorch's where there are none."""
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        raise FamilyError(f"{folder} holds no weights; expected *.safetensors (or pytorch_model*.bin)")
    return files


def checkpoint_digest(folder: Path, *, rehash: bool = False) -> str:
    """Return the digest of weights, config.json and tokenizer.

    Digests of weight files are remembered by path, size and time of change; `rehash` reads them again.
    """
    cache = DigestCache()
    weights = {file.name: cache.digest(file, rehash=rehash) for file in weight_files(folder)}
    cache.save()
    return digest_of({"weights": weights, "config": config_digest(folder), "tokenizer": tokenizer_digest(folder)})


class DigestCache:
    """SHA-256 of large files, remembered between runs in the user's cache folder."""

    def __init__(self) -> None:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        self.path = Path(base) / "harness" / "digests.json"
        self.known: dict[str, Any] = {}
        self.changed = False
        try:
            self.known = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            pass  # a cache: absent or damaged, it is made anew

    def digest(self, file: Path, *, rehash: bool = False) -> str:
        """Return the digest of a file; that of a hub's blob is its name."""
        blob = file.resolve().name
        if file.is_symlink() and re.fullmatch(r"[0-9a-f]{64}", blob) and not rehash:
            return blob
        state = file.stat()
        key, stamp = str(file.resolve()), [state.st_size, state.st_mtime_ns]
        if rehash or self.known.get(key, {}).get("stamp") != stamp:
            self.known[key] = {"stamp": stamp, "sha256": _sha256(file)}
            self.changed = True
        return str(self.known[key]["sha256"])

    def save(self) -> None:
        """Write what was learnt; a folder that cannot be written to costs time, not correctness."""
        if not self.changed:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, json.dumps(self.known).encode())
        except (OSError, StoreError):
            pass


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
