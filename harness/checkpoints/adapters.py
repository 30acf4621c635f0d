"""Adapters (LoRA): a folder with adapter_config.json, whose weights are added to those of a base model."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from harness.errors import FamilyError
from harness.files import digest_of, parse_json

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


def is_adapter(folder: Path) -> bool:
    """Return whether a folder contains an adapter without a model."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def adapter_files(folder: Path) -> list[Path]:
    """Return the files of an adapter; raise FamilyError if one is missing."""
    files = [folder / CONFIG, folder / WEIGHTS]
    for file in files:
        if not file.is_file():
            raise FamilyError(f"the adapter {folder} has no {file.name}; save it again with save_pretrained")
    return files


def base_of(folder: Path) -> str:
    """Return the source of an adapter's base model: a folder, or hub:NAME@REVISION; raise FamilyError without one."""
    try:
        config = parse_json((folder / CONFIG).read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError(f"expected a JSON object, found {type(config).__name__}")
    except (OSError, ValueError) as error:
        raise FamilyError(f"{folder / CONFIG}: {error}; save the adapter again with save_pretrained") from error
    kind, base = config.get("peft_type"), config.get("base_model_name_or_path")
    if kind != "LORA":
        raise FamilyError(f"{folder / CONFIG}: peft_type is {kind!r}; only LORA is served")
    if not base or not isinstance(base, str):
        raise FamilyError(f"{folder / CONFIG} lacks base_model_name_or_path; set it to the folder of the base model")
    for place in (folder / base, Path(base)):
        if (place / "config.json").is_file():
            return str(place.resolve())
    if Path(base).is_absolute():
        raise FamilyError(f"{folder / CONFIG}: the base model {base} is missing; correct base_model_name_or_path")
    return f"hub:{base}@{config.get('revision') or 'main'}"


def adapter_digest(folder: Path) -> str:
    """Return the digest of an adapter: its weights, and its settings without the path of the base model."""
    config, weights = adapter_files(folder)
    settings = json.loads(config.read_text(encoding="utf-8"))
    own_settings = {key: value for key, value in settings.items() if key not in {"base_model_name_or_path", "revision"}}
    with weights.open("rb") as stream:
        return digest_of([own_settings, hashlib.file_digest(stream, "sha256").hexdigest()])
