"""The chat template in the files of a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

from harness.errors import EngineError, choose

FILE = "chat_template.jinja"


def read_chat_template(folder: Path) -> str:
    """Return a tokenizer's default template; raise EngineError if it has none."""
    if (folder / FILE).is_file():
        return (folder / FILE).read_text(encoding="utf-8")
    config = folder / "tokenizer_config.json"
    template = json.loads(config.read_text(encoding="utf-8")).get("chat_template") if config.is_file() else None
    if isinstance(template, list):  # templates by name
        named = {entry["name"]: entry["template"] for entry in template}
        if "default" not in named:
            raise EngineError(f"{folder} has the chat templates {choose(named)} and no default; pass one as a file")
        template = named["default"]
    if not isinstance(template, str):
        raise EngineError(f"{folder} has no chat template ({FILE}, or chat_template in {config.name}); pass a file")
    return template
