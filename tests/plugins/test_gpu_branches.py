"""What the transformers engine does on a GPU only, as far as a machine without one can run it."""

from __future__ import annotations

import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

import harness
from harness import Checkpoint, EngineError, Request
from harness.checkpoints.families import locate, select
from harness.host import PluginHost
from harness_plugins.engines import loading, sharing
from harness_plugins.engines.exact_kernels import exact_kernels
from harness_plugins.engines.forwards import Answer, Forwards, rows_of
from harness_plugins.engines.inspection import inspect
from harness_plugins.engines.memory import ran_out
from harness_plugins.engines.packing import ALIGNED, aligned, grow, pack
from harness_plugins.engines.transformers import Settings, open_engine
from harness_plugins.engines.upcast import in_float32
from harness_plugins.executors.local_pool import visible_gpus
from tests.plugins.test_transformers import TINY

LONGER = {**TINY, "max_position_embeddings": 256}
ANY = 10**6


def located(host: PluginHost, name: str = "aster:w32l2@1600") -> tuple[Checkpoint, Path]:
    return locate(select(name, host)[0])


def asked(n: int = 5, shared: int = 40) -> list[Request]:
    rng = np.random.default_rng(0)

    def ids(size: int) -> tuple[int, ...]:
        return tuple(rng.integers(1, 200, size=size).tolist())

    block = ids(shared)
    return [Request(i, block + ids(3 + i), (ids(1), ids(3), ids(2))) for i in range(n)]


class Gpu(str):
    """A device that takes the branches of CUDA and is none: tensors of shapes without numbers."""

    __slots__ = ()

    def startswith(self, prefix, *_):
        return prefix == "cuda"

    def split(self, *_, **__):
        return ["cuda"]


@pytest.mark.parametrize(
    "config",
    [transformers.LlamaConfig(**LONGER), transformers.GPT2Config(vocab_size=200, n_embd=32, n_layer=2, n_head=2)],
)
def test_every_tensor_of_a_pass_is_on_the_device(config, monkeypatch):
    """PyTorch refuses to compute with tensors of two devices, also where they have shapes only."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(transformers.masking_utils, "find_packed_sequence_indices", lambda _: None)  # asks for numbers
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    forwards, requests = Forwards(model, Gpu("meta")), asked()
    forwards.head.install()
    prefix = requests[0].context[:40]
    answers = [
        forwards.plain(rows_of(requests)),
        forwards.packed(pack([grow(request) for request in requests], 64, ANY, ANY), ()),
        forwards.packed(pack([grow(request, 40) for request in requests], 64, ANY, ANY), prefix),
    ]
    for answer in answers:
        assert {part.device.type for part in (answer.sums, answer.logprobs, answer.slot)} == {"meta"}
        assert answer.sums.shape == (2, 15)
        assert answer.logprobs.dtype == torch.float32


@pytest.mark.parametrize("skip", [0, 40])
def test_rows_that_are_padded_for_a_gpu_score_the_same(host: PluginHost, skip):
    requests = asked()
    prefix = requests[0].context[:skip]
    with open_engine(*located(host)) as engine:
        batch = pack([grow(request, skip) for request in requests], 61 - skip, ANY, ANY)
        padded = aligned(batch, skip)
        assert batch.ids.shape != padded.ids.shape
        assert (padded.ids.shape[1] + skip) % ALIGNED == 0
        assert aligned(padded, skip) is padded
        expected, scored = (engine.scorer.forwards.packed(part, prefix).read() for part in (batch, padded))
    assert scored[0] == pytest.approx(expected[0], abs=2e-5)
    assert scored[1].tolist() == expected[1].tolist()


def test_a_gpu_reads_aligned_rows_only(host: PluginHost, monkeypatch):
    shapes: list[int] = []
    monkeypatch.setattr(Forwards, "_answer", lambda self, inputs, *_: shapes.append(inputs["input_ids"].shape[1]))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    with open_engine(*located(host), share=False) as engine:
        forwards = engine.scorer.forwards
        monkeypatch.setattr(forwards, "device", Gpu("cpu"))
        forwards.packed(pack([grow(request) for request in asked()], 61, ANY, ANY), ())
    assert shapes == [64]


def test_no_pass_has_a_length_that_attention_to_one_head_misreads(tmp_path):
    """Gemma 3 of 1B has one key-value head and a window: PyTorch's kernel read past rows of 1 modulo 32 tokens."""
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**LONGER)).eval()
    requests = [Request(0, tuple(range(1, 32)), ((5, 6, 7), (8,)))]
    plain = Forwards(model, "cpu")
    shapes: list[int] = []
    model.register_forward_pre_hook(lambda _, __, inputs: shapes.append(inputs["input_ids"].shape[1]), with_kwargs=True)
    expected = plain.plain(rows_of(requests)).read()[0]
    plain.is_misread = True
    assert plain.plain(rows_of(requests)).read()[0] == pytest.approx(expected, abs=1e-5)
    assert shapes == [33, 34]
    assert Forwards(model, Gpu("cpu")).is_misread
    assert not Forwards(model, Gpu("cpu")).misreads(32)
    assert not plain.misreads(64)


class Wrong(Forwards):
    """Passes whose kernels are wrong for trees in half precision only, as cuDNN's attention is for some models."""

    def packed(self, batch, shared):
        answer = super().packed(batch, shared)
        if self.dtype == torch.float32:
            return answer
        return Answer(answer.sums - torch.tensor([[3.0], [0.0]], dtype=torch.float64), answer.logprobs, answer.slot)


def test_kernels_of_half_precision_are_verified_too(host: PluginHost, monkeypatch):
    """A GPU computes bfloat16 with other kernels than the float32 of the comparison, which would not notice."""
    with open_engine(*located(host), dtype="bfloat16") as engine:
        assert str(engine.scorer.sharing) == "contexts and what they begin with"
        assert engine.describe()["notes"] == []
    monkeypatch.setattr("harness_plugins.engines.transformers.Forwards", Wrong)
    with open_engine(*located(host), dtype="bfloat16") as engine:
        assert str(engine.scorer.sharing) == "nothing"
        (note,) = engine.describe()["notes"]
        assert "shares nothing: log-probabilities differ by" in note
        assert "nats in half precision, separate ones by 0." in note


def test_a_long_tree_that_is_wrong_in_half_precision_is_not_shared(host: PluginHost):
    with open_engine(*located(host), dtype="bfloat16") as engine:
        right = engine.scorer.forwards
        wrong = Wrong(engine.model, "cpu")
        (request,) = asked(1)
        assert sharing.real_tree_differs(right, request, (), 128) == ""
        assert "nats in half precision" in sharing.real_tree_differs(wrong, request, (), 128)


def test_float32_is_not_rounded_and_attention_is_not_left_to_cudnn(host: PluginHost):
    """NVIDIA's containers set TORCH_ALLOW_TF32_CUBLAS_OVERRIDE; the settings of the process are restored."""

    def settings() -> tuple[str, bool, bool]:
        backends = torch.backends
        return torch.get_float32_matmul_precision(), backends.cudnn.allow_tf32, backends.cuda.cudnn_sdp_enabled()

    before = settings()
    torch.set_float32_matmul_precision("high")
    with open_engine(*located(host)):
        assert settings() == ("highest", False, False)
    assert settings() == ("high", *before[1:])
    torch.set_float32_matmul_precision(before[0])
    with pytest.raises(ZeroDivisionError), exact_kernels():
        raise ZeroDivisionError
    assert settings() == before


# --- memory ----------------------------------------------------------------------------------------------------------


def test_weights_that_do_not_fit_in_float32_are_served_without_sharing(host: PluginHost, monkeypatch):
    """A GPU that the model nearly fills: memory runs out while weights are upcast, and they are used as before."""
    with open_engine(*located(host), dtype="bfloat16") as engine:
        expected = {score.key: score.logprobs for score in engine.score(asked())}
    upcast, count = torch.Tensor.float, [0]

    def crowded(tensor):
        count[0] += tensor.dtype == torch.bfloat16
        if tensor.dtype == torch.bfloat16 and count[0] > 1:  # one tensor fits
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return upcast(tensor)

    checkpoint, folder = located(host)
    with open_engine(checkpoint, folder, dtype="bfloat16") as engine:
        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "float", crowded)
            shared = sharing.sharing_of(engine.scorer.forwards)
            assert shared.why_not.startswith("it fails: CUDA out of memory")
            assert sharing.real_tree_differs(engine.scorer.forwards, asked()[0], (), 64).startswith("it fails: CUDA")
            count[0] = 0
            with pytest.raises(torch.OutOfMemoryError), in_float32(engine.model):
                pass
        assert {tensor.dtype for tensor in engine.model.parameters()} == {torch.bfloat16}
        scored = {score.key: score.logprobs for score in engine.score(asked())}
    assert all((scored[key] == expected[key]).all() for key in expected)


@pytest.mark.soak
def test_a_tree_that_does_not_fit_frees_its_tensors_before_its_rows_are_read(host: PluginHost, monkeypatch):
    """The error that was being handled kept every tensor of the failed pass, so that the rows did not fit either."""
    alive: list[bool] = []

    class Activations:
        """Stands for the tensors of a pass."""

    def cramped(self, batch, shared):
        activations = Activations()
        monkeypatch.setattr(self, "held", weakref.ref(activations), raising=False)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def plain(self, rows):
        alive.append(self.held() is not None)
        return separate(self, rows)

    separate = Forwards.plain
    with open_engine(*located(host)) as engine:
        expected = {score.key: score.logprobs for score in engine.score(asked())}
        engine.scorer.proven = {False: (ANY, ANY, ANY), True: (ANY, ANY, ANY)}
        monkeypatch.setattr(Forwards, "packed", cramped)
        monkeypatch.setattr(Forwards, "plain", plain)
        scored = {score.key: score.logprobs for score in engine.score(asked())}
    assert alive
    assert not any(alive)
    assert all(scored[key] == pytest.approx(expected[key], abs=2e-5) for key in expected)


def test_the_words_for_no_memory_are_understood():
    for message in (
        "CUDA error: out of memory",
        "cuBLAS: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)",
    ):
        assert ran_out(RuntimeError(message))
    assert ran_out(MemoryError())
    assert not ran_out(RuntimeError("CUDA error: device-side assert triggered"))


def test_weights_are_pinned_only_if_that_leaves_memory_for_others(host: PluginHost, monkeypatch):
    """Pinned memory is never paged out: two copies of a large model would end other processes of the machine."""
    pinned: list[torch.Tensor] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self) or self)
    _, folder = located(host)
    size = (folder / "model.safetensors").stat().st_size
    for free, n in ((size, 0), (100 * size, 21)):
        monkeypatch.setattr(loading, "free_memory", lambda free=free: free)
        pinned.clear()
        assert len(loading.read_tensors(folder, "cuda")) >= 20
        assert bool(pinned) == bool(n)


@pytest.mark.soak
def test_a_gpu_that_an_error_left_unusable_ends_the_sweep_with_a_line(host: PluginHost, tmp_path, monkeypatch):
    """After an error in a kernel, every later call fails. The failed checkpoint is named, others are not tried."""

    def broken(*_):
        raise RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be reported later")

    class Broken(Forwards):
        plain = packed = broken

    told: list[str] = []

    class Listening(harness.evaluation.suite.Progress):
        def failed(self, failure):
            told.append(str(failure))

    names = ["aster:w32l2@100,1600"]
    monkeypatch.setattr("harness_plugins.engines.transformers.Forwards", Broken)
    monkeypatch.setattr(torch.cuda, "empty_cache", broken)
    monkeypatch.setattr(Settings, "device_type", property(lambda _: "cuda"))
    with pytest.raises(
        EngineError, match=r"cannot use the GPU any more .*device-side assert triggered\); run the same"
    ):
        harness.evaluate(
            names, ["nano_job"], tmp_path / "s", engine="transformers", registries=host, progress=Listening()
        )
    assert len(told) == 1


# --- devices ---------------------------------------------------------------------------------------------------------


def test_a_gpu_with_a_number_computes_in_the_dtype_of_the_checkpoint(tmp_path):
    """`-O device=cuda:1` was computed in float32."""
    transformers.LlamaConfig(**LONGER, dtype="bfloat16").save_pretrained(tmp_path)
    dtypes = [inspect(Checkpoint("fam", "s", 1, 0, ""), tmp_path, device=d).dtype for d in ("cuda", "cuda:1", "cpu")]
    assert dtypes == ["bfloat16", "bfloat16", "float32"]


@pytest.mark.parametrize(
    ("named", "gpus"),
    [
        ("0,1", ["0", "1"]),
        ("GPU-5d5ba0d6, MIG-3f", ["GPU-5d5ba0d6", "MIG-3f"]),
        ("", []),
        ("-1", []),
        ("2,-1,3", ["2"]),
        ("NoDevFiles", []),
    ],
)
def test_gpus_are_those_that_cuda_would_see(monkeypatch, named, gpus):
    """One worker per GPU: -1 and NoDevFiles were taken for one."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert visible_gpus() == gpus
