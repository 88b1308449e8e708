"""The student's gradients are right: against finite differences, and over weights of any precision."""

import json
import re
from functools import partial

import comfy.model_management as management
import comfy.sd
import comfy_kitchen
import torch
from pack.danceopd_core.algorithm.fields import Conditioning, Sample
from pack.danceopd_core.weights.adapters import Adapters
from pack.danceopd_core.weights.linear_like import linear_shapes
from pack.danceopd_core.weights.lora import Lora
from pack.nodes.native.checkpointing import enable_checkpointing
from pack.nodes.native.saved_tensors import differentiable
from pack_laws.configs import CONFIGS
from pack_laws.loras import random_lora
from pack_laws.tiny_models import DEVICE, backbone_of, fresh_backbone, prompts, state, tiny_model
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention as attention
from torch.utils._python_dispatch import TorchDispatchMode

UNREAD = re.compile(
    r"joint_blocks\.1\.context_block|transformer_blocks\.1\.(attn\.(add_q|to_add_out)|txt_mlp)"
    r"|double_blocks\.1\.(txt_mlp|attn\.txt_attn_proj)|patch_blocks\.1\.(attn\.proj_y|mlp_y)"
    r"|llm_adapter|ref_image_refiner"
)
"""Layers that no output depends on: the text's in the last block, Anima's adapter without T5 tokens, and those for
source pictures without any.
"""
TOLERANCES = {"bfloat16": 0.03, "float8_e4m3fn": 0.03, "int8_tensorwise": 0.03}
"""How far a gradient may be from that of a resident float32 run over the same weights, relative to it."""


def far(one, other):
    return float((one - other).norm() / other.norm())


def loss_of(backbone, name, adapters):
    """The mean square of the student's velocity at fixed states, as a function of nothing."""
    x, sigma = state(backbone)
    velocity = backbone.velocity(x, sigma, prompts(name))
    assert velocity.dtype == torch.float32
    return velocity.square().mean()


def student(backbone, lora=None):
    adapters = Adapters(backbone.network, DEVICE, torch.float32)
    torch.manual_seed(0)
    adapters.start_student(lora or random_lora(backbone))
    return adapters


def gradients(backbone, name, adapters):
    management.in_training = True
    try:
        for factor in adapters.parameters():
            factor.grad = None
        loss_of(backbone, name, adapters).backward()
    finally:
        management.in_training = False
    return {key: factor.grad.clone() for key, factor in adapters._factors("student") if factor.grad is not None}


def flat(found):
    return torch.cat([found[key].flatten() for key in sorted(found)])


def test_gradients_are_finite_differences():
    """Along the gradient: also in blocks that overwrite what they have read, and through fused kernels."""
    for name in CONFIGS:
        backbone = fresh_backbone(name)
        adapters = student(backbone)
        found = gradients(backbone, name, adapters)
        length = flat(found).norm()
        factors = dict(adapters._factors("student"))
        step, values = 0.002, []
        for sign in (1, -1):
            with torch.no_grad():
                for key, gradient in found.items():
                    factors[key] += sign * step * gradient / length
                values.append(float(loss_of(backbone, name, adapters)))
                for key, gradient in found.items():
                    factors[key] -= sign * step * gradient / length
        slope = (values[0] - values[1]) / (2 * step)
        assert abs(slope - float(length)) < 0.02 * abs(slope), (name, slope, float(length))


def test_every_family_has_gradients_everywhere_with_and_without_checkpointing():
    """Finite, not zero in any layer that the output depends on, and equal when blocks are computed twice."""
    for name in CONFIGS:
        backbone = fresh_backbone(name)
        adapters = student(backbone)
        plain = gradients(backbone, name, adapters)
        assert torch.isfinite(flat(plain)).all(), name
        idle = [key for key, factor in adapters._factors("student") if key not in plain or not plain[key].any()]
        # The last block's text side is not read by the output.
        assert all(UNREAD.search(key) for key in idle), (name, idle)
        assert enable_checkpointing(backbone.network) >= 2
        again = gradients(backbone, name, adapters)
        assert again.keys() == plain.keys()
        assert far(flat(again), flat(plain)) < 1e-5, name


def quantised(kind, more=()):
    """SD3 with its blocks in 8 bits as a file holds them, by the stock loader, and the same weights in float32."""
    with torch.inference_mode(False):
        source = tiny_model("SD3", more=more)
    return stored_in_8_bits(source.model.diffusion_model, kind, "joint_blocks.", "adaLN")


def stored_in_8_bits(network, kind, blocks, left_out):
    """A network's weights, those of its blocks in 8 bits as a file holds them; and the same weights in float32."""
    state_dict = {name: weight.clone() for name, weight in network.state_dict().items()}
    plain = dict(state_dict)
    for module in linear_shapes(network):
        if module.startswith(blocks) and left_out not in module:
            weight = state_dict[f"{module}.weight"]
            most = 448.0 if kind == "float8_e4m3fn" else 127.0
            scale = weight.abs().max() / most
            scaled = weight / scale
            stored = scaled.to(torch.float8_e4m3fn) if kind == "float8_e4m3fn" else scaled.round().to(torch.int8)
            state_dict[f"{module}.weight"], plain[f"{module}.weight"] = stored, stored.float() * scale
            state_dict[f"{module}.weight_scale"] = scale
            conf = json.dumps({"format": kind}).encode()
            state_dict[f"{module}.comfy_quant"] = torch.tensor(list(conf), dtype=torch.uint8)
    return state_dict, plain


def loaded(state_dict, dtype=None, disable_dynamic=False, **options):
    """The MODEL of these weights by the stock loader, which can load it again; options: the loader's own."""
    given = {**options, **({} if dtype is None else {"dtype": dtype})}
    patcher = comfy.sd.load_diffusion_model_state_dict(dict(state_dict), given, disable_dynamic=disable_dynamic)
    patcher.cached_patcher_init = (partial(loaded, **options), (state_dict, dtype))
    return patcher


def test_gradients_over_quantised_weights_are_those_over_the_same_weights_in_float32():
    """The layers are no nn.Linear there; also with blocks computed twice in the backward pass."""
    for kind in ("float8_e4m3fn", "int8_tensorwise"):
        packed, plain = quantised(kind)
        with torch.inference_mode():
            patcher = loaded(packed)
        backbone, exact = backbone_of(patcher), backbone_of(loaded(plain, torch.float32))
        layer = backbone.network.get_submodule("joint_blocks.0.x_block.attn.qkv")
        assert not isinstance(layer, torch.nn.Linear)
        assert layer.quant_format == kind
        assert linear_shapes(backbone.network) == linear_shapes(exact.network)
        assert backbone.default_targets == exact.default_targets
        lora = random_lora(exact)
        adapters, reference = student(backbone, lora), student(exact, lora)
        found, expected = gradients(backbone, "SD3", adapters), gradients(exact, "SD3", reference)
        assert found.keys() == expected.keys()
        print(kind, backbone.model.get_dtype_inference(), far(flat(found), flat(expected)))
        assert far(flat(found), flat(expected)) < TOLERANCES[kind], kind
        enable_checkpointing(backbone.network)
        assert far(flat(gradients(backbone, "SD3", adapters)), flat(found)) < 1e-5


def test_loras_are_applied_where_kernels_fuse_layers():
    """Wan's feed-forward in 8 bits, also when nothing is trained: ComfyUI then passes by the layer's own forward."""
    sizes = {"dim": 128, "num_heads": 1, "text_dim": 4096, "freq_dim": 256}
    with torch.inference_mode(False):
        source = tiny_model("WAN21_T2V", more=tuple(sizes.items()))
    packed, plain = stored_in_8_bits(source.model.diffusion_model, "int8_tensorwise", "blocks.", "modulation")
    backbone, exact = backbone_of(loaded(packed)), backbone_of(loaded(plain, torch.float32))
    assert backbone.network.get_submodule("blocks.0.ffn.2").quant_format == "int8_tensorwise"
    lora = random_lora(exact)
    lora = Lora(*({key: part[key] for key in part if key.endswith("ffn.2")} for part in (lora.down, lora.up)), 8.0)
    x, sigma = state(exact)
    cond = Conditioning(tuple(Sample({"text": torch.ones(5, 4096)}) for _ in range(2)))
    answers = [
        adapters.field(own.velocity, name)(x, sigma, cond).detach()
        for own in (backbone, exact)
        for adapters in [student(own, lora)]
        for name in ("student", None)
    ]
    assert far(answers[0] - answers[1], answers[2] - answers[3]) < 0.1


def test_gradients_in_bfloat16_are_those_of_float32():
    for name in ("SD3", "Flux2", "ZImage", "QwenImage"):
        half = fresh_backbone(name, torch.bfloat16)
        exact = fresh_backbone(name)
        exact.network.load_state_dict({key: weight.float() for key, weight in half.network.state_dict().items()})
        lora = random_lora(exact)
        found = gradients(half, name, student(half, lora))
        expected = gradients(exact, name, student(exact, lora))
        assert all(gradient.dtype == torch.float32 for gradient in found.values())
        print(name, far(flat(found), flat(expected)))
        assert far(flat(found), flat(expected)) < TOLERANCES["bfloat16"], name


def test_what_comes_in_goes_out_unchanged():
    """Training touches no weight of the MODEL that was given, quantised or not."""
    packed, _ = quantised("float8_e4m3fn")
    with torch.inference_mode():
        given = [tiny_model("Flux"), loaded(packed)]
    for patcher, name in zip(given, ("Flux", "SD3"), strict=True):
        before = {key: weight.clone() for key, weight in patcher.model.state_dict().items()}
        backbone = backbone_of(patcher)
        adapters = student(backbone)
        gradients(backbone, name, adapters)
        with torch.no_grad():
            for factor in adapters.parameters():
                factor -= 0.1 * factor.grad if factor.grad is not None else 0
        adapters.remove()
        after = patcher.model.state_dict()
        assert before.keys() == after.keys()
        for key, weight in before.items():
            assert weight.dtype == after[key].dtype
            assert torch.equal(weight.float(), after[key].float()), key


def test_kernels_that_pack_activations_are_left_as_they_are():
    """Those have no twin in plain torch: layers with 8-bit weights call them before the first adapter, and inside a
    function that has its own backward pass."""
    x, scale = torch.randn(4, 32, generator=torch.Generator().manual_seed(0)), torch.tensor(0.5)
    expected = comfy_kitchen.quantize_per_tensor_fp8(x, scale)
    with differentiable():
        found = comfy_kitchen.quantize_per_tensor_fp8(x, scale)
    assert torch.equal(found.float(), expected.float())


def test_attention_with_gradients_is_never_cudnns():
    """Whose backward pass can give NaN; ComfyUI asks for it by name, in some releases on Windows alone."""
    asked = []

    class Kernels(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if "scaled_dot_product" in str(func):
                asked.append(torch.backends.cuda.cudnn_sdp_enabled())
            return func(*args, **(kwargs or {}))

    x = torch.randn(1, 2, 4, 8, requires_grad=True)
    with Kernels(), sdpa_kernel([SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION]):
        attention(x, x, x)
        with differentiable():
            attention(x, x, x)
        attention(x, x, x)
    assert asked
    assert asked[0]
    assert asked[-1]
    assert not all(asked)
