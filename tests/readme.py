"""The files that a README shows, so that tests can run them."""

from __future__ import annotations

import re
from pathlib import Path

BLOCK = re.compile(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", re.DOTALL)


def write_files(readme: Path, folder: Path) -> list[Path]:
    """Write every block marked `<!-- file: NAME -->` to its file; return the files."""
    written = []
    for name, content in BLOCK.findall(readme.read_text(encoding="utf-8")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        written.append(path)
    return written
