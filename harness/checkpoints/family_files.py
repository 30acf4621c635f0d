"""Family files: TOML that describes checkpoints, with training FLOPs by its convention.

about = "what this family is"
source = "weights/{size}/step-{step}"    # folders of models or LoRA adapters, relative to this file;
                                         # or hub = "org/name-{size}"
revision = "step{step}"                  # with hub: branch, tag or commit, resolved to a commit
bos = "auto"                             # auto | always | never: auto is what the tokenizer adds by default
step = "100, 200, 400..3200 *2"          # or 1000..5000 +1000, a number, or a list
seed = [0, 1]
tokens_per_step = 65536                  # or tokens = a number, or a table from step to number
flops = "6ND"                            # a convention of FLOPS, a number, or a table from step to number
annealed = "last"                        # true, false, or "last": only the last step of each size

[features]                               # any numbers; each becomes a column of the points
batch = 256
params_active = 12.9e9                   # of a mixture of experts (default: counted from the files)

[sizes.small]                            # one table per size; every key above may also be set here
params = 59552                           # default: params and params_non_embedding are counted from the
                                         # safetensors headers
loss = { 800 = 1.3956, 1600 = 1.3487 }   # training or validation loss, nats per token: a number or a table
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from string import Formatter
from typing import Any

from harness.checkpoints.steps import MOST, parse_steps
from harness.errors import FamilyError, choose, suggest
from harness.files import read_settings
from harness.types import Checkpoint, Family
from harness.types.columns import reserved

FLOPS = {
    "6ND": "6 x all parameters x tokens (Hoffmann 2022). In every convention, parameters of a mixture of experts are "
    "those that one token uses",
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
        table = tomllib.loads(read_settings(path).removeprefix("\ufeff"))  # the mark that Windows writes
        return _family(path, table)
    except (OSError, ValueError) as error:  # a FamilyError is a ValueError
        raise FamilyError(f"{path}: {error}") from error
    except RecursionError as error:
        raise FamilyError(f"{path}: a value is nested too deeply") from error


def _family(path: Path, table: dict[str, Any]) -> Family:
    about, sizes = table.pop("about", ""), table.pop("sizes", None)
    if not isinstance(sizes, dict) or not sizes or not all(isinstance(size, dict) for size in sizes.values()):
        raise FamilyError("expected at least one table [sizes.NAME]")
    settings = {size: _merge(table, size_settings) for size, size_settings in sizes.items()}
    for size, size_settings in settings.items():
        _check(size, size_settings)
    count = sum(
        len(_steps(size_settings)) * len(parse_steps(size_settings["seed"])) for size_settings in settings.values()
    )
    if count > MOST:
        raise FamilyError(f"{count} checkpoints; expected {MOST} at most")
    rungs = [
        checkpoint for size, size_settings in settings.items() for checkpoint in _checkpoints(path, size, size_settings)
    ]
    return Family(path.stem, tuple(rungs), str(about))


def _merge(shared: Mapping[str, Any], size_settings: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the settings of one size into those of the family."""
    unknown = (set(shared) | set(size_settings)) - SETTINGS
    if unknown:
        raise FamilyError(f"unknown setting {choose(unknown)}; {suggest(min(unknown), SETTINGS)}")
    both = [given.get("features", {}) for given in (shared, size_settings)]
    if not all(isinstance(given, dict) for given in both):
        raise FamilyError("features: expected a table of names and numbers")
    features = {**both[0], **both[1]}
    return {"bos": "auto", "seed": 0, "flops": "6ND", **shared, **size_settings, "features": features}


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
        if isinstance(value, dict) and (strange := [step for step in value if not re.fullmatch(r"[0-9]{1,18}", step)]):
            raise FamilyError(f"size {size}: {key} has the step {choose(strange)}; expected whole numbers")
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
