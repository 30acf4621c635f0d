"""Verify inside a vLLM worker that its kernels use the tensors of a checkpoint.

vLLM keeps copies of weights outside their parameters (packed for the CPU, heads tied to embeddings). Digests of the
parameters therefore do not prove which weights are used. Instead, each linear module computes products with fixed
inputs, which are compared with the same products of the checkpoint's tensors. All other parameters are compared bit by
bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.engines import BUFFER, MASK, safetensors_files
from harness_plugins.engines.vllm_slots import Slot, Unclear, listed, own_heads, pattern, short, slots_of

DENSE = {"float32": 1e-4}  # largest relative difference of a product from the exact one, in norm
DENSE_OF_HALVES = 0.02
AT_ONCE = 2**24  # numbers that are summed together; PyTorch makes integers of 8 bytes of them, beside vLLM's cache


@dataclass
class Seen:
    """Summary of a tensor (N, ...): bit sums of its rows (N,), and products with the fixed inputs (P, N)."""

    rows: Any
    products: Any


@dataclass
class Expected:
    """The results that a model should compute from the tensors loaded into it."""

    slots: list[Slot]
    seen: dict[tuple[int, str], Seen] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)

    def watch(self, tensors: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
        """Yield named tensors, and store their summaries for the later comparison."""
        wanted: dict[str, list[int]] = {}
        for i, slot in enumerate(self.slots):
            for source in slot.sources:
                wanted.setdefault(source, []).append(i)
        for name, tensor in tensors:
            self.names.append(name)
            for i in wanted.get(short(name), ()):
                self.seen[i, short(name)] = _seen(self.slots[i], tensor)
            yield name, tensor

    def gaps(self) -> list[str]:
        """Return the short names of tensors that the model needs and the checkpoint lacks."""
        needed = {source: (i, source) in self.seen for i, slot in enumerate(self.slots) for source in slot.sources}
        return sorted(source for source, is_there in needed.items() if not is_there)

    def unused(self) -> list[str]:
        """Return the names of tensors without a parameter in the model, except buffers and tied heads."""
        used = {source for _, source in self.seen}
        heads = {source for slot in self.slots for source in own_heads(slot)}
        return sorted(
            name
            for name in self.names
            if short(name) not in used | heads and not BUFFER.search(name) and not MASK.search(name)
        )

    def twice(self) -> list[str]:
        """Return the short names that several tensors share."""
        return sorted(name for name, n in Counter(map(short, self.names)).items() if n > 1)

    def wrong(self) -> list[str]:
        """Return the parameters that differ from the checkpoint's tensors or that the kernels do not use."""
        return [
            slot.name
            for i, slot in enumerate(self.slots)
            if (parts := [self.seen[i, source] for source in slot.sources if (i, source) in self.seen])
            and not _agrees(slot, parts)
        ]


def _moved(expected: Expected) -> list[str]:
    return [slot.name for slot in expected.slots if not slot.is_empty and slot.parameter.data_ptr() != slot.address]


def why_wrong(expected: Expected) -> str:
    """Return why the loaded weights are wrong, or ""."""
    problems = {
        "the checkpoint lacks": expected.gaps(),
        "the model has no parameter for": expected.unused(),
        "several tensors share the name": expected.twice(),
        "the weights in use differ from the checkpoint in": expected.wrong(),
        "recorded CUDA graphs would read old weights, because the memory moved of": _moved(expected),
    }
    return "; ".join(f"{problem} {listed(names)}" for problem, names in problems.items() if names)


def certain_gaps(expected: Expected) -> str:
    """Return the missing and surplus tensors of a checkpoint whose names are certain from its other layers."""
    used = {pattern(source) for _, source in expected.seen}
    siblings = {source for slot in expected.slots for source in slot.sources if _is_partly_there(expected, slot)}
    gaps = [name for name in expected.gaps() if pattern(name) in used or name in siblings]
    unused = [name for name in expected.unused() if pattern(short(name)) in used]
    lacks = f"lacks the weights {listed(gaps)}" if gaps else ""
    has = f"has the weights {listed(unused)}, which its config.json does not describe" if unused else ""
    return " and ".join(text for text in (lacks, has) if text)


def _is_partly_there(expected: Expected, slot: Slot) -> bool:
    return bool({short(name) for name in expected.names} & set(slot.sources))


# --- what is compared ------------------------------------------------------------------------------------------------


def _seen(slot: Slot, tensor: Any) -> Seen:
    import torch

    with torch.inference_mode():
        tensor = (tensor.t() if slot.is_transposed else tensor).to(slot.dtype)
        return Seen(None if slot.is_empty else _row_sums(tensor), _products(tensor) if slot.is_linear else None)


def _row_sums(tensor: Any) -> Any:
    """Return the sum of the bits of each row, (N,), of a tensor (N, ...)."""
    import torch

    bits = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    rows = tensor.detach().contiguous().view(bits)
    rows = rows.reshape(rows.shape[0] if rows.ndim else 1, -1)
    some = max(1, AT_ONCE // max(1, rows.shape[1]))
    return torch.cat([part.sum(dim=1, dtype=torch.int64) for part in rows.split(some)])


def _inputs(width: int, like: Any) -> Any:
    """Return inputs (4, width): three that each select one column, so that the product is exact, and a dense one."""
    import torch

    inputs = torch.zeros(4, width, device=like.device, dtype=torch.float32)
    for i, column in enumerate((0, width // 2, width - 1)):
        inputs[i, column] = 1
    inputs[3] = torch.cos(1.7 * torch.arange(width, device=like.device) + 1)
    return inputs.to(like.dtype)


def _products(tensor: Any) -> Any:
    """Return the products (4, N) of a tensor (N, K) with fixed inputs."""
    import torch

    width = tensor.shape[1]
    columns = torch.stack([tensor[:, column] for column in (0, width // 2, width - 1)])
    return torch.cat([columns, torch.nn.functional.linear(_inputs(width, tensor)[3:], tensor)])


def _agrees(slot: Slot, parts: list[Seen]) -> bool:
    """Tell whether a parameter, and the products of its module, agree with the tensors of a checkpoint."""
    import torch

    parameter = slot.parameter
    if bool(parameter.numel()) is slot.is_empty or (slot.is_empty and not slot.is_linear):
        return False
    if not slot.is_empty:
        rows, sums = torch.cat([part.rows for part in parts]), _row_sums(parameter)
        if not torch.equal(sums[: len(rows)], rows) or sums[len(rows) :].any():  # the remaining rows are padding
            return False
    return not slot.is_linear or _computes_with(slot, torch.cat([part.products for part in parts], dim=1))


def _computes_with(slot: Slot, expected: Any) -> bool:
    import torch

    width = getattr(slot.module, "input_size_per_partition", None) or slot.module.embedding_dim
    with torch.inference_mode():
        products = slot.module.quant_method.apply(slot.module, _inputs(width, expected))[:, : expected.shape[1]].float()
    expected = expected.float()
    exact = torch.finfo(slot.dtype).eps * expected[:3].abs()
    difference = (products - expected).abs()
    tolerance = DENSE.get(str(slot.dtype).removeprefix("torch."), DENSE_OF_HALVES)
    is_exact = bool((difference[:3] <= exact).all())  # false for NaN
    return is_exact and bool(difference[3].norm() <= tolerance * expected[3].norm())


# --- in the worker ---------------------------------------------------------------------------------------------------


def tensors_of(folder: str, device: Any) -> Iterator[tuple[str, Any]]:
    """Yield the named tensors of a checkpoint, file by file."""
    from safetensors import safe_open

    for file in safetensors_files(Path(folder)):
        with safe_open(file, framework="pt", device=str(device)) as stream:
            for name in stream.keys():  # noqa: SIM118  # not a mapping
                yield name, stream.get_tensor(name)


class Checks:
    """Methods that vLLM adds to its workers (`worker_extension_cls`), called by collective_rpc."""

    def harness_check(self: Any, folder: str) -> tuple[str, str]:
        """Return what a checkpoint certainly lacks, and why swaps into this model cannot be verified; "" if nothing."""
        try:
            expected = self._harness_expected(folder)
            for _ in expected.watch(tensors_of(folder, self.device)):
                pass
            return certain_gaps(expected), why_wrong(expected)
        except Unclear as error:
            return "", str(error)
        except Exception as error:  # modules with another interface; such models are served, but not swapped
            return "", f"verifying the weights failed: {type(error).__name__}: {error}".splitlines()[0]

    def harness_swap(self: Any, folder: str) -> str:
        """Load another checkpoint into the model; return why the result is wrong, or ""."""
        try:
            expected = self._harness_expected(folder)
        except Unclear as error:
            return str(error)
        self.model_config.model = folder
        self.reload_weights(weights_iterator=expected.watch(tensors_of(folder, self.device)))
        return why_wrong(expected)

    def harness_cache(self: Any) -> tuple[int, int, str]:
        """Return the number of blocks of the cache, the tokens per block, and why its size is unknown, or ""."""
        try:
            config = self.model_runner.kv_cache_config
            (group,) = config.kv_cache_groups
            return int(config.num_blocks), int(group.kv_cache_spec.block_size), ""
        except Exception as error:  # models with several kinds of cache, and other versions
            return 0, 0, f"its size is unknown: {type(error).__name__}: {error}".splitlines()[0]

    def _harness_expected(self: Any, folder: str) -> Expected:
        """Return the expected results; raise Unclear if these checks do not cover the model."""
        if self.parallel_config.world_size > 1:
            raise Unclear("the model is spread over several workers")
        if not safetensors_files(Path(folder)):
            raise Unclear(f"{folder} contains no safetensors files")
        if self.model_config.quantization:
            raise Unclear(f"weights are quantised ({self.model_config.quantization})")
        return Expected(slots_of(self.model_runner.get_model(), self.model_config.hf_text_config))
