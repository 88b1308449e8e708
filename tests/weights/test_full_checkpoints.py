"""A full checkpoint is a network of its own, read whole or refused."""

import copy

import pytest
import torch
from safetensors.torch import save_file

from danceopd_core.errors import InputError
from danceopd_core.weights.adapters import Adapters
from danceopd_core.weights.full_checkpoints import load_full_checkpoint

from ..loras import query, random_lora
from ..tiny import randomize
from ..versions import needs_diffusers


@pytest.fixture(scope="module")
def other(opened_zimage):
    """A fine-tune that leaves the first block as it was."""
    network = randomize(copy.deepcopy(opened_zimage.network), seed=9)
    network.layers[0].load_state_dict(opened_zimage.network.layers[0].state_dict())
    return network


def assert_is(teacher, other, zimage):
    x, sigma, cond = query(zimage)
    with torch.no_grad():
        expected = zimage.with_network(other).velocity(x, sigma, cond)
        assert zimage.with_network(teacher).velocity(x, sigma, cond).equal(expected)


@pytest.mark.parametrize(
    "prefix", ["", "model.diffusion_model.", "diffusion_model.", "transformer.", "model.", "module."]
)
def test_a_file_is_read_whatever_wraps_its_names(tmp_path, zimage, other, prefix):
    tensors = {prefix + name: tensor for name, tensor in other.state_dict().items()}
    save_file(tensors, tmp_path / "a.safetensors")
    assert_is(load_full_checkpoint(zimage.network, tmp_path / "a.safetensors"), other, zimage)


@pytest.mark.parametrize("size", ["1GB", "60KB"])
@pytest.mark.parametrize("folder", ["", "transformer"])
def test_a_diffusers_folder_is_read_with_all_its_shards(tmp_path, zimage, other, size, folder):
    other.save_pretrained(tmp_path / folder, max_shard_size=size)
    assert (len(list((tmp_path / folder).glob("*.safetensors"))) > 1) == (size == "60KB")
    assert_is(load_full_checkpoint(zimage.network, tmp_path), other, zimage)


def test_the_teacher_is_frozen_shares_what_is_unchanged_and_moves_alone(tmp_path, zimage, opened_zimage, other):
    other.save_pretrained(tmp_path)
    teacher = load_full_checkpoint(zimage.network, tmp_path)
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
    base = dict(zimage.network.named_parameters())
    shared = {name for name, p in teacher.named_parameters() if p.data_ptr() == base[name].data_ptr()}
    assert shared == {name for name in base if name.startswith("layers.0.")}
    teacher.to(torch.float64)
    for name, p in zimage.network.named_parameters():
        assert p.dtype == torch.float32
        assert p.equal(opened_zimage.network.get_parameter(name))


def test_a_float32_checkpoint_is_a_teacher_of_a_half_precision_network(tmp_path, zimage, other):
    other.save_pretrained(tmp_path)
    teacher = load_full_checkpoint(zimage.network.bfloat16(), tmp_path)
    for name, p in other.named_parameters():
        assert teacher.get_parameter(name).equal(p.bfloat16())


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "transformer."])
def test_the_parts_of_a_whole_model_are_passed_over_whatever_they_hold(tmp_path, zimage, other, prefix):
    tensors = {prefix + name: tensor for name, tensor in other.state_dict().items()}
    beside = ("vae.decoder.x", "text_encoders.qwen.x", "first_stage_model.x", "cond_stage_model.x", "model_ema.decay")
    tensors |= {name: torch.full((2,), float("nan")) for name in beside}
    tensors |= {"text_encoders.spiece_model": torch.zeros(3, dtype=torch.uint8)}
    save_file(tensors, tmp_path / "a.safetensors")
    assert_is(load_full_checkpoint(zimage.network, tmp_path / "a.safetensors"), other, zimage)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module._orig_mod.", "model.diffusion_model._orig_mod."])
def test_a_compiled_network_is_the_network(tmp_path, zimage, other, prefix):
    tensors = {prefix + name: tensor for name, tensor in other.state_dict().items()}
    save_file(tensors, tmp_path / "a.safetensors")
    assert_is(load_full_checkpoint(zimage.network, tmp_path / "a.safetensors"), other, zimage)


def test_of_a_file_and_its_copy_in_half_precision_the_file_is_read(tmp_path, zimage, other):
    other.save_pretrained(tmp_path)
    half = copy.deepcopy(other).half()
    half.save_pretrained(tmp_path, variant="fp16")
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    assert_is(load_full_checkpoint(zimage.network, tmp_path), other, zimage)
    (tmp_path / "diffusion_pytorch_model.safetensors").unlink()
    assert_is(load_full_checkpoint(zimage.network, tmp_path), half.float(), zimage)


def test_shards_in_half_precision_are_read_by_their_own_index(tmp_path, zimage, other):
    half = copy.deepcopy(other).half()
    half.save_pretrained(tmp_path, max_shard_size="60KB", variant="fp16")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert_is(load_full_checkpoint(zimage.network, tmp_path), half.float(), zimage)


@needs_diffusers("0.37")
def test_the_mark_of_sources_at_time_zero_is_held_against_the_configuration(tmp_path):
    from diffusers import QwenImageTransformer2DModel

    def network(zero):
        made = QwenImageTransformer2DModel(
            patch_size=2, in_channels=16, out_channels=4, num_layers=1, attention_head_dim=32, num_attention_heads=1,
            joint_attention_dim=16, axes_dims_rope=(8, 12, 12), zero_cond_t=zero,
        )  # fmt: skip
        return randomize(made, seed=1)

    name = "model.diffusion_model.{}".format
    tensors = {name(key): tensor for key, tensor in network(True).state_dict().items()}
    save_file(tensors | {name("__index_timestep_zero__"): torch.zeros(0)}, tmp_path / "a.safetensors")
    loaded = load_full_checkpoint(network(True), tmp_path / "a.safetensors").state_dict()
    assert all(loaded[key].equal(tensors[name(key)]) for key in loaded)
    with pytest.raises(InputError, match=r"a\.safetensors is of a model that takes source pictures at time zero"):
        load_full_checkpoint(network(False), tmp_path / "a.safetensors")
    save_file(tensors | {name("__other__"): torch.zeros(0)}, tmp_path / "b.safetensors")
    with pytest.raises(InputError, match=r"1 unknown \(model\.diffusion_model\.__other__\)"):
        load_full_checkpoint(network(True), tmp_path / "b.safetensors")


def drop(tensors):
    del tensors["cap_pad_token"]


def add(tensors):
    tensors["extra.decoder.weight"] = torch.zeros(3)


def reshape(tensors):
    tensors["cap_pad_token"] = torch.zeros(1, 31)


def nan(tensors):
    tensors["cap_pad_token"] = torch.full((1, 32), float("nan"))


def rename(tensors):
    for name in list(tensors):
        tensors["net." + name] = tensors.pop(name)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop, r"expected (\d+) weights, found \d+; 1 missing \(cap_pad_token\)"),
        (add, r"1 unknown \(extra\.decoder\.weight\)"),
        (reshape, r"1 of another shape \(cap_pad_token: \(1, 31\) for \(1, 32\)\)"),
        (nan, r"cap_pad_token holds NaN"),
        (rename, r"missing \(.* more\); \d+ unknown \(net\."),
    ],
)
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_a_checkpoint_that_is_not_of_this_network_is_refused(tmp_path, zimage, other, damage, message, prefix):
    tensors = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    damage(tensors)
    if damage is not add:
        tensors = {prefix + name: tensor for name, tensor in tensors.items()}
    save_file(tensors, tmp_path / "damaged.safetensors")
    with pytest.raises(InputError, match=r"damaged\.safetensors .*" + message.replace(r"\(net", r"\(.*net")):
        load_full_checkpoint(zimage.network, tmp_path / "damaged.safetensors")


def test_a_missing_shard_a_truncated_file_and_an_empty_folder_are_refused(tmp_path, zimage, other):
    with pytest.raises(InputError, match=r"0 safetensors files"):
        load_full_checkpoint(zimage.network, tmp_path)
    other.save_pretrained(tmp_path, max_shard_size="60KB")
    shard = sorted(tmp_path.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-5])
    with pytest.raises(InputError, match=shard.name):
        load_full_checkpoint(zimage.network, tmp_path)
    shard.unlink()
    with pytest.raises(InputError, match=shard.name):
        load_full_checkpoint(zimage.network, tmp_path)
    next(tmp_path.glob("*.index.json")).write_text("{}")
    with pytest.raises(InputError, match=r"no index of shards"):
        load_full_checkpoint(zimage.network, tmp_path)


def test_a_network_with_adapters_is_refused(tmp_path, zimage, other):
    adapters = Adapters(zimage.network)
    adapters.add_teacher(random_lora(adapters.shapes, 4, seed=1))
    with pytest.raises(ValueError, match=r"before they are injected"):
        load_full_checkpoint(zimage.network, tmp_path)
