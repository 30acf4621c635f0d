"""Verify inside a vLLM worker that its kernels use the tensors of a checkpoint.

vLLM keeps copies of weights outside their parameters (packed for the CPU, heads tied to embeddings), so that digests of
parameters do not show what is computed. Each linear module is therefore asked for products with fixed inputs, which are
compared with products of the checkpoint's own tensors. All other parameters are compared bit for bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.engines import BUFFER, MASK
from harness_plugins.engines.vllm_slots import Slot, Unclear, listed, own_heads, pattern, short, slots_of

DENSE = {"float32": 1e-4}  # share of its norm by which a product may differ from the exact one
DENSE_OF_HALVES = 0.02


@dataclass
class Seen:
    """What is kept of a tensor (N, ...): sums of the bits of each row (N,), and products with inputs (P, N)."""

    rows: Any
    products: Any


@dataclass
class Expected:
    """What a model should compute with the tensors that are read into it."""

    slots: list[Slot]
    seen: dict[tuple[int, str], Seen] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)

    def watch(self, tensors: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
        """Yield named tensors, and keep what is compared later."""
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
        """Return the names of tensors that the model has no parameter for, buffers and tied heads aside."""
        used = {source for _, source in self.seen}
        heads = {source for slot in self.slots for source in own_heads(slot)}
        return sorted(
            name
            for name in self.names
            if short(name) not in used | heads and not BUFFER.search(name) and not MASK.search(name)
        )

    def twice(self) -> list[str]:
        """Return short names that several tensors have."""
        return sorted(name for name, n in Counter(map(short, self.names)).items() if n > 1)

    def wrong(self) -> list[str]:
        """Return the parameters that are not what the tensors make of them, or are not what is used."""
        return [
            slot.name
            for i, slot in enumerate(self.slots)
            if (parts := [self.seen[i, source] for source in slot.sources if (i, source) in self.seen])
            and not _agrees(slot, parts)
        ]


def _moved(expected: Expected) -> list[str]:
    return [slot.name for slot in expected.slots if not slot.is_empty and slot.parameter.data_ptr() != slot.address]


def why_wrong(expected: Expected) -> str:
    """Return why what was read must not be trusted; nothing where all of it is in use."""
    found = {
        "the checkpoint lacks": expected.gaps(),
        "the model has no parameter for": expected.unused(),
        "there are several tensors called": expected.twice(),
        "the weights in use are not the checkpoint's in": expected.wrong(),
        "recorded graphs would read old weights, since there is other memory for": _moved(expected),
    }
    return "; ".join(f"{what} {listed(names)}" for what, names in found.items() if names)


def certain_gaps(expected: Expected) -> str:
    """Return what a checkpoint lacks or has too much of, where its other layers show how tensors are called."""
    used = {pattern(source) for _, source in expected.seen}
    siblings = {source for slot in expected.slots for source in slot.sources if _is_partly_there(expected, slot)}
    gaps = [name for name in expected.gaps() if pattern(name) in used or name in siblings]
    unused = [name for name in expected.unused() if pattern(short(name)) in used]
    lacks = f"lacks the weights {listed(gaps)}" if gaps else ""
    has = f"holds the weights {listed(unused)}, which its config.json has no place for" if unused else ""
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
    """Return the sum of the bits of each row (N,) of a tensor (N, ...)."""
    import torch

    bits = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    rows = tensor.detach().contiguous().view(bits)
    return rows.reshape(rows.shape[0] if rows.ndim else 1, -1).sum(dim=1, dtype=torch.int64)


def _inputs(width: int, like: Any) -> Any:
    """Return inputs (4, width): three that pick a column each, for which a product is exact, and a dense one."""
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
    """Compare what a parameter is, and what its module computes with it, with the tensors of a checkpoint."""
    import torch

    parameter = slot.parameter
    if bool(parameter.numel()) is slot.is_empty or (slot.is_empty and not slot.is_linear):
        return False
    if not slot.is_empty:
        rows, found = torch.cat([part.rows for part in parts]), _row_sums(parameter)
        if not torch.equal(found[: len(rows)], rows) or found[len(rows) :].any():  # behind them is padding
            return False
    return not slot.is_linear or _computes_with(slot, torch.cat([part.products for part in parts], dim=1))


def _computes_with(slot: Slot, expected: Any) -> bool:
    import torch

    width = getattr(slot.module, "input_size_per_partition", None) or slot.module.embedding_dim
    with torch.inference_mode():
        found = slot.module.quant_method.apply(slot.module, _inputs(width, expected))[:, : expected.shape[1]].float()
    expected = expected.float()
    exact = torch.finfo(slot.dtype).eps * expected[:3].abs()
    difference = (found - expected).abs()
    tolerance = DENSE.get(str(slot.dtype).removeprefix("torch."), DENSE_OF_HALVES)
    is_exact = bool((difference[:3] <= exact).all())  # NaN is not
    return is_exact and bool(difference[3].norm() <= tolerance * expected[3].norm())


# --- in the worker ---------------------------------------------------------------------------------------------------


def tensors_of(folder: str, device: Any) -> Iterator[tuple[str, Any]]:
    """Yield the named tensors of a checkpoint, file by file."""
    from safetensors import safe_open

    for file in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(file, framework="pt", device=str(device)) as stream:
            for name in stream.keys():  # noqa: SIM118  # it is no mapping
                yield name, stream.get_tensor(name)


class Checks:
    """Methods that vLLM adds to its workers (`worker_extension_cls`), called by collective_rpc."""

    def harness_check(self: Any, folder: str) -> tuple[str, str]:
        """Return what a checkpoint certainly lacks, and why swaps into this model cannot be verified, or nothing."""
        try:
            expected = self._harness_expected(folder)
            for _ in expected.watch(tensors_of(folder, self.device)):
                pass
            return certain_gaps(expected), why_wrong(expected)
        except Unclear as error:
            return "", str(error)
        except Exception as error:  # of modules that answer in other ways; they are served, and not swapped
            return "", f"their verification failed: {type(error).__name__}: {error}".splitlines()[0]

    def harness_swap(self: Any, folder: str) -> str:
        """Read another checkpoint into the model; return why the result must not be trusted, or nothing."""
        try:
            expected = self._harness_expected(folder)
        except Unclear as error:
            return str(error)
        self.model_config.model = folder
        self.reload_weights(weights_iterator=expected.watch(tensors_of(folder, self.device)))
        return why_wrong(expected)

    def harness_cache(self: Any) -> tuple[int, int, str]:
        """Return the number of blocks of the cache, the tokens of each, and why they do not tell what prompts fill."""
        try:
            config = self.model_runner.kv_cache_config
            (group,) = config.kv_cache_groups
            return int(config.num_blocks), int(group.kv_cache_spec.block_size), ""
        except Exception as error:  # of models with other caches, and of other versions
            return 0, 0, f"its size is unclear: {type(error).__name__}: {error}".splitlines()[0]

    def _harness_expected(self: Any, folder: str) -> Expected:
        """Return what to compare; raise Unclear where these checks do not suffice."""
        if self.parallel_config.world_size > 1:
            raise Unclear("the model is spread over several workers")
        if not list(Path(folder).glob("*.safetensors")):
            raise Unclear(f"{folder} holds no safetensors")
        if self.model_config.quantization:
            raise Unclear(f"weights are quantised ({self.model_config.quantization})")
        return Expected(slots_of(self.model_runner.get_model(), self.model_config.hf_text_config))
