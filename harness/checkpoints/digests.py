"""What is part of a checkpoint's digest: weights, config.json, tokenizer and remote code."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Self

from harness.checkpoints.adapters import adapter_digest, adapter_files
from harness.checkpoints.weights import read_config, safetensors_files, tensor_headers, weight_files
from harness.errors import FamilyError, StoreError
from harness.files import cache_folder, digest_of, write_whole
from harness.types import Json

FileStates = tuple[tuple[str, tuple[int, ...]], ...]  # names, each with size, times and inode

CODE_MAPS = ("config.json", "tokenizer_config.json", "processor_config.json", "generation_config.json")
FOREIGN_CODE = re.compile(r'"([\w.-]+/[\w.-]+--[\w.]+)"')  # ORGANISATION/NAME--MODULE.CLASS
TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "tokenizer.model", "spiece.model", "vocab.txt", "sentencepiece.bpe.model", "tekken.json",
)  # fmt: skip
OTHERS = ("*.model", "*.model.v*", "*.tiktoken", "*.spm", "*.bpe", "*.codes")  # of a tokenizer, by wildcards
SECONDS = 5.0  # between two writings of the cache
VOLATILE = {"transformers_version", "_name_or_path"}  # keys of config.json that do not change the model


def config_digest(folder: Path) -> str:
    """Return the digest of config.json without the keys that do not change the model."""
    return digest_of({k: v for k, v in read_config(folder).items() if k not in VOLATILE})


def tokenizer_digest(folder: Path) -> str:
    """Return the digest of the tokenizer's files."""
    return digest_of({file.name: _sha256(file) for file in tokenizer_files(folder)})


def tokenizer_files(folder: Path) -> list[Path]:
    """Return the files that a tokenizer may be read from."""
    others = (file.name for pattern in OTHERS for file in folder.glob(pattern))
    return [folder / name for name in dict.fromkeys((*TOKENIZER, *sorted(others))) if (folder / name).is_file()]


def tensors_digest(folder: Path) -> str:
    """Return the digest of names, dtypes and shapes of all tensors in safetensors, equal between steps of a run."""
    headers = (tensor_headers(file) for file in safetensors_files(folder))
    return digest_of(sorted(item for header in headers for item in header.items()))


def code_files(folder: Path) -> list[Path]:
    """Return the Python files of a checkpoint whose config.json or tokenizer names some as its own model's code."""
    return sorted(folder.rglob("*.py")) if any(_code_maps(folder)) else []


def _code_maps(folder: Path) -> Iterator[str]:
    """Yield the content of each configuration that names code."""
    for config in (folder / name for name in CODE_MAPS):
        if config.is_file() and '"auto_map"' in (content := config.read_text("utf-8", errors="replace")):
            yield content


def code_digests(folder: Path) -> dict[str, str]:
    """Return the digest of each file of code that loading a checkpoint with trust_remote_code may run.

    Raises FamilyError where a configuration names code of another repository, which no digest would cover.
    """
    for content in _code_maps(folder):
        if elsewhere := FOREIGN_CODE.search(content):
            raise FamilyError(
                f"{folder} loads the code {elsewhere[1]} from another repository, which its digest does not cover; "
                "copy that file into the folder, and refer to it without the repository"
            )
    return {file.relative_to(folder).as_posix(): _sha256(file)[:16] for file in code_files(folder)}


def expect_no_pickles(folder: Path, allowed: Iterable[str] = ()) -> list[str]:
    """Return the names of the pickled weights that a checkpoint is read from.

    Raises FamilyError, unless each matches a name or wildcard of `allowed`: loading a pickle can run code.
    """
    pickles = [file.name for file in weight_files(folder) if file.suffix != ".safetensors"]
    for name in pickles:
        if not any(fnmatch(name, pattern) for pattern in allowed):
            raise FamilyError(
                f"{folder / name} is a pickle, which can run code when it is loaded; convert it to safetensors, or "
                f"allow it with --allow-pickle {name}"
            )
    return pickles


def state_of(folder: Path, adapter: str = "") -> FileStates:
    """Return the state of all files in the digest of a checkpoint, without reading the large ones."""
    config = [folder / "config.json"] if (folder / "config.json").is_file() else []
    files = [*weight_files(folder), *code_files(folder), *config, *tokenizer_files(folder)]
    added = adapter_files(Path(adapter)) if adapter else []
    states = [(file.relative_to(folder).as_posix(), _stamp(file)) for file in files]
    return tuple(states + [(f"adapter/{file.name}", _stamp(file)) for file in added])


def _stamp(file: Path) -> tuple[int, ...]:
    """Return size, times and inode. `cp -p` and `rsync -t` keep size and mtime; no program can set the ctime."""
    state = file.stat()
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino


def checkpoint_digest(
    folder: Path, *, adapter: str = "", rehash: bool = False, cache: DigestCache | None = None
) -> str:
    """Return the digest of weights, config.json, tokenizer, remote code, and the adapter if there is one.

    Digests of weight files are cached by path, size, times and inode; `rehash` ignores the cache. For many checkpoints,
    open one `cache` for all of them.
    """
    if cache is None:
        with DigestCache() as new_cache:
            return checkpoint_digest(folder, adapter=adapter, rehash=rehash, cache=new_cache)
    weights = {file.name: cache.digest(file, rehash=rehash) for file in weight_files(folder)}
    code = {file.relative_to(folder).as_posix(): _sha256(file) for file in code_files(folder)}
    parts: dict[str, Json] = {
        "weights": weights,
        "config": config_digest(folder),
        "tokenizer": tokenizer_digest(folder),
    }
    added: dict[str, Json] = {"adapter": adapter_digest(Path(adapter))} if adapter else {}
    return digest_of(parts | ({"code": code} if code else {}) | added)


class DigestCache:
    """SHA-256 of large files, cached between runs in the user's cache folder.

    It is read once, and written at its end and every SECONDS while digests are added. A killed process, and two that
    write at the same time, lose entries at most: those are computed again.
    """

    def __init__(self) -> None:
        self.path = cache_folder() / "digests.json"
        self._known = self._read()
        self._added: dict[str, Json] = {}  # since the last writing
        self._written = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._write()

    def digest(self, file: Path, *, rehash: bool = False) -> str:
        """Return the digest of a file; raise FamilyError for a blob of the hub's cache that has another than its name.

        The name is what the hub says. Downloads are not verified, and disks fill and fail.
        """
        digest, blob = self._digest(file, rehash=rehash), file.resolve()
        if file.is_symlink() and re.fullmatch(r"[0-9a-f]{64}", blob.name) and digest != blob.name and not rehash:
            raise FamilyError(
                f"{file} is damaged: it has another SHA-256 than on the hub; delete {blob} and download it again "
                "(--rehash evaluates it as it is)"
            )
        return digest

    def _digest(self, file: Path, *, rehash: bool) -> str:
        key, stamp = str(file.resolve()), list(_stamp(file))
        known = self._known.get(key)
        if not rehash and isinstance(known, dict) and known.get("stamp") == stamp and "sha256" in known:
            return str(known["sha256"])
        digest = _sha256(file)
        if list(_stamp(file)) != stamp:
            raise FamilyError(f"{file} changed while it was read; evaluate it after it is written")
        self._known[key] = self._added[key] = {"stamp": stamp, "sha256": digest}
        if time.monotonic() - self._written > SECONDS:
            self._write()
        return digest

    def _read(self) -> dict[str, Json]:
        try:
            known = json.loads(self.path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}  # an absent or damaged cache is rebuilt
        return known if isinstance(known, dict) else {}

    def _write(self) -> None:
        """Add new digests to those that other processes have written; an unwritable folder costs time only."""
        if not self._added:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, json.dumps(self._read() | self._added).encode())
            self._added = {}
        except (OSError, StoreError):
            pass
        self._written = time.monotonic()


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
