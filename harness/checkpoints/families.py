"""Find and select families and checkpoints, and fill in what their files say."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

from harness.checkpoints.adapters import base_of, is_adapter
from harness.checkpoints.family_files import FLOPS, load_family
from harness.checkpoints.flops import training_flops
from harness.checkpoints.hub import MARK, locate_on_hub
from harness.checkpoints.steps import parse_steps
from harness.checkpoints.weights import Sizes, measure, read_config
from harness.errors import FamilyError, UsageError, choose, nearest, suggest
from harness.host.registries import Registries
from harness.types import Checkpoint, Family
from harness.types.columns import ACTIVE_PARAMS, reserved

NO_FAMILIES = "none is installed; the distribution scaling-harness-nano has three small ones"


def find_family(text: str, registries: Registries) -> Family:
    """Return a family by its name, by the path of its file, or from a folder with one checkpoint."""
    path = Path(text)
    if text in registries.families:
        registered = registries.families[text]
        return registered if isinstance(registered, Family) else load_family(Path(registered))
    if path.suffix == ".toml" and path.is_file():
        return load_family(path)
    if (path / "config.json").is_file():
        name = path.resolve().name
        return Family(name, (Checkpoint(name, name, None, 0, str(path.resolve())),), "one checkpoint")
    if is_adapter(path):
        name, adapter = path.resolve().name, str(path.resolve())
        return Family(name, (Checkpoint(name, name, None, 0, base_of(path), adapter=adapter),), "one adapter")
    raise UsageError(
        f"there is no family {text!r}, no family file (NAME.toml) and no folder with config.json or "
        f"adapter_config.json of that name; "
        f"{suggest(text, registries.families, 'harness ls families') if list(registries.families) else NO_FAMILIES}"
    )


def check_features(checkpoints: Iterable[Checkpoint], registries: Registries) -> None:
    """Raise FamilyError for a feature with the name of a column of points or of a metric."""
    for checkpoint in checkpoints:
        if taken := reserved(checkpoint.features, registries.metrics):
            raise FamilyError(
                f"{checkpoint.label}: feature {choose(taken)} would hide a column or a metric of that name; choose "
                "another name"
            )


def select(text: str, registries: Registries) -> list[Checkpoint]:
    """Return the checkpoints that FAMILY[:SIZE][@STEPS] names, in the order of the family.

    SIZE may have wildcards and alternatives (`w32*`, `w32l2,w64l2`); STEPS are steps and ranges as in a family file,
    or `last`. Raises UsageError if a size, or a step of a size, selects no checkpoint.
    """
    match = re.fullmatch(r"(?P<family>[^:@]+)(:(?P<sizes>[^@]*))?(@(?P<steps>.+))?", text)
    if not match:
        raise UsageError(f"{text!r}: expected FAMILY[:SIZE][@STEPS], such as aster:w64l2@100..1600 *2")
    is_whole = Path(text).exists() and not Path(match["family"]).exists()  # a path with : or @
    if is_whole:
        return list(find_family(text, registries).checkpoints)
    family = find_family(match["family"], registries)
    sizes, items = (match["sizes"] or "*").split(","), (match["steps"] or "").split(",")
    chosen: set[str] = set()
    for size, steps in itertools.product(sizes, items):
        named = [c for c in family.checkpoints if fnmatch(c.size, size)]
        named = _at_steps(named, steps) if match["steps"] else named
        if not named:
            part = f"{family.name}:{size}" + (f"@{steps}" if match["steps"] else "")
            raise UsageError(f"{text!r}: there is no checkpoint {part}; {_nearby(family, size)}")
        chosen |= {c.label for c in named}
    return [c for c in family.checkpoints if c.label in chosen]


def _nearby(family: Family, size: str) -> str:
    """Return what there is instead of a checkpoint: the steps of its size, or the sizes of the family."""
    steps = [c.step for c in family.checkpoints if fnmatch(c.size, size)]
    if steps:
        return f"steps of {family.name}:{size} are: {', '.join(map(str, dict.fromkeys(steps)))}"
    sizes = list(dict.fromkeys(c.size for c in family.checkpoints))
    near = nearest(size, sizes)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else f"sizes are: {', '.join(sizes)}"


def _at_steps(checkpoints: list[Checkpoint], steps: str) -> list[Checkpoint]:
    if steps.strip() == "last":
        last = {c.size: c.step for c in sorted(checkpoints, key=lambda c: -1 if c.step is None else c.step)}
        return [c for c in checkpoints if c.step == last[c.size]]
    try:
        wanted = parse_steps(steps)
    except FamilyError as error:
        raise UsageError(f"{error}, or last") from error
    return [c for c in checkpoints if c.step in wanted]


def locate(checkpoint: Checkpoint) -> tuple[Checkpoint, Path]:
    """Return the checkpoint with its revision resolved to a commit, and the folder of its files.

    A source that is an adapter becomes the checkpoint's adapter, and the adapter's base model its source. Raises
    FamilyError if the folder is missing. Hub ids are resolved by huggingface_hub and its cache, which honours
    HF_HUB_OFFLINE.
    """
    if checkpoint.source.startswith(MARK):
        return locate_on_hub(checkpoint)
    folder = Path(checkpoint.source)
    if is_adapter(folder):
        return locate(replace(checkpoint, source=base_of(folder), adapter=str(folder)))
    if not (folder / "config.json").is_file():
        raise FamilyError(
            f"{checkpoint.label}: no config.json or adapter_config.json in {folder}; correct source in the family file"
        )
    return checkpoint, folder


def complete(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    """Fill in missing attributes from config.json and the safetensors headers.

    FLOPs of a mixture of experts count the parameters that one token uses (the feature `params_active`, of the family
    file or counted from the files). Where this number is unknown, FLOPs are unknown.
    """
    measured = measure(folder)
    known = replace(
        checkpoint,
        params=measured.params if checkpoint.params is None else checkpoint.params,
        params_non_embedding=(
            measured.params_non_embedding
            if checkpoint.params_non_embedding is None
            else checkpoint.params_non_embedding
        ),
        features={**measured.features, **checkpoint.features},
    )
    if not measured.has_experts and ACTIVE_PARAMS not in checkpoint.features:
        return replace(known, flops=_flops(known, measured, 0.0))
    return _of_experts(known, measured)


def _of_experts(checkpoint: Checkpoint, measured: Sizes) -> Checkpoint:
    """Return a mixture of experts with its active parameters and FLOPs, if known, and the convention of its FLOPs."""
    active = checkpoint.features.get(ACTIVE_PARAMS, measured.active)
    total = checkpoint.params if measured.params is None else measured.params
    unused = None if active is None or total is None else total - active
    convention = checkpoint.flops_convention
    return replace(
        checkpoint,
        flops=_flops(checkpoint, measured, unused),
        flops_convention=f"{convention}_active" if convention in FLOPS else convention,
        features=checkpoint.features if active is None else {ACTIVE_PARAMS: float(active), **checkpoint.features},
    )


def _flops(checkpoint: Checkpoint, measured: Sizes, unused: float | None) -> float | None:
    """Return training FLOPs: those given, or by the convention, without `unused` parameters; None if unknown."""
    params, body = checkpoint.params, checkpoint.params_non_embedding
    counted = {"6ND": params, "6ND_non_embedding": body, "6ND_head": body and body + measured.head}
    n = counted.get(checkpoint.flops_convention)
    if checkpoint.flops is not None or not n or checkpoint.tokens is None or unused is None:
        return checkpoint.flops
    return training_flops(n - unused, checkpoint.tokens)


def active_params(checkpoint: Checkpoint) -> float:
    """Return the parameters that one token uses: all of a dense model; 0 if they are unknown."""
    return checkpoint.features.get(ACTIVE_PARAMS, float(checkpoint.params or 0))


def notes_on_counts(checkpoints: Iterable[tuple[Checkpoint, Path]]) -> list[str]:
    """Return notes on parameters and FLOPs that are unknown, or those of experts: one per family and size."""
    notes = dict[tuple[str, str], str]()
    for checkpoint, folder in checkpoints:
        if note := _note_on_counts(checkpoint, folder):
            notes[checkpoint.family, checkpoint.size] = f"{checkpoint.family}:{checkpoint.size} {note}"
    return list(notes.values())


def _note_on_counts(checkpoint: Checkpoint, folder: Path) -> str:
    active, flops = checkpoint.features.get(ACTIVE_PARAMS), checkpoint.flops
    if active is not None and flops is not None and checkpoint.flops_convention.endswith("_active"):
        total = "" if checkpoint.params is None else f", of {checkpoint.params:.4g}"
        return f"is a mixture of experts: its FLOPs count the {active:.4g} parameters that a token uses{total}"
    if active is None and flops is None and checkpoint.tokens is not None and measure(folder).has_experts:
        return (
            f"is a mixture of experts, and its files do not say how many parameters a token uses: its FLOPs stay "
            f"unknown; set {ACTIVE_PARAMS} in [features], or flops, in the family file"
        )
    if checkpoint.params is None and "quantization_config" in read_config(folder):
        return "has quantised weights, which do not say how many parameters it has; set params in the family file"
    return ""
