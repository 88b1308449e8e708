# ruff: noqa: PT017 (run without pytest)
"""MODELs of GGUF files by contract: weights of a tensor class of their own, unpacked in each layer's forward.

The classes here keep what ComfyUI-GGUF's keep: tensors that name their format and true shape, and answer `clone` and
`detach` with themselves; a Linear without a weight until its file is read; a patcher that `clone` turns into its class
and that says nothing of how to load the MODEL again.
"""

import importlib.util

import comfy.ops
import comfy.sd
import numpy as np
import torch
from comfy.model_patcher import ModelPatcher
from pack.danceopd_core.errors import InputError
from pack.danceopd_core.weights.linear_like import linear_shapes
from pack.nodes.native.checkpointing import enable_checkpointing
from pack.nodes.native.source import NativeTeacher, NativeWeights
from pack_laws.gradients import far, flat, gradients, loaded, student
from pack_laws.loras import random_lora
from pack_laws.tiny_models import backbone_of, prompts, state, tiny_model

Q8_0, BLOCK = 8, 32
"""The number of the format: blocks of 32 numbers, an fp16 scale and 32 bytes."""


def packed(weight):
    """(out, in) as the bytes of Q8_0, (out, in / 32 * 34)."""
    blocks = weight.float().unflatten(-1, (-1, BLOCK))
    scale = (blocks.abs().amax(-1, keepdim=True) / 127).half()
    bytes_ = (blocks / scale.float()).round().clamp(-127, 127).to(torch.int8)
    return torch.cat([scale.view(torch.uint8), bytes_.view(torch.uint8)], -1).flatten(-2)


def unpacked(data):
    """The inverse of `packed`, float32."""
    blocks = data.unflatten(-1, (-1, BLOCK + 2))
    scale = blocks[..., :2].contiguous().view(torch.float16).float()
    return (scale * blocks[..., 2:].contiguous().view(torch.int8).float()).flatten(-2)


class PackedTensor(torch.Tensor):
    def __new__(cls, data, tensor_type=None, tensor_shape=None):
        return super().__new__(cls, data)

    def __init__(self, data, tensor_type=None, tensor_shape=None):
        self.tensor_type, self.tensor_shape = tensor_type, tensor_shape

    def to(self, *args, **kwargs):
        new = super().to(*args, **kwargs)
        new.tensor_type = getattr(self, "tensor_type", None)  # as the loader's own class: a part of one has none
        new.tensor_shape = getattr(self, "tensor_shape", new.data.shape)
        return new

    def clone(self, *args, **kwargs):
        return self

    def detach(self, *args, **kwargs):
        return self

    def new_empty(self, size, *args, **kwargs):
        return PackedTensor(super().new_empty(size, *args, **kwargs), self.tensor_type, size)

    @property
    def shape(self):
        return vars(self).get("tensor_shape") or self.size()


class PackedOps(comfy.ops.manual_cast):
    class Linear(comfy.ops.manual_cast.Linear):
        def __init__(self, in_features, out_features, bias=True, device=None, dtype=None):
            torch.nn.Module.__init__(self)
            self.in_features, self.out_features, self.weight, self.bias = in_features, out_features, None, None

        def _load_from_state_dict(self, state_dict, prefix, *rest):
            for name in ("weight", "bias"):
                if f"{prefix}{name}" in state_dict:
                    setattr(self, name, torch.nn.Parameter(state_dict[f"{prefix}{name}"], requires_grad=False))

        def forward(self, x):
            weight = unpacked(torch.Tensor(self.weight)) if self.weight.tensor_type == Q8_0 else self.weight
            bias = None if self.bias is None else torch.Tensor(self.bias).to(x)
            return torch.nn.functional.linear(x, torch.Tensor(weight).to(x), bias)


class PackedPatcher(ModelPatcher):
    def clone(self, *args, **kwargs):
        kind, self.__class__ = self.__class__, PackedPatcher
        new = super().clone(*args, **kwargs)
        new.__class__, self.__class__ = PackedPatcher, kind
        return new


def both(name="SD3", more=()):
    """A MODEL as its GGUF loader gives it, and one of the same unpacked weights in float32."""
    with torch.inference_mode(False):
        source = tiny_model(name, more=more).model.diffusion_model
    state_dict = {key: weight.clone() for key, weight in source.state_dict().items()}
    packs = {f"{module}.weight" for module, (_, width) in linear_shapes(source).items() if width % BLOCK == 0}
    plain = {key: unpacked(packed(weight)) if key in packs else weight for key, weight in state_dict.items()}
    with torch.inference_mode():
        wrapped = {
            key: PackedTensor(packed(weight), Q8_0, weight.shape)
            if key in packs
            else PackedTensor(weight.clone(), 0, weight.shape)
            for key, weight in state_dict.items()
        }
        model = comfy.sd.load_diffusion_model_state_dict(wrapped, {"custom_operations": PackedOps})
        patcher = PackedPatcher.clone(model)
    assert patcher.cached_patcher_init is None
    return patcher, loaded(plain, torch.float32)


def test_the_packing_is_ggufs():
    """By the package that defines it, where it is installed."""
    weight = torch.randn(6, 64, generator=torch.Generator().manual_seed(0))
    assert far(unpacked(packed(weight)), weight) < 0.01
    if importlib.util.find_spec("gguf"):
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize

        theirs = dequantize(packed(weight).numpy(), GGMLQuantizationType.Q8_0)
        assert np.array_equal(theirs, unpacked(packed(weight)).numpy())


def test_gradients_are_those_over_the_unpacked_weights():
    """With and without blocks computed twice; the MODEL given keeps its bytes."""
    patcher, exact = both()
    before = {name: torch.Tensor(w).clone() for name, w in patcher.model.diffusion_model.named_parameters()}
    backbone, reference = backbone_of(patcher), backbone_of(exact)
    layer = backbone.network.get_submodule("joint_blocks.0.x_block.attn.qkv")
    assert layer.weight.dtype == torch.uint8
    assert layer.weight.tensor_type == Q8_0
    assert linear_shapes(backbone.network) == linear_shapes(reference.network)
    lora = random_lora(reference)
    found = gradients(backbone, "SD3", student(backbone, lora))
    expected = gradients(reference, "SD3", student(reference, lora))
    assert found.keys() == expected.keys()
    assert far(flat(found), flat(expected)) < 1e-5
    again = backbone_of(patcher)
    enable_checkpointing(again.network)
    assert far(flat(gradients(again, "SD3", student(again, lora))), flat(found)) < 1e-6
    for name, weight in patcher.model.diffusion_model.named_parameters():
        assert torch.equal(torch.Tensor(weight), before[name]), name


def test_it_teaches_as_it_stands():
    patcher, exact = both()
    base = backbone_of(exact)
    weights = NativeWeights({"comfyui:SD3:x": NativeTeacher(patcher, "x")})
    teacher = weights.checkpoint("comfyui:SD3:x", base)
    x, sigma = state(base)
    with torch.no_grad():
        assert far(teacher.velocity(x, sigma, prompts("SD3")), base.velocity(x, sigma, prompts("SD3"))) < 1e-5


def test_weights_that_cannot_be_copied_are_refused_in_the_users_words():
    with torch.inference_mode():
        patcher = tiny_model("SD3")
    patcher.cached_patcher_init = None

    class Stubborn(torch.nn.Module):
        def __deepcopy__(self, memo):
            raise TypeError("cannot pickle a kernel's handle")

    patcher.model.diffusion_model.kernel = Stubborn()
    try:
        backbone_of(patcher)
    except InputError as error:
        assert ".safetensors" in str(error)
        assert "SD3" in str(error)
    else:
        raise AssertionError("it was taken")


def test_weights_that_dynamic_vram_would_stream_are_copied_without():
    """ComfyUI marks the model it loads; a GGUF loader's own patcher does not stream it, nor does its copy."""
    patcher, _ = both()
    patcher.model.dynamic_vbars, patcher.model.dynamic_pins, patcher.model.dynamic_patchers = {}, {}, set()
    backbone = backbone_of(patcher)
    assert not {"dynamic_vbars", "dynamic_pins", "dynamic_patchers"} & vars(backbone.model).keys()
    assert patcher.model.dynamic_vbars == {}
    assert backbone.model is not patcher.model
