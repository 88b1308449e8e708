"""Every family reads every layout: what a file changes is, row by row, what its author changed, to the bit."""

import copy

import pytest
import torch
from safetensors.torch import save_file

from danceopd_core.errors import InputError
from danceopd_core.models.registry import FAMILIES
from danceopd_core.weights.linear_like import linear_shapes
from danceopd_core.weights.lora_header import check_lora
from danceopd_core.weights.lora_io import read_lora

from ..native_names import (
    flux2_to_native,
    flux_to_native,
    krea2_to_native,
    qwen21_to_native,
    tiny_flux,
    tiny_flux2,
    tiny_krea2,
    tiny_qwen21,
    tiny_sd3,
    to_native,
)
from ..tiny import randomize
from ..versions import by_family

RANK, ALPHA = 4, 2.0


def tiny_qwen():
    from diffusers import QwenImageTransformer2DModel

    network = QwenImageTransformer2DModel(
        patch_size=2, in_channels=16, out_channels=4, num_layers=2, attention_head_dim=32, num_attention_heads=2,
        joint_attention_dim=16, axes_dims_rope=(8, 12, 12),
    )  # fmt: skip
    return randomize(network, seed=4)


ORIGINAL = {
    "zimage": to_native,
    "sd3": to_native,
    "flux": flux_to_native,
    "flux2": flux2_to_native,
    "qwen": lambda net: dict(net.state_dict()),
    "krea2": krea2_to_native,
    "qwen21": qwen21_to_native,
}
"""The original model's names for each family; Qwen-Image's are diffusers'."""


@pytest.fixture(scope="module", params=by_family(FAMILIES))
def family(request):
    """The name of a family and a tiny network of it."""
    made = {"sd3": tiny_sd3, "flux": tiny_flux, "flux2": tiny_flux2, "qwen": tiny_qwen, "krea2": tiny_krea2}
    made["qwen21"] = tiny_qwen21
    name = request.param
    return name, made[name]() if name in made else request.getfixturevalue("opened_zimage").network


def rows_of(family) -> dict[str, list[tuple[str, int]]]:
    """For each linear layer of the original model, which row of which layer of ours each of its rows is.

    Found by carrying numbered rows through the conversion of whole checkpoints, which diffusers' converters confirm.
    """
    name, network = family
    numbered, places = copy.deepcopy(network).double(), []
    for module, (rows, _) in linear_shapes(network).items():
        weight = numbered.get_submodule(module).weight
        weight.data = (len(places) + torch.arange(rows, dtype=weight.dtype))[:, None].expand_as(weight).clone()
        places += [(module, row) for row in range(rows)]
    native = ORIGINAL[name](numbered)
    linear = {f"{module}.weight" for module in linear_shapes(network)}
    ours = {numbered.get_submodule(module).weight[0, 0].item() for module in linear_shapes(network)}
    found = {}
    for key, tensor in native.items():
        if key.endswith(".weight") and tensor.ndim == 2 and (key in linear or tensor[:, 0].eq(tensor[:, -1]).all()):
            numbers = tensor[:, 0].round().long().tolist()
            assert min(ours) <= min(numbers)
            found[key.removesuffix(".weight")] = [places[number] for number in numbers]
    assert sum(map(len, found.values())) == len(places)
    return found


def random_factors(network, rows, seed=3):
    """(down, up) for every layer of `rows`, and what that adds to each row of ours."""
    generator, factors = torch.Generator().manual_seed(seed), {}
    shapes = linear_shapes(network)
    down_of = {module: torch.zeros(RANK, columns) for module, (_, columns) in shapes.items()}
    up_of = {module: torch.zeros(count, RANK) for module, (count, _) in shapes.items()}
    for name, places in rows.items():
        down = torch.randn(RANK, shapes[places[0][0]][1], generator=generator)
        up = torch.randn(len(places), RANK, generator=generator)
        factors[name] = down, up
        for number, (module, row) in enumerate(places):
            down_of[module], up_of[module][row] = down, up[number]
    return factors, {module: (up_of[module], down_of[module]) for module in shapes}


AB, DOWN_UP, KOHYA = ("lora_A.weight", "lora_B.weight"), ("lora_down.weight", "lora_up.weight"), "flat"
LAYOUTS = {
    "bare": ("", AB),
    "diffusers": ("transformer.", AB),
    "diffusers, old": ("transformer.", ("lora.down.weight", "lora.up.weight")),
    "diffusers, older": ("unet.", ("lora_linear_layer.down.weight", "lora_linear_layer.up.weight")),
    "peft": ("base_model.model.", AB),
    "peft, with the adapter's name": ("base_model.model.", ("lora_A.default.weight", "lora_B.default.weight")),
    "peft over a pipeline": ("base_model.model.transformer.", AB),
    "comfyui": ("diffusion_model.", AB),
    "comfyui, down and up": ("diffusion_model.", DOWN_UP),
    "comfyui, whole model": ("model.diffusion_model.", AB),
    "compiled": ("_orig_mod.", AB),
    "compiled, then peft": ("base_model.model._orig_mod.", AB),
    "peft, then compiled": ("_orig_mod.base_model.model.", AB),
    "compiled, diffusers": ("transformer._orig_mod.", AB),
    "distributed": ("module.", AB),
    "kohya": ("lora_unet_", DOWN_UP),
    "onetrainer": ("lora_transformer_", DOWN_UP),
    "lycoris": ("lycoris_", DOWN_UP),
}


def file_of(factors, path, prefix, ends, alpha=ALPHA):
    tensors = {}
    for name, (down, up) in factors.items():
        key = prefix + (name.replace(".", "_") if prefix.endswith("_") else name)
        tensors |= {f"{key}.{ends[0]}": down, f"{key}.{ends[1]}": up}
        if alpha is not None:
            tensors[f"{key}.alpha"] = torch.tensor(alpha)
    save_file(tensors, path)
    return path


def assert_adds(lora, expected, scale):
    assert lora.down.keys() == expected.keys()
    for module, (up, down) in expected.items():
        assert lora.down[module].equal(down), module
        assert lora.up[module].equal(up * scale), module


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("names", ["diffusers'", "original"])
def test_every_family_reads_every_layout(family, layout, names, tmp_path):
    _, network = family
    shapes = linear_shapes(network)
    own = {module: [(module, row) for row in range(rows)] for module, (rows, _) in shapes.items()}
    factors, expected = random_factors(network, own if names == "diffusers'" else rows_of(family))
    file = file_of(factors, tmp_path / "a.safetensors", *LAYOUTS[layout])
    check_lora(file, shapes)
    check_lora(file)
    assert_adds(read_lora(file, shapes), expected, ALPHA / RANK)


def test_the_families_are_told_apart_by_names_and_the_fused_layers_are_there(family):
    name, _ = family
    fused = {key: len({module for module, _ in places}) for key, places in rows_of(family).items()}
    assert (
        max(fused.values()) == {"zimage": 3, "sd3": 3, "flux": 4, "flux2": 3, "qwen": 1, "krea2": 1, "qwen21": 2}[name]
    )
    assert "single_blocks.0.linear1" in fused or name != "flux"


@pytest.fixture(scope="module")
def flux():
    return tiny_flux()


def test_x_flux_adds_to_query_key_and_value_alone(flux, tmp_path):
    rows = rows_of(("flux", flux))
    names = {
        "double_blocks.0.processor.qkv_lora1": "double_blocks.0.img_attn.qkv",
        "double_blocks.0.processor.qkv_lora2": "double_blocks.0.txt_attn.qkv",
        "double_blocks.0.processor.proj_lora1": "double_blocks.0.img_attn.proj",
        "double_blocks.0.processor.proj_lora2": "double_blocks.0.txt_attn.proj",
        "single_blocks.1.processor.qkv_lora": "single_blocks.1.linear1",
        "single_blocks.1.processor.proj_lora": "single_blocks.1.linear2",
    }
    width = 64
    parts = {ours: rows[theirs] for ours, theirs in names.items()}
    parts["single_blocks.1.processor.qkv_lora"] = parts["single_blocks.1.processor.qkv_lora"][: 3 * width]
    factors, expected = random_factors(flux, parts)
    touched = {module for places in parts.values() for module, _ in places}
    expected = {module: pair for module, pair in expected.items() if module in touched}
    for prefix in ("", "diffusion_model."):
        file = file_of(factors, tmp_path / "a.safetensors", prefix, ("down.weight", "up.weight"), None)
        assert_adds(read_lora(file, linear_shapes(flux)), expected, 1.0)
    assert "single_transformer_blocks.1.proj_mlp" not in touched


def test_a_flux_lora_is_no_lora_of_qwen_image(flux, tmp_path):
    """Both have blocks of 3072 columns, so shapes alone would not tell."""
    factors, _ = random_factors(flux, rows_of(("flux", flux)))
    double = {name: pair for name, pair in factors.items() if name.startswith("double_blocks.0.img_attn")}
    file = file_of(double, tmp_path / "a.safetensors", "lora_unet_", DOWN_UP)
    with pytest.raises(InputError, match="match no layer of this network"):
        read_lora(file, linear_shapes(tiny_qwen()))
    read_lora(file, linear_shapes(flux))


TRAINED = ("diffusion_model.layers.0.attention_norm1.diff", "diffusion_model.layers.0.adaLN_modulation.0.diff_b")


@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize("key", [*TRAINED, "diffusion_model.layers.0.attention.to_q.lora_B.bias"])
def test_what_comfyuis_trainer_adds_beside_a_lora_is_passed_over_if_it_adds_nothing(opened_zimage, tmp_path, key, zero):
    network = opened_zimage.network
    shapes = linear_shapes(network)
    own = {module: [(module, row) for row in range(rows)] for module, (rows, _) in shapes.items()}
    factors, expected = random_factors(network, own)
    tensors = {f"diffusion_model.{name}.lora_up.weight": up for name, (_, up) in factors.items()}
    tensors |= {f"diffusion_model.{name}.lora_down.weight": down for name, (down, _) in factors.items()}
    tensors |= {name: torch.zeros(32) for name in TRAINED}
    tensors[key] = torch.zeros(32) if zero else torch.tensor([0.0] * 31 + [1e-6])
    save_file(tensors, tmp_path / "a.safetensors")
    if zero:
        check_lora(tmp_path / "a.safetensors", shapes)
        assert_adds(read_lora(tmp_path / "a.safetensors", shapes), expected, 1.0)
        return
    for read in (lambda: read_lora(tmp_path / "a.safetensors", shapes), lambda: check_lora(tmp_path / "a.safetensors")):
        with pytest.raises(InputError, match=rf"1 change weights in full, .*{key.replace('.', '[.]')}"):
            read()


OTHERS = {
    "LoKr": {"lora_unet_layers_0_attention_to_q.lokr_w1": (4, 4), "lora_unet_layers_0_attention_to_q.lokr_w2": (8, 8)},
    "LoHa": {f"lora_unet_layers_0_attention_to_q.hada_w{n}_{side}": (4, 32) for n in (1, 2) for side in "ab"},
    "DoRA": {
        "transformer.layers.0.attention.to_q.lora_A.weight": (4, 32),
        "transformer.layers.0.attention.to_q.lora_B.weight": (32, 4),
        "transformer.layers.0.attention.to_q.lora_magnitude_vector": (32,),
    },
    "OFT": {"base_model.model.layers.0.attention.to_q.oft_R.default.weight": (4, 8)},
    "IA3": {"base_model.model.layers.0.attention.to_q.ia3_l": (32, 1)},
    "text encoder": {"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (4, 32)},
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_kinds_are_told_by_the_header_whatever_the_network(opened_zimage, tmp_path, kind):
    save_file({key: torch.ones(shape) for key, shape in OTHERS[kind].items()}, tmp_path / "a.safetensors")
    for shapes in (None, linear_shapes(opened_zimage.network)):
        with pytest.raises(InputError, match=rf"a\.safetensors cannot be used as a LoRA: .*belong to (a )?{kind}, "):
            check_lora(tmp_path / "a.safetensors", shapes)


def test_a_lora_of_an_earlier_stable_diffusion_is_told(opened_zimage, tmp_path):
    key = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
    save_file(
        {f"{key}.lora_down.weight": torch.ones(4, 32), f"{key}.lora_up.weight": torch.ones(32, 4)},
        tmp_path / "a.safetensors",
    )
    with pytest.raises(InputError, match=r"2 belong to a UNet \(Stable Diffusion 1 to XL\)"):
        check_lora(tmp_path / "a.safetensors", linear_shapes(opened_zimage.network))
