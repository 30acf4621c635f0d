"""Public names for engines: files of a checkpoint, their digests, and token prefixes. Re-exports only."""

from harness.checkpoints.digests import config_digest, tensors_digest, tokenizer_digest
from harness.checkpoints.text_ends import own_ends
from harness.checkpoints.weights import BUFFER, MASK, read_config, safetensors_files, weight_files
from harness.evaluation.text_parts import common_prefix
from harness.host.distribution import how_to_install

__all__ = [
    "BUFFER",
    "MASK",
    "common_prefix",
    "config_digest",
    "how_to_install",
    "own_ends",
    "read_config",
    "safetensors_files",
    "tensors_digest",
    "tokenizer_digest",
    "weight_files",
]
