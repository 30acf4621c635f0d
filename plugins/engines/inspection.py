"""What the files of a checkpoint say before its weights are read: dtype, length, quantisation and shape."""

from __future__ import annotations

from collections.abc import Mapping
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness import Checkpoint, EngineError, EngineInfo
from harness.engines import read_config, tokenizer_digest
from harness_plugins.engines.sharing import length_of
from harness_plugins.engines.tokenizers import tokenizer_of

LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
VOCABULARIES = ("vocab_size", "padded_vocab_size", "n_vocab")
TEXT = ("text_config", "llm_config", "language_config", "decoder")  # keys with the config of the language model
DEFAULT_LENGTH = 2048  # default if config.json has none, as in lm-eval
QUANTISED = {  # method of quantization_config: packages, one of which transformers needs for it
    "gptq": ("gptqmodel",),
    "awq": ("gptqmodel", "awq"),
    "bitsandbytes": ("bitsandbytes",),
    "compressed-tensors": ("compressed_tensors",),
    "aqlm": ("aqlm",),
    "hqq": ("hqq",),
    "quanto": ("optimum",),
    "torchao": ("torchao",),
    "eetq": ("eetq",),
    "fp8": ("accelerate",),
}
DTYPES = ("float32", "bfloat16", "float16")


def inspect(
    checkpoint: Checkpoint,
    folder: Path,
    *,
    dtype: str = "auto",
    max_length: int | None = None,
    device: str = "auto",
    batch_tokens: int | None = None,  # noqa: ARG001  # inspect and open_engine have the same options
    share: bool = True,  # noqa: ARG001
    trust_remote_code: bool = False,
) -> EngineInfo:
    """Resolve dtype and max_length: the dtype of the checkpoint on CUDA, float32 on CPU, which is exact."""
    config = read_config(folder)
    own_dtype = config.get("dtype") or config.get("torch_dtype") or "float32"
    dtype = (own_dtype if device_of(device).startswith("cuda") else "float32") if dtype == "auto" else dtype
    if dtype not in DTYPES:
        raise EngineError(f"{checkpoint.label}: dtype {dtype!r}; expected one of {', '.join(DTYPES)}")
    own_length = length_of(config, LENGTHS)
    if max_length and own_length and max_length > own_length and not _is_rotary(config):
        raise EngineError(
            f"{checkpoint.label}: max_length {max_length} exceeds its {own_length} learned positions; lower it"
        )
    quantisation = (config.get("quantization_config") or {}).get("quant_method", "none")
    if checkpoint.adapter and quantisation != "none":
        raise EngineError(
            f"{checkpoint.label}: the base model of the adapter is quantised ({quantisation}), and an adapter is "
            "merged into weights that are not; name the original base model in adapter_config.json"
        )
    length = max_length or own_length or DEFAULT_LENGTH
    return EngineInfo(
        dtype=dtype,
        max_length=length,
        load_tokenizer=lambda: tokenizer_of(str(folder), tokenizer_digest(folder), trust_remote_code),
        quantisation=quantisation,
        shape="" if checkpoint.adapter else f"{dtype} {length}",  # other architectures are swapped in
        vocabulary=vocabulary_of(config),
    )


@wraps(inspect)
def inspect_installed(checkpoint: Checkpoint, folder: Path, **options: Any) -> EngineInfo:
    """Raise EngineError where weights are quantised by a method whose library is not installed; else as inspect."""
    info: EngineInfo = inspect(checkpoint, folder, **options)
    quantisation = info.quantisation
    modules = QUANTISED.get(quantisation, ())
    if modules and not any(find_spec(module) for module in modules):
        raise EngineError(
            f"{checkpoint.label}: its weights are quantised by {quantisation}, which needs the package "
            f"{' or '.join(modules)}: pip install {modules[0]}, or use --engine vllm"
        )
    return info


def vocabulary_of(config: Mapping[str, Any]) -> int | None:
    """Return the number of rows of the embedding, or None; it may exceed the number of tokens of the tokenizer."""
    inner = next((config[name] for name in TEXT if isinstance(config.get(name), Mapping)), config)
    sizes = [part[name] for part in (config, inner) for name in VOCABULARIES if isinstance(part.get(name), int)]
    return max(sizes, default=None)


def _is_rotary(config: Mapping[str, Any]) -> bool:
    return any(key.startswith(("rope", "rotary")) for key in config)


def device_of(device: str) -> str:
    """Return a device: for "auto", CUDA where there is a GPU."""
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
