"""A checkpoint under the original model's names is the same teacher, read whole or refused."""

import copy

import pytest
import torch
from safetensors.torch import save_file

from danceopd_core.errors import InputError
from danceopd_core.weights.full_checkpoints import load_full_checkpoint
from danceopd_core.weights.key_conversion import converter

from ..loras import query
from ..native_names import (
    flux2_to_native,
    flux_to_native,
    sd3_velocity,
    tiny_flux,
    tiny_flux2,
    tiny_sd3,
    to_native,
)
from ..tiny import randomize
from ..versions import needs_diffusers


@pytest.fixture(scope="module", params=["zimage", "sd3"])
def world(request):
    """A tiny network, a fine-tune of it, and the velocity of any network of its kind."""
    if request.param == "sd3":
        network, velocity = tiny_sd3(), sd3_velocity
    else:
        backbone = request.getfixturevalue("opened_zimage")
        x, sigma, cond = query(backbone)

        def velocity(network):
            with torch.no_grad():
                return backbone.with_network(network).velocity(x, sigma, cond)

        network = copy.deepcopy(backbone.network)
    return network, randomize(copy.deepcopy(network), seed=9), velocity


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model.", "module."])
def test_a_comfyui_file_is_the_checkpoint_that_it_was_converted_from(world, tmp_path, prefix):
    network, other, velocity = world
    native = {prefix + name: tensor for name, tensor in to_native(other).items()}
    assert not native.keys() <= {prefix + name for name in other.state_dict()}
    save_file(native, tmp_path / "a.safetensors")
    teacher = load_full_checkpoint(network, tmp_path / "a.safetensors")
    for name, tensor in other.state_dict().items():
        assert teacher.state_dict()[name].equal(tensor), name
    assert velocity(teacher).equal(velocity(other))
    assert not velocity(teacher).equal(velocity(network))
    assert not any(p.requires_grad for p in teacher.parameters())


def test_the_transformer_of_a_whole_model_is_taken(world, tmp_path):
    network, other, velocity = world
    native = {f"model.diffusion_model.{name}": tensor for name, tensor in to_native(other).items()}
    native["first_stage_model.decoder.conv_in.weight"] = torch.zeros(3)
    native["text_encoders.clip_l.weight"] = torch.full((2,), float("nan"))
    save_file(native, tmp_path / "a.safetensors")
    assert velocity(load_full_checkpoint(network, tmp_path / "a.safetensors")).equal(velocity(other))


def test_what_a_comfyui_file_does_not_change_is_shared(world, tmp_path):
    network, _, _ = world
    save_file(to_native(network), tmp_path / "a.safetensors")
    teacher = load_full_checkpoint(network, tmp_path / "a.safetensors")
    base = dict(network.named_parameters())
    assert all(p.data_ptr() == base[name].data_ptr() for name, p in teacher.named_parameters())


def test_plain_fp8_weights_are_read_as_they_are(world, tmp_path):
    network, other, _ = world
    cast = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in to_native(other).items()}
    save_file(cast, tmp_path / "a.safetensors")
    teacher = load_full_checkpoint(network, tmp_path / "a.safetensors")
    for name, p in other.named_parameters():
        assert teacher.get_parameter(name).equal(p.to(torch.float8_e4m3fn).float())


def a_layer(native):
    return next(name for name, tensor in native.items() if name.endswith("qkv.weight"))


def drop(native):
    del native[a_layer(native)]


def drop_shared_name(native):
    del native[next(name for name in native if name.startswith(("cap_embedder.1.", "context_embedder.")))]


def drop_block(native):
    last = max(int(name.split(".")[1]) for name in native if name.startswith(("layers.", "joint_blocks.")))
    for name in [name for name in native if name.startswith((f"layers.{last}.", f"joint_blocks.{last}."))]:
        del native[name]


def add(native):
    native["extra.weight"] = torch.zeros(3)


def add_beside(native):
    native[a_layer(native).replace("qkv.weight", "lora.weight")] = torch.zeros(3)


def narrow(native):
    native[a_layer(native)] = native[a_layer(native)][:, :-1].clone()


def nan(native):
    native[a_layer(native)][0, 0] = float("nan")


def scaled(native):
    native[a_layer(native)] = native[a_layer(native)].to(torch.float8_e4m3fn)
    native[a_layer(native).replace(".weight", ".scale_weight")] = torch.ones(())
    native["scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)


def comfy_quant(native):
    native[a_layer(native).replace(".weight", ".comfy_quant")] = torch.zeros(8, dtype=torch.uint8)
    native[a_layer(native).replace(".weight", ".weight_scale")] = torch.ones(())


def integers(native):
    native[a_layer(native)] = native[a_layer(native)].to(torch.int8)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop, r"lacks .*qkv\.weight|missing \(.*to_k\.weight"),
        (drop_shared_name, r"lacks context_embedder|1 missing \(cap_embedder\.1\."),
        (drop_block, r"\d+ missing \(layers\.|unknown weights \(joint_blocks"),
        (add, r"1 unknown (weights )?\(.*extra\.weight\)"),
        (add_beside, r"1 unknown (weights )?\(.*lora\.weight\)"),
        (narrow, r"3 of another shape"),
        (nan, r"qkv\.weight holds NaN"),
        (scaled, r"holds quantised weights, .*scale_weight.*bfloat16"),
        (comfy_quant, r"holds quantised weights, .*(comfy_quant|weight_scale)"),
        (integers, r"holds quantised weights, .*qkv\.weight"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_a_damaged_comfyui_file_is_refused(world, tmp_path, damage, message, prefix):
    network, other, _ = world
    native = to_native(other)
    damage(native)
    save_file({prefix + name: tensor for name, tensor in native.items()}, tmp_path / "damaged.safetensors")
    with pytest.raises(InputError, match=r"damaged\.safetensors .*(" + message + ")"):
        load_full_checkpoint(network, tmp_path / "damaged.safetensors")


def test_the_files_of_another_family_are_refused(opened_zimage, tmp_path):
    save_file(to_native(tiny_sd3()), tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"a\.safetensors is not a checkpoint of this network.*unknown"):
        load_full_checkpoint(opened_zimage.network, tmp_path / "a.safetensors")
    save_file(to_native(opened_zimage.network), tmp_path / "b.safetensors")
    with pytest.raises(InputError, match=r"b\.safetensors is not a checkpoint of this network.*unknown"):
        load_full_checkpoint(tiny_sd3(), tmp_path / "b.safetensors")


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_a_weight_that_zimage_files_hold_and_nothing_uses_is_passed_over(opened_zimage, tmp_path, prefix):
    other = randomize(copy.deepcopy(opened_zimage.network), seed=9)
    native = {prefix + name: tensor for name, tensor in to_native(other).items()}
    native |= {f"{prefix}norm_final.weight": torch.tensor([float("nan"), float("inf"), 1.8e19])}
    save_file(native, tmp_path / "a.safetensors")
    teacher = load_full_checkpoint(opened_zimage.network, tmp_path / "a.safetensors").state_dict()
    assert all(teacher[name].equal(tensor) for name, tensor in other.state_dict().items())
    own = other.state_dict() | {"norm_final.weight": torch.zeros(3, dtype=torch.int8)}
    save_file({prefix + name: tensor for name, tensor in own.items()}, tmp_path / "b.safetensors")
    load_full_checkpoint(opened_zimage.network, tmp_path / "b.safetensors")


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model."])
@pytest.mark.parametrize("norms", ["scale", "weight"])
def test_a_flux_that_comfyui_saved_is_the_original_one(tmp_path, prefix, norms):
    """ComfyUI's own norms have a weight, the original's a scale."""
    network = tiny_flux()
    other = randomize(copy.deepcopy(network), seed=9)
    native = {name.replace("norm.scale", f"norm.{norms}"): tensor for name, tensor in flux_to_native(other).items()}
    assert sum(name.endswith(f"_norm.{norms}") for name in native) == 8
    save_file({prefix + name: tensor.contiguous() for name, tensor in native.items()}, tmp_path / "a.safetensors")
    teacher = load_full_checkpoint(network, tmp_path / "a.safetensors").state_dict()
    assert all(teacher[name].equal(tensor) for name, tensor in other.state_dict().items())


def test_a_flux_of_another_width_or_with_a_weight_too_many_is_refused(tmp_path):
    network, native = tiny_flux(), flux_to_native(tiny_flux())
    native = {name: tensor.contiguous() for name, tensor in native.items()}
    key = "double_blocks.0.img_attn.qkv.weight"
    for damaged, message in (
        (native | {key: native[key][:-1].clone()}, "191 rows for 3 layers of a network 64 wide"),
        (native | {"extra.weight": torch.zeros(1)}, r"1 unknown weights \(extra\.weight\)"),
        ({name: tensor for name, tensor in native.items() if name != key}, r"3 missing \(transformer_blocks"),
    ):
        save_file(damaged, tmp_path / "a.safetensors")
        with pytest.raises(InputError, match=message):
            load_full_checkpoint(network, tmp_path / "a.safetensors")


@needs_diffusers("0.37")
def test_flux2_is_converted_as_diffusers_converts_it_and_unknown_weights_are_refused(tmp_path):
    from diffusers.loaders.single_file_utils import convert_flux2_transformer_checkpoint_to_diffusers as theirs

    network = tiny_flux2()
    native = flux2_to_native(randomize(copy.deepcopy(network), seed=9))
    expected = theirs(dict(native))
    convert = converter("a.safetensors", network, native)
    assert convert is not None
    found = convert(native)
    assert found.keys() == expected.keys() == network.state_dict().keys()
    assert all(found[name].equal(tensor) for name, tensor in expected.items())
    with pytest.raises(InputError, match=r"1 unknown weights \(double_blocks\.0\.img_mod\.lin\.weight\)"):
        convert(native | {"double_blocks.0.img_mod.lin.weight": torch.zeros(1)})


def test_flux_is_converted_as_diffusers_converts_it_at_its_own_width():
    from diffusers import FluxTransformer2DModel
    from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers as theirs

    with torch.device("meta"):
        network = FluxTransformer2DModel(num_layers=1, num_single_layers=1, guidance_embeds=True)
    native = flux_to_native(network)
    biases = {name: torch.randn(len(tensor)) for name, tensor in native.items() if name.endswith(".bias")}
    native |= biases  # the values of the vectors tell which rows went where; the matrices would fill the memory
    expected = theirs(dict(native))
    convert = converter("a.safetensors", network, native)
    assert convert is not None
    found = convert(native)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].shape == tensor.shape
        assert not name.endswith(".bias") or found[name].equal(tensor), name
