"""A LoRA means the same change whatever its file calls the layers."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from danceopd_core.errors import InputError
from danceopd_core.weights.adapters import Adapters
from danceopd_core.weights.linear_like import linear_shapes
from danceopd_core.weights.lora_io import read_lora, write_lora
from danceopd_core.weights.lora_keys import layer_names

from ..loras import merged, query, random_lora
from ..native_names import from_native, sd3_velocity, tiny_sd3, to_native
from ..versions import needs_diffusers

RANK, ALPHA = 4, 2.0


@pytest.fixture(scope="module", params=["zimage", "sd3"])
def world(request):
    """A tiny network and the velocity of any network of its kind."""
    if request.param == "sd3":
        return tiny_sd3(), sd3_velocity
    backbone = request.getfixturevalue("opened_zimage")
    x, sigma, cond = query(backbone)

    def velocity(network):
        with torch.no_grad():
            return backbone.with_network(network).velocity(x, sigma, cond)

    return copy.deepcopy(backbone.network), velocity


def native_lora(native, seed=1):
    """A LoRA for every linear layer of the original model: (down, up) by its names."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name.removesuffix(".weight"): (
            torch.randn(RANK, weight.shape[1], generator=generator) / weight.shape[1] ** 0.5,
            torch.randn(len(weight), RANK, generator=generator) / 4,
        )
        for name, weight in native.items()
        if name.endswith(".weight") and weight.ndim == 2
    }


def diffusers_lora(shapes, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (torch.randn(RANK, columns, generator=generator), torch.randn(rows, RANK, generator=generator) / 4)
        for name, (rows, columns) in shapes.items()
    }


def file_of(factors, path, prefix, roles=("lora_A", "lora_B"), flat=False, alpha=True):
    tensors = {}
    for name, (down, up) in factors.items():
        name = prefix + (name.replace(".", "_") if flat else name)
        tensors[f"{name}.{roles[0]}.weight"], tensors[f"{name}.{roles[1]}.weight"] = down, up
        if alpha:
            tensors[f"{name}.alpha"] = torch.tensor(ALPHA)
    save_file(tensors, path)
    return path


LAYOUTS = {
    "comfyui": ("diffusion_model.", ("lora_A", "lora_B"), False),
    "comfyui-down-up": ("diffusion_model.", ("lora_down", "lora_up"), False),
    "bare": ("", ("lora.down", "lora.up"), False),
    "peft": ("base_model.model.", ("lora_A.default", "lora_B.default"), False),
    "kohya": ("lora_unet_", ("lora_down", "lora_up"), True),
}


def test_the_fixtures_are_what_diffusers_converts(world):
    network, _ = world
    again = from_native(network, to_native(network))
    own = network.state_dict()
    assert again.keys() == own.keys()
    assert all(again[name].equal(tensor) for name, tensor in own.items())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_lora_of_the_original_model_is_its_change_converted_by_diffusers(world, layout, tmp_path):
    network, velocity = world
    prefix, roles, flat = LAYOUTS[layout]
    native = to_native(network)
    factors = native_lora(native)
    assert len(factors) > 20
    file = file_of(factors, tmp_path / "a.safetensors", prefix, roles, flat)
    for name, (down, up) in factors.items():
        native[f"{name}.weight"] += ALPHA / RANK * up @ down
    changed = copy.deepcopy(network)
    changed.load_state_dict(from_native(network, native))
    lora = read_lora(file, linear_shapes(network))
    assert lora.down.keys() == linear_shapes(network).keys()
    expected, bare = velocity(changed), velocity(network)
    torch.testing.assert_close(velocity(merged(network, lora)), expected, rtol=0, atol=2e-4)
    assert (expected - bare).abs().max() > 0.1
    for name, weight in merged(network, lora).state_dict().items():
        torch.testing.assert_close(weight, changed.state_dict()[name], rtol=0, atol=1e-6)
    write_lora(tmp_path / "b.safetensors", lora)  # factors that were shared are written each for itself
    again = read_lora(tmp_path / "b.safetensors", linear_shapes(network))
    assert all(again.up[name].equal(up) and again.down[name].equal(lora.down[name]) for name, up in lora.up.items())


@pytest.mark.parametrize("prefix", ["lora_unet_", "lora_transformer_", "lycoris_"])
def test_diffusers_names_with_underscores_are_read(world, prefix, tmp_path):
    network, _ = world
    shapes = linear_shapes(network)
    factors = diffusers_lora(shapes)
    lora = read_lora(file_of(factors, tmp_path / "a.safetensors", prefix, ("lora_down", "lora_up"), True), shapes)
    assert lora.down.keys() == shapes.keys()
    for name, (down, up) in factors.items():
        assert lora.down[name].equal(down)
        assert lora.up[name].equal(up * (ALPHA / RANK))


def test_a_lora_of_the_original_model_is_a_teacher_with_the_merges_velocity(zimage, tmp_path):
    factors = native_lora(to_native(zimage.network))
    adapters = Adapters(zimage.network)
    base = copy.deepcopy(zimage.network)
    lora = read_lora(file_of(factors, tmp_path / "a.safetensors", "diffusion_model."), adapters.shapes)
    x, sigma, cond = query(zimage)
    found = adapters.field(zimage.velocity, adapters.add_teacher(lora))(x, sigma, cond)
    with torch.no_grad():
        expected = zimage.with_network(merged(base, lora)).velocity(x, sigma, cond)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-4)


@needs_diffusers("0.41")  # the first that reads both layouts whole
@pytest.mark.parametrize("layout", ["bare", "kohya"])
def test_zimage_files_mean_what_diffusers_own_lora_loader_takes_them_for(opened_zimage, layout, tmp_path):
    from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_z_image_lora_to_diffusers

    prefix, roles, flat = LAYOUTS[layout]
    shapes = linear_shapes(opened_zimage.network)
    blocks = {
        name: pair
        for name, pair in native_lora(to_native(opened_zimage.network)).items()
        if name.startswith(("layers.", "noise_refiner.", "context_refiner."))
        and not (flat and name.endswith(".qkv"))  # diffusers splits it in the dotted layout alone
    }
    file = file_of(blocks, tmp_path / "a.safetensors", prefix, roles, flat)
    theirs = _convert_non_diffusers_z_image_lora_to_diffusers(load_file(file))
    ours = read_lora(file, shapes)
    assert {f"transformer.{name}.lora_A.weight" for name in ours.down} == {key for key in theirs if "lora_A" in key}
    for name, up in ours.up.items():
        change = theirs[f"transformer.{name}.lora_B.weight"] @ theirs[f"transformer.{name}.lora_A.weight"]
        torch.testing.assert_close(up @ ours.down[name], change, rtol=1e-5, atol=1e-6)


def test_the_official_trainers_student_is_read_with_its_alpha(opened_zimage, tmp_path):
    shapes = linear_shapes(opened_zimage.network)
    factors = diffusers_lora(shapes)
    file_of(factors, tmp_path / "adapter_model.safetensors", "", alpha=False)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA}))
    lora = read_lora(tmp_path, shapes)
    assert all(lora.up[name].equal(up * (ALPHA / RANK)) for name, (_, up) in factors.items())


def test_a_peft_folder_is_read_as_peft_reads_it(zimage, tmp_path):
    from peft import LoraConfig, PeftModel, get_peft_model

    base = copy.deepcopy(zimage.network)
    config = LoraConfig(
        r=RANK,
        lora_alpha=6,
        target_modules=["to_q", "w2"],
        rank_pattern={r"layers\.\d\.attention\.to_q": 2},
        alpha_pattern={r"layers\.\d\.attention\.to_q": 5, "noise_refiner.0.feed_forward.w2": 3},
        use_rslora=True,
        init_lora_weights=False,
    )
    torch.manual_seed(0)
    get_peft_model(copy.deepcopy(base), config).save_pretrained(tmp_path)
    theirs = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path).merge_and_unload()
    ours = merged(base, read_lora(tmp_path, linear_shapes(base)))
    for name, weight in theirs.state_dict().items():
        torch.testing.assert_close(ours.get_parameter(name), weight, rtol=0, atol=1e-6)
    assert not ours.get_parameter("layers.0.attention.to_q.weight").equal(base.layers[0].attention.to_q.weight)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", r"belong to a text encoder.*\(lora_te1_"),
        ("text_encoder_2.encoder.layers.0.wo.lora_A.weight", r"belong to a text encoder.*\(text_encoder_2\."),
        ("diffusion_model.layers.0.attention.qkv.dora_scale", r"belong to DoRA.*dora_scale"),
        ("base_model.model.layers.0.attention.to_q.lora_magnitude_vector.weight", r"belong to DoRA"),
        ("lora_unet_layers_0_attention_qkv.hada_w1_a", r"belong to LoHa.*hada_w1_a"),
        ("lycoris_layers_0_attention_to_q.lokr_w1", r"belong to LoKr.*lokr_w1"),
        ("diffusion_model.layers.0.attention.qkv.oft_blocks", r"belong to OFT"),
        ("diffusion_model.layers.0.attention_norm1.diff", r"change weights in full.*attention_norm1\.diff"),
        ("diffusion_model.layers.0.attention.qkv.lora_mid.weight", r"Tucker"),
        ("diffusion_model.layers.9.attention.qkv.lora_A.weight", r"match no layer of this network.*layers\.9"),
        ("transformer.layers.0.attention.to_k.lora_A.weight", r"repeat another key .*"),
    ],
)
def test_keys_that_are_not_of_a_plain_lora_are_named(opened_zimage, key, message, tmp_path):
    shapes = linear_shapes(opened_zimage.network)
    factors = native_lora(to_native(opened_zimage.network))
    file = file_of(factors, tmp_path / "a.safetensors", "diffusion_model.")
    tensors = load_file(file) | {key: torch.ones(RANK, 32)}
    save_file(tensors, tmp_path / "b.safetensors")
    with pytest.raises(InputError, match=r"b\.safetensors cannot be used as a LoRA: .*" + message):
        read_lora(tmp_path / "b.safetensors", shapes)


def test_a_fused_layer_beside_its_parts_is_refused(opened_zimage, tmp_path):
    shapes = linear_shapes(opened_zimage.network)
    name = "layers.0.attention"
    factors = {
        f"{name}.qkv": (torch.zeros(RANK, 32), torch.zeros(96, RANK)),
        f"{name}.to_k": (torch.zeros(RANK, 32), torch.zeros(32, RANK)),
    }
    with pytest.raises(InputError, match=r"1 repeat another key \(.*layers\.0\.attention"):
        read_lora(file_of(factors, tmp_path / "a.safetensors", ""), shapes)
    factors = {f"{name}.qkv": (torch.zeros(RANK, 32), torch.zeros(95, RANK))}
    with pytest.raises(
        InputError, match=r"do not fit the network, \(95, 4\) times \(4, 32\) for a layer of \(96, 32\)"
    ):
        read_lora(file_of(factors, tmp_path / "a.safetensors", ""), shapes)


def test_a_lora_that_changed_its_base_is_refused(opened_zimage, tmp_path):
    shapes = linear_shapes(opened_zimage.network)
    write_lora(tmp_path / "adapter_model.safetensors", random_lora(shapes, RANK, seed=1))
    (tmp_path / "adapter_config.json").write_text(json.dumps({"init_lora_weights": "pissa_niter_4"}))
    with pytest.raises(InputError, match=r"pissa_niter_4.*changes the base"):
        read_lora(tmp_path, shapes)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"alpha_pattern": {"(": 3}}))
    with pytest.raises(InputError, match=r"alpha_pattern"):
        read_lora(tmp_path, shapes)


def test_an_ambiguous_name_refers_to_no_layer():
    known = layer_names({"a.b_c": (1, 1), "a_b.c": (1, 1)})
    assert known["a.b_c"] != known["a_b.c"]
    assert "lora_unet_a_b_c" not in known
