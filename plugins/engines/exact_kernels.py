"""Settings of PyTorch under which a module computes what its dtype says, while an engine is open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def exact_kernels() -> Iterator[None]:
    """Compute products and convolutions of float32 in float32, and attention without cuDNN; restore settings at exit.

    NVIDIA's containers round float32 to TensorFloat-32 (10 bits) by default, and modelling code may ask for it; scores
    of dtype float32 would differ by a thousandth, and comparisons of exact passes would fail. cuDNN is the first choice
    for attention on Hopper and Blackwell. It returns wrong numbers for some models (PyTorch issue 193893), and compiles
    a kernel for every new shape of a batch.
    """
    import torch

    backends, precision = torch.backends, torch.get_float32_matmul_precision()
    convolutions, attention = backends.cudnn.allow_tf32, backends.cuda.cudnn_sdp_enabled()
    torch.set_float32_matmul_precision("highest")
    backends.cudnn.allow_tf32 = False
    backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        backends.cudnn.allow_tf32 = convolutions
        backends.cuda.enable_cudnn_sdp(attention)
