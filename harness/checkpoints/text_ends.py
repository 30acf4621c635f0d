"""The tokens that end a generated text, where a checkpoint names them outside of config.json."""

from __future__ import annotations

from pathlib import Path

from harness.checkpoints.weights import read_config
from harness.errors import FamilyError
from harness.files import parse_json, read_settings
from harness.types import Json

FILE = "generation_config.json"


def own_ends(folder: Path) -> dict[str, Json]:
    """Return {"eos": ids} if generation_config.json names other tokens than config.json, whose digest covers its own.

    It is part of the identity of generated texts only, because scores do not depend on it.
    """
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        settings = parse_json(read_settings(path))
    except (OSError, ValueError) as error:
        raise FamilyError(f"{path}: {error}") from error
    eos = settings.get("eos_token_id") if isinstance(settings, dict) else None
    return {} if eos == read_config(folder).get("eos_token_id") else {"eos": eos}
