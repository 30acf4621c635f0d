"""The weight files of a checkpoint, and parameter counts from their headers and config.json, without loading them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from harness.checkpoints.experts import active_counts, routing_of
from harness.errors import FamilyError, choose
from harness.files import parse_json, read_settings
from harness.types import Json

POSITION = re.compile(r"(wpe|embed_positions|position_embeddings|positions_embed)\.weight$")
EMBEDDING = re.compile(
    r"(embed_tokens|embed_tokens_per_layer|embed_in|wte|word_embeddings|tok_embeddings|tokens_embed)\.weight$"
    r"|(^|\.)embeddings\.weight$|" + POSITION.pattern
)
HEAD = re.compile(r"(^|\.)(lm_head|embed_out|output_layer)\.weight$|^output\.weight$")
BUFFER = re.compile(r"(inv_freq|masked_bias|weight_scale|weight_scale_inv)$")  # older versions; scales of FP8
PACKED = {"U8", "I16", "I32"}  # types of integers that have several weights each
MASK = re.compile(r"\.(attn|attention)\.bias$")  # likewise, where it is no vector
LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")
PART = re.compile(r"(?P<name>.+-)[0-9]{5}-of-(?P<of>[0-9]{5})")  # of weights in several files
WIDTH = ("hidden_size", "n_embd", "d_model")
MOST_HEADER = 10**8  # bytes, as the safetensors library allows
DEPTH = ("num_hidden_layers", "n_layer", "num_layers")


@dataclass(frozen=True)
class Sizes:
    """Parameter counts of a checkpoint; `head` is that of the output head, tied or not. Unknown: None or 0.

    `active` counts the parameters that one token uses, which for a dense model are all; None if it cannot be vouched
    for.
    """

    params: int | None
    params_non_embedding: int | None
    head: int = 0
    features: dict[str, float] = field(default_factory=dict)
    has_experts: bool = False
    active: int | None = None


def read_config(folder: Path) -> dict[str, Any]:
    """Return config.json of a checkpoint folder."""
    file = folder / "config.json"
    try:
        config = parse_json(read_settings(file))
    except FileNotFoundError as error:
        raise FamilyError(f"{file} is missing; copy the checkpoint again") from error
    except (OSError, ValueError) as error:
        raise FamilyError(f"{file}: {error}; {how_to_repair(file)}") from error
    if not isinstance(config, dict):
        raise FamilyError(f"{folder / 'config.json'}: expected a JSON object, found {type(config).__name__}")
    return config


def how_to_repair(file: Path) -> str:
    """Return what a user can do about a damaged file. The cache of the hub links to files that it does not verify."""
    blob = file.resolve()
    is_cached = file.is_symlink() and blob.parent.name == "blobs"
    return f"delete {blob} and download it again" if is_cached else "copy it again"


def safetensors_files(folder: Path) -> list[Path]:
    """Return the safetensors files that loading a checkpoint reads; raise FamilyError if its index lacks some.

    These are model.safetensors, or the files that the index names, or all. Other files of the folder (averaged weights,
    the optimizer's state, a copy with other names) are no weights of this checkpoint.
    """
    return _loaded(folder, "model.safetensors") or _complete(sorted(folder.glob("*.safetensors")))


def weight_files(folder: Path) -> list[Path]:
    """Return the files with weights: safetensors, or PyTorch's if there are none."""
    files = safetensors_files(folder) or _loaded(folder, "pytorch_model.bin")
    files = files or sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        gguf = "; GGUF files are not read: convert them to safetensors" if list(folder.glob("*.gguf")) else ""
        if not folder.is_dir():
            raise FamilyError(f"the folder {folder} is missing; copy the checkpoint again")
        raise FamilyError(f"{folder} has no weights; expected *.safetensors (or pytorch_model*.bin){gguf}")
    return files


def _complete(files: list[Path]) -> list[Path]:
    """Return files; raise FamilyError if the name of one says that others are missing."""
    for file in files:
        if match := PART.fullmatch(file.stem):
            name, parts = match["name"], match["of"]
            named = {f"{name}{number:05d}-of-{parts}.safetensors" for number in range(1, int(parts) + 1)}
            if missing := named - {file.name for file in files}:
                raise FamilyError(f"{file.parent} lacks {choose(missing)}; copy it again")
    return files


def _loaded(folder: Path, whole: str) -> list[Path]:
    """Return the file `whole`, or the parts that its index names, or nothing."""
    index = folder / f"{whole}.index.json"
    if (folder / whole).exists() or not index.exists():
        return [folder / whole] if (folder / whole).exists() else []
    try:
        table = parse_json(read_settings(index))
        parts = table["weight_map"] if isinstance(table, dict) else None
        if not isinstance(parts, dict) or not parts:
            raise ValueError("it has no weight_map")
        files = [folder / Path(str(part)).name for part in sorted(set(map(str, parts.values())))]
    except (OSError, ValueError, KeyError) as error:
        raise FamilyError(f"{index}: not an index of weights ({error}); copy it again") from error
    if missing := [file.name for file in files if not file.exists()]:
        raise FamilyError(f"{folder} lacks {choose(missing)}, which {index.name} names; copy it again")
    return files


def tensor_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor in a safetensors file, from its header; raise FamilyError if it is truncated."""
    return {name: shape for name, (_, shape) in tensor_headers(file).items()}


def tensor_headers(file: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return dtype and shape of every tensor in a safetensors file; raise FamilyError if it is truncated."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > MOST_HEADER:
                raise ValueError(f"its header has {length} bytes; expected {MOST_HEADER} at most")
            tensors = _tensors(parse_json(stream.read(length).decode()))
        end = 8 + length + max((_numbers(tensor["data_offsets"])[1] for tensor in tensors.values()), default=0)
        headers = {name: (str(tensor["dtype"]), _numbers(tensor["shape"])) for name, tensor in tensors.items()}
    except (OSError, ValueError, MemoryError, OverflowError, KeyError, TypeError, AttributeError) as error:
        raise FamilyError(f"{file}: not a safetensors file ({error}); {how_to_repair(file)}") from error
    if file.stat().st_size != end:
        raise FamilyError(f"{file} has {file.stat().st_size} bytes; its header expects {end}; {how_to_repair(file)}")
    return headers


def _tensors(header: Json) -> dict[str, dict[str, Json]]:
    """Return what a header says of each tensor."""
    if not isinstance(header, dict):
        raise ValueError(f"its header is a {type(header).__name__}")
    entries = {name: about for name, about in header.items() if name != "__metadata__"}
    tensors = {name: about for name, about in entries.items() if isinstance(about, dict)}
    if len(tensors) < len(entries):
        raise ValueError(f"its header lacks {choose(set(entries) - set(tensors))}")
    return tensors


def _numbers(values: Json) -> tuple[int, ...]:
    """Return a shape or offsets."""
    if not isinstance(values, list):
        raise ValueError(f"a tensor has the shape or offsets {values!r}")
    numbers = tuple(value for value in values if type(value) is int and value >= 0)
    if len(numbers) < len(values):
        raise ValueError(f"a tensor has the shape or offsets {values!r}")
    return numbers


def measure(folder: Path) -> Sizes:
    """Count the parameters of a checkpoint; width and depth of config.json are features."""
    config = read_config(folder)
    features, shapes = dict(_features(config)), _parameters(folder, config)
    routing = routing_of(config, shapes)
    has_experts = routing is not None
    if not shapes:
        return Sizes(None, None, 0, features, has_experts)
    tied = config.get("tie_word_embeddings") is True
    shapes = {name: shape for name, shape in shapes.items() if not (tied and HEAD.search(name))}
    counts = {name: prod(shape) for name, shape in shapes.items()}
    total = sum(counts.values())
    used = active_counts(routing, shapes) if routing else counts
    lookups = sum(n for name, n in counts.items() if EMBEDDING.search(name) or HEAD.search(name))
    tokens = sum(n for name, n in counts.items() if EMBEDDING.search(name) and not POSITION.search(name))
    head = sum(n for name, n in counts.items() if HEAD.search(name)) or tokens
    return Sizes(total, total - lookups, head, features, has_experts, sum(used.values()) if used else None)


def _parameters(folder: Path, config: dict[str, Json]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all parameters, without buffers and without layers that predict later tokens in training.

    Nothing is returned for weights of which several are packed into one integer (GPTQ, AWQ, bitsandbytes, MXFP4).
    """
    headers = {name: header for file in safetensors_files(folder) for name, header in tensor_headers(file).items()}
    if any(dtype in PACKED and len(shape) > 1 and not MASK.search(name) for name, (dtype, shape) in headers.items()):
        return {}
    return {
        name: shape
        for name, (_, shape) in headers.items()
        if not BUFFER.search(name) and not (MASK.search(name) and len(shape) != 1) and not _beyond(name, config)
    }


def _beyond(name: str, config: dict[str, Json]) -> bool:
    """Say whether a tensor belongs to a layer after the last one (multi-token prediction), which scores no text."""
    depth, layer = config.get("num_hidden_layers"), LAYER.search(name)
    if layer is None or type(depth) is not int or not config.get("num_nextn_predict_layers"):
        return False
    return int(layer[1]) >= depth


def _features(config: dict[str, Json]) -> Iterator[tuple[str, float]]:
    for feature, keys in (("width", WIDTH), ("depth", DEPTH)):
        for key in keys:
            value = config.get(key)
            if isinstance(value, int):
                yield feature, float(value)
                break
