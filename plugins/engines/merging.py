"""Merge the weights of a LoRA adapter into its base model: the same weights for every engine.

Products and sums are computed in float32 and rounded once, to the dtype of the module.
"""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness import Checkpoint, EngineError
from harness.engines import how_to_install, weight_files
from harness_plugins.engines.loading import load_module, some

WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "pytorch_model*.bin.index.json")
SPARE = 1.1  # free disk space relative to the size of the merged weights


def add_adapter(model: Any, adapter: Path) -> Any:
    """Return a module with the weights of a LoRA adapter added to its own; raise EngineError unless all of them are.

    An output head that is tied to the embedding is untied if the adapter changes one of them, because the adapter was
    trained beside the unchanged other one.
    """
    try:
        import peft
    except ImportError as error:
        raise EngineError(
            f"the adapter {adapter} needs the package peft ({error}): {how_to_install('peft')}"
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of peft: its use of transformers, tied weights, merging layer by layer
            added = peft.PeftModel.from_pretrained(model, adapter)
            _expect_all(adapter, peft.get_peft_model_state_dict(added))
            _untie(added)
            _merge_layers(added)
            return added.merge_and_unload().eval()
    except EngineError:
        raise
    except Exception as error:  # peft raises errors of many kinds
        raise EngineError(f"the adapter {adapter} does not fit its base model: {error}") from error


def _expect_all(adapter: Path, loaded: dict[str, Any]) -> None:
    """Raise EngineError unless the tensors of the adapter's file are exactly those that were loaded."""
    from safetensors.torch import load_file

    stored = load_file(adapter / "adapter_model.safetensors")
    lost = sorted(
        name
        for name in stored.keys() | loaded.keys()
        if name not in stored or name not in loaded or not loaded[name].equal(stored[name].to(loaded[name]))
    )
    if lost:
        raise EngineError(f"the adapter {adapter} does not fit its base model: {some(lost)} were not applied")


def _untie(added: Any) -> None:
    """Give the output head weights of its own if it is tied to an embedding and the adapter changes one of them."""
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer

    head, embedding = added.get_output_embeddings(), added.get_input_embeddings()
    if any(isinstance(module, BaseTunerLayer) for module in (head, embedding)) and head.weight is embedding.weight:
        layer = head.get_base_layer() if isinstance(head, BaseTunerLayer) else head
        layer.weight = torch.nn.Parameter(layer.weight.detach().clone(), requires_grad=False)


def _merge_layers(added: Any) -> None:
    """Merge one layer at a time in float32."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for layer in added.modules():
        if isinstance(layer, BaseTunerLayer):
            dtype = next(layer.get_base_layer().parameters()).dtype
            layer.float()
            layer.merge(safe_merge=True)
            layer.to(dtype)


def _is_tied(model: Any) -> bool:
    """Tell whether the output head and the embedding are one matrix."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    return head is not None and head.weight.data_ptr() == embedding.weight.data_ptr()


@contextmanager
def merged_folder(
    checkpoint: Checkpoint, folder: Path, *, dtype: str, trust_remote_code: bool = False
) -> Iterator[Path]:
    """Write the merged weights of a checkpoint's adapter and its base to a temporary folder, in a dtype.

    The folder has links to all other files of the base model. Yields `folder` itself if there is no adapter.
    """
    if not checkpoint.adapter:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="harness-adapter-") as name:
        _expect_room(Path(name), folder)
        _write_merged(checkpoint, folder, Path(name), (dtype, trust_remote_code))
        yield Path(name)


def _expect_room(place: Path, folder: Path) -> None:
    """Raise EngineError if the disk has no room for another copy of the base model."""
    needed, free = SPARE * sum(file.stat().st_size for file in weight_files(folder)), shutil.disk_usage(place).free
    if free < needed:
        raise EngineError(
            f"merging an adapter into {folder} needs {needed / 1e9:.1f} GB in {place.parent}, which has "
            f"{free / 1e9:.1f} GB; set TMPDIR to a folder on a larger disk"
        )


def _write_merged(checkpoint: Checkpoint, folder: Path, place: Path, loading: tuple[str, bool]) -> None:
    dtype, trust_remote_code = loading
    model = load_module(folder, dtype, trust_remote_code=trust_remote_code)
    was_tied = _is_tied(model)
    model = add_adapter(model, Path(checkpoint.adapter))
    if was_tied and not _is_tied(model):
        raise EngineError(
            f"{checkpoint.label}: the adapter changes an output head or embedding that config.json of its base model "
            "ties to the other, and vLLM would use one matrix for both; use --engine transformers"
        )
    model.save_pretrained(place)
    weights = {file.name for pattern in WEIGHTS for file in folder.glob(pattern)}
    for file in folder.iterdir():
        if file.name not in weights:
            (place / file.name).unlink(missing_ok=True)
            (place / file.name).symlink_to(file.resolve())
