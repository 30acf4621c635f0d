"""What is part of a checkpoint's digest: weights, config.json, tokenizer and remote code."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from harness.checkpoints.adapters import adapter_digest, adapter_files
from harness.checkpoints.weights import read_config, tensor_headers
from harness.errors import FamilyError, StoreError
from harness.files import digest_of, write_whole

FileStates = tuple[tuple[str, tuple[int, ...]], ...]  # names, each with what changes when a file does

TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "tokenizer.model", "spiece.model", "vocab.txt", "sentencepiece.bpe.model", "tekken.json",
)  # fmt: skip
VOLATILE = {"transformers_version", "_name_or_path"}  # of config.json: say nothing of what the model computes


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
        gguf = "; GGUF files are not read: convert them to safetensors" if list(folder.glob("*.gguf")) else ""
        raise FamilyError(f"{folder} holds no weights; expected *.safetensors (or pytorch_model*.bin){gguf}")
    return files


def code_files(folder: Path) -> list[Path]:
    """Return the Python files of a checkpoint whose config.json or tokenizer names some as its own model's code."""
    configs = (folder / name for name in ("config.json", "tokenizer_config.json"))
    if not any(b'"auto_map"' in config.read_bytes() for config in configs if config.is_file()):
        return []
    return sorted(folder.glob("*.py"))


def state_of(folder: Path, adapter: str = "") -> FileStates:
    """Return the state of all files that the digest of a checkpoint is made of; reads none of the large ones."""
    small = [folder / name for name in ("config.json", *TOKENIZER)]
    files = [*weight_files(folder), *code_files(folder), *(file for file in small if file.is_file())]
    files += adapter_files(Path(adapter)) if adapter else []
    return tuple((file.name, _stamp(file)) for file in files)


def _stamp(file: Path) -> tuple[int, ...]:
    """Return size, times and inode: `cp -p` and `rsync -t` keep the first two, and no program can set the third."""
    state = file.stat()
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino


def checkpoint_digest(folder: Path, *, adapter: str = "", rehash: bool = False) -> str:
    """Return the digest of weights, config.json, tokenizer, the model's own code and the adapter, if there is one.

    Digests of weight files are remembered by path, size, times and inode; `rehash` reads them again.
    """
    cache = DigestCache()
    weights = {file.name: cache.digest(file, rehash=rehash) for file in weight_files(folder)}
    cache.save()
    code = {file.name: _sha256(file) for file in code_files(folder)}
    parts = {"weights": weights, "config": config_digest(folder), "tokenizer": tokenizer_digest(folder)}
    added = {"adapter": adapter_digest(Path(adapter))} if adapter else {}
    return digest_of(parts | ({"code": code} if code else {}) | added)


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
        key, stamp = str(file.resolve()), list(_stamp(file))
        if not rehash and self.known.get(key, {}).get("stamp") == stamp:
            return str(self.known[key]["sha256"])
        digest = _sha256(file)
        if list(_stamp(file)) != stamp:
            raise FamilyError(f"{file} changes while it is read; evaluate it when it is written")
        self.known[key] = {"stamp": stamp, "sha256": digest}
        self.changed = True
        return digest

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
