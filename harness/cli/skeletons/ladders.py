"""Sizes and steps of checkpoints, read from the names of existing folders."""

from __future__ import annotations

import re
from pathlib import Path

from harness.errors import UsageError

HUB_FAMILY = {
    "where": 'hub = "EleutherAI/pythia-{size}"            # or source = "checkpoints/{size}/step-{step}"\n'
    'revision = "step{step}"\nstep = "1000, 2000..128000 *2, 143000"\ntokens_per_step = 2097152',
    "sizes": "[sizes.70m]\n[sizes.160m]\n[sizes.410m]",
}


def family_settings(source: str, tokens_per_step: int | None = None) -> dict[str, str]:
    """Return the settings of a family file from a pattern of folders: where they are, and a table per size.

    Raises UsageError for a pattern without {size} and one that matches no folder with config.json.
    """
    if "{size}" not in source:
        raise UsageError(f"--source {source!r}: expected a pattern with {{size}}, such as runs/{{size}}/step-{{step}}")
    steps: dict[str, list[int]] = {}
    for size, step in _matches(source):
        steps.setdefault(size, []).append(step)
    if not steps:
        raise UsageError(f"--source {source!r} matches no folder with config.json, relative to {Path.cwd()}")
    tokens = "# tokens_per_step = 2097152               # needed for training FLOPs"
    tokens = f"tokens_per_step = {tokens_per_step}" if tokens_per_step else tokens
    absolute = Path(source).absolute().as_posix()
    return {"where": f'source = "{absolute}"\n{tokens}', "sizes": "\n".join(_table(s, steps[s]) for s in sorted(steps))}


def _matches(source: str) -> list[tuple[str, int]]:
    """Return (size, step) of every checkpoint that a pattern matches; the step is -1 in a pattern without {step}."""
    parts = {"{size}": r"(?P<size>[^/]+)", "{step}": r"(?P<step>\d+)"}
    pattern = re.compile("".join(parts.get(part, re.escape(part)) for part in re.split(r"(\{size\}|\{step\})", source)))
    wild = source.replace("{size}", "*").replace("{step}", "*")
    root = Path(wild).anchor or "."
    folders = Path(root).glob(wild.removeprefix(Path(wild).anchor))
    matches = (pattern.fullmatch(folder.as_posix()) for folder in folders if (folder / "config.json").is_file())
    return sorted((match["size"], int(match.groupdict().get("step") or -1)) for match in matches if match)


def _table(size: str, steps: list[int]) -> str:
    known = sorted(step for step in steps if step >= 0)
    key = size if re.fullmatch(r"[A-Za-z0-9_-]+", size) else f'"{size}"'
    return f"[sizes.{key}]" + (f'\nstep = "{", ".join(map(str, known))}"' if known else "")
