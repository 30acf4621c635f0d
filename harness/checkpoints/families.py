"""Families: a TOML file becomes checkpoints, with training FLOPs by its convention.

about = "what this family is"
source = "weights/{size}/step-{step}"    # folders, relative to this file; or hub = "org/name-{size}"
revision = "step{step}"                  # with hub: branch, tag or commit, resolved to a commit
bos = "auto"                             # auto | always | never: auto is what the tokenizer adds by default
step = "100, 200, 400..3200 *2"          # or 1000..5000 +1000, a number, or a list
seed = [0, 1]
tokens_per_step = 65536                  # or tokens = a number, or a table from step to number
flops = "6ND"                            # a convention of FLOPS, a number, or a table from step to number
annealed = "last"                        # true, false, or "last": only the last step of each size

[features]                               # any numbers; each becomes a column of the points
batch = 256

[sizes.small]                            # one table per size; every key above may also be set here
params = 59552                           # default: params and params_non_embedding are counted from the
                                         # safetensors headers
loss = { 800 = 1.3956, 1600 = 1.3487 }   # training or validation loss, nats per token: a number or a table
"""

from __future__ import annotations

import itertools
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from string import Formatter
from typing import Any

from harness.checkpoints.adapters import base_of, is_adapter
from harness.checkpoints.flops import training_flops
from harness.checkpoints.hub import MARK, locate_on_hub
from harness.checkpoints.steps import MOST, parse_steps
from harness.checkpoints.weights import measure
from harness.columns import reserved
from harness.errors import FamilyError, UsageError, choose, nearest, suggest
from harness.files import read_settings
from harness.registries import Registries
from harness.types import Checkpoint, Family

NO_FAMILIES = "none is installed; the distribution scaling-harness-nano has three small ones"
FLOPS = {
    "6ND": "6 x all parameters x tokens (Hoffmann 2022)",
    "6ND_non_embedding": "6 x parameters outside embeddings x tokens (Kaplan 2020)",
    "6ND_head": "6 x (parameters outside embeddings + output head) x tokens: matrix products with parameters",
}
BOS = ("auto", "always", "never")
SETTINGS = {
    "source", "hub", "revision", "bos", "step", "seed", "tokens_per_step", "tokens", "flops", "annealed",
    "features", "params", "params_non_embedding", "loss",
}  # fmt: skip
WIDTH = r"[<>^]?0?[0-9]{0,2}[ds]?"
LARGEST = 10**300  # whole numbers are below, so that they are numbers of 64 bits too
COUNTS = ("tokens_per_step", "tokens", "flops", "params", "params_non_embedding", "loss")


def load_family(path: Path) -> Family:
    """Read a family file; raise FamilyError, naming the file, if it is invalid."""
    try:
        table = tomllib.loads(read_settings(path))
        return _family(path, table)
    except (OSError, ValueError) as error:  # a FamilyError is a ValueError
        raise FamilyError(f"{path}: {error}") from error
    except RecursionError as error:
        raise FamilyError(f"{path}: a value is nested too deeply") from error


def _family(path: Path, table: dict[str, Any]) -> Family:
    about, sizes = table.pop("about", ""), table.pop("sizes", None)
    if not isinstance(sizes, dict) or not sizes or not all(isinstance(size, dict) for size in sizes.values()):
        raise FamilyError("expected at least one table [sizes.NAME]")
    settings = {size: _merge(table, own) for size, own in sizes.items()}
    for size, own in settings.items():
        _check(size, own)
    count = sum(len(_steps(own)) * len(parse_steps(own["seed"])) for own in settings.values())
    if count > MOST:
        raise FamilyError(f"{count} checkpoints; expected {MOST} at most")
    rungs = [checkpoint for size, own in settings.items() for checkpoint in _checkpoints(path, size, own)]
    return Family(path.stem, tuple(rungs), str(about))


def _merge(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the settings of one size into those of the family."""
    unknown = (set(shared) | set(own)) - SETTINGS
    if unknown:
        raise FamilyError(f"unknown setting {choose(unknown)}; {suggest(min(unknown), SETTINGS)}")
    both = [given.get("features", {}) for given in (shared, own)]
    if not all(isinstance(given, dict) for given in both):
        raise FamilyError("features: expected a table of names and numbers")
    features = {**both[0], **both[1]}
    return {"bos": "auto", "seed": 0, "flops": "6ND", **shared, **own, "features": features}


def _checkpoints(path: Path, size: str, settings: dict[str, Any]) -> list[Checkpoint]:
    """Return the checkpoints of one size, step by step and seed by seed."""
    steps, seeds = _steps(settings), parse_steps(settings["seed"])
    return [_checkpoint(path, size, step, seed, steps[-1], settings) for step in steps for seed in seeds]


def _steps(settings: Mapping[str, Any]) -> tuple[int | None, ...]:
    return parse_steps(settings["step"]) if "step" in settings else (None,)


def _check(size: str, settings: Mapping[str, Any]) -> None:
    if ("source" in settings) == ("hub" in settings):
        raise FamilyError(f"size {size}: expected either source = (a folder) or hub = (org/name)")
    for key in {"source", "hub", "revision"} & set(settings):
        if not isinstance(settings[key], str):
            raise FamilyError(f"size {size}: {key} = {settings[key]!r}; expected text")
    if settings.get("annealed") not in (None, True, False, "last"):
        raise FamilyError(f"size {size}: annealed = {settings['annealed']!r}; expected true, false or last")
    if settings["bos"] not in BOS:
        raise FamilyError(f"size {size}: bos = {settings['bos']!r}; expected one of {choose(BOS)}")
    if isinstance(settings["flops"], str) and settings["flops"] not in FLOPS:
        raise FamilyError(f"size {size}: flops = {settings['flops']!r}; expected a number, or one of {choose(FLOPS)}")
    for name, value in settings["features"].items():
        if not _is_number(value):
            raise FamilyError(f"size {size}: feature {name} = {value!r}; expected a finite number")
    if taken := reserved(settings["features"]):
        raise FamilyError(f"size {size}: feature {choose(taken)} would hide a column of that name; choose another name")
    _check_counts(size, settings)


def _check_counts(size: str, settings: Mapping[str, Any]) -> None:
    for key in COUNTS:
        value = settings.get(key)
        numbers = value.values() if isinstance(value, dict) else [value]
        for number in numbers:
            if number is not None and not isinstance(value, str) and not (_is_number(number) and number >= 0):
                raise FamilyError(f"size {size}: {key} = {number!r}; expected a finite, non-negative number")
        if isinstance(value, str) and key != "flops":
            raise FamilyError(f"size {size}: {key} = {value!r}; expected a number without quotes")


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value) if isinstance(value, float) else abs(value) < LARGEST


def _checkpoint(
    path: Path, size: str, step: int | None, seed: int, last: int | None, settings: dict[str, Any]
) -> Checkpoint:
    names = {"size": size, "step": step, "seed": seed}
    tokens = _at(settings.get("tokens"), step)
    if tokens is None and step is not None and "tokens_per_step" in settings:
        tokens = step * settings["tokens_per_step"]
    annealed = settings.get("annealed")
    convention = settings["flops"] if isinstance(settings["flops"], str) else "given"
    return Checkpoint(
        family=path.stem,
        size=size,
        step=step,
        seed=seed,
        source=_source(path, settings, names),
        bos=settings["bos"],
        params=settings.get("params"),
        params_non_embedding=settings.get("params_non_embedding"),
        tokens=tokens,
        flops=_at(settings["flops"], step) if convention == "given" else None,
        flops_convention=convention,
        loss=_at(settings.get("loss"), step),
        annealed=step == last if annealed == "last" else annealed,
        features=settings["features"],
    )


def _at(value: Any, step: int | None) -> float | None:
    """Return a number, or the entry of a table from step to number."""
    return value.get(str(step)) if isinstance(value, dict) else value


def _source(path: Path, settings: Mapping[str, Any], names: Mapping[str, Any]) -> str:
    if "hub" in settings:
        revision = _named(settings.get("revision", "main"), names)
        return f"hub:{_named(settings['hub'], names)}@{revision}"
    return str((path.parent / _named(settings["source"], names)).resolve())


def _named(template: str, names: Mapping[str, Any]) -> str:
    """Fill {size}, {step} and {seed}, which may say how wide they are: {step:07d}."""
    try:
        fields = [(name, width) for _, name, width, _ in Formatter().parse(template) if name is not None]
        if any(name not in names or not re.fullmatch(WIDTH, width or "") for name, width in fields):
            raise FamilyError(
                f"{template!r}: expected {{size}}, {{step}} or {{seed}}, with a width such as {{step:07d}}"
            )
        return template.format(**names)
    except (TypeError, ValueError) as error:
        raise FamilyError(f"{template!r}: {error}") from error


def find_family(text: str, registries: Registries) -> Family:
    """Return a family by its name, by the path of its file, or from a folder with one checkpoint."""
    path = Path(text)
    if text in registries.families:
        found = registries.families[text]
        return found if isinstance(found, Family) else load_family(Path(found))
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

    Raises FamilyError if the folder is missing. Hub ids are resolved by huggingface_hub and its cache, which honours
    HF_HUB_OFFLINE.
    """
    if checkpoint.source.startswith(MARK):
        return locate_on_hub(checkpoint)
    folder = Path(checkpoint.source)
    if not (folder / "config.json").is_file():
        raise FamilyError(f"{checkpoint.label}: no config.json in {folder}; correct source in the family file")
    return checkpoint, folder


def complete(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    """Fill in missing attributes from config.json and the safetensors headers."""
    measured = measure(folder)
    params = measured.params if checkpoint.params is None else checkpoint.params
    body = checkpoint.params_non_embedding
    body = measured.params_non_embedding if body is None else body
    flops = checkpoint.flops
    counted = {"6ND": params, "6ND_non_embedding": body, "6ND_head": body and body + measured.head}
    n = counted.get(checkpoint.flops_convention)
    if flops is None and n and checkpoint.tokens is not None:
        flops = training_flops(n, checkpoint.tokens)
    return replace(
        checkpoint,
        params=params,
        params_non_embedding=body,
        flops=flops,
        features={**measured.features, **checkpoint.features},
    )
