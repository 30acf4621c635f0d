"""Checkpoints of the Hugging Face hub: their files at a commit, and the origin stored with their cells."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from harness.errors import FamilyError
from harness.files import licence_of_card
from harness.host.distribution import how_to_install, missing
from harness.types import Checkpoint

MARK = "hub:"
PATTERNS = ["*.json", "*.safetensors", "*.model", "*.tiktoken", "*.txt", "*.jinja", "*.py", "README.md"]


def locate_on_hub(checkpoint: Checkpoint) -> tuple[Checkpoint, Path]:
    """Return a checkpoint with its revision resolved to a commit, and the folder of its files in the cache of the hub.

    Code (*.py) is part of the digest of a checkpoint; it is not run here. With HF_HUB_OFFLINE=1 only the cache is read.
    Raises FamilyError where files cannot be had.
    """
    if missing(["huggingface_hub"]):
        raise FamilyError(f"{checkpoint.label}: huggingface_hub is not installed: {how_to_install('transformers')}")
    from huggingface_hub import snapshot_download

    name, _, revision = checkpoint.source.removeprefix(MARK).partition("@")
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=PATTERNS))
    except Exception as error:  # huggingface_hub raises errors of many libraries
        why = " ".join(str(error).split())
        raise FamilyError(f"{checkpoint.label}: {name} at {revision} cannot be downloaded: {why}") from error
    return replace(checkpoint, source=f"{MARK}{name}@{folder.name}"), folder  # a snapshot is named by its commit


def origin_on_hub(checkpoint: Checkpoint, folder: Path) -> dict[str, str]:
    """Return the repository, commit and licence of a located checkpoint for its cells; nothing of a local folder."""
    if not checkpoint.source.startswith(MARK):
        return {}
    return {"hub": checkpoint.source.removeprefix(MARK), "licence": licence_of_card(folder / "README.md")}
