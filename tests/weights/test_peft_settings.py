"""The settings beside a LoRA mean what peft makes of them, or the file is refused by name."""

import copy
import json
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from danceopd_core.errors import InputError
from danceopd_core.weights.linear_like import linear_shapes
from danceopd_core.weights.lora_header import check_lora
from danceopd_core.weights.lora_io import read_lora

from ..loras import merged, random_lora

RANK = 4
FACTORS = {"target_modules": ["to_q", "to_k", "w2"], "r": RANK, "lora_alpha": 8, "init_lora_weights": False}


def saved(network, place, **more):
    """A LoRA as peft saves it, and the network as peft merges it."""
    from peft import LoraConfig, PeftModel, get_peft_model

    torch.manual_seed(0)
    get_peft_model(copy.deepcopy(network), LoraConfig(**FACTORS | more)).save_pretrained(place)
    return PeftModel.from_pretrained(copy.deepcopy(network), place).merge_and_unload().state_dict()


@pytest.mark.parametrize(
    "more",
    [
        {"rank_pattern": {"to_q": 8}, "alpha_pattern": {"layers.0.attention.to_q": 3}},
        {"rank_pattern": {"layers.0.attention.to_q": 8}, "alpha_pattern": {"to_q": 3}},
        {"alpha_pattern": {r".*\.layers\.1\..*(to_q|to_k)$": 64, r"layers\.1\..*(to_q|w2)$": 32}},
        {"alpha_pattern": {r".*\.layers\.1\..*": 64}},
        {"alpha_pattern": {"^to_q": 64, "^layers.0.attention.to_q": 3}},
        {"alpha_pattern": {"attention.to_q": 5, "layers.1.attention.to_q": 7}},
        {"alpha_pattern": {"to_q|w2": 5, "o_q": 7, "2": 9}},
        {"alpha_pattern": {"to_q": 5}, "rank_pattern": {"w2": 2}, "use_rslora": True},
        {"target_modules": r"layers\.\d+\.(attention\.to_[qkv]|feed_forward\.w[13])"},
        {"exclude_modules": ["layers.0.attention.to_q"]},
        {"exclude_modules": r".*\.0\..*"},
        {"layers_to_transform": [1], "layers_pattern": "layers"},
    ],
    ids=repr,
)
def test_patterns_are_matched_as_peft_matches_them(opened_zimage, tmp_path, more):
    network = opened_zimage.network
    theirs = saved(network, tmp_path, **more)
    ours = merged(network, read_lora(tmp_path, linear_shapes(network))).state_dict()
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, rtol=0, atol=1e-5)
    assert any(not ours[name].equal(weight) for name, weight in network.state_dict().items())


def changed(place, **settings):
    config = place / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | settings))


@pytest.mark.parametrize("key", ["alpha_pattern", "rank_pattern", "target_modules", "exclude_modules"])
def test_a_hostile_pattern_costs_no_time(opened_zimage, tmp_path, key):
    saved(opened_zimage.network, tmp_path)
    pattern = r"(([a-z]+)*_?)*\.(([a-z]+)*_?)*!"
    changed(tmp_path, **{key: {pattern: 4} if key.endswith("_pattern") else pattern})
    shapes, start = linear_shapes(opened_zimage.network), time.process_time()
    refused = ""
    try:
        read_lora(tmp_path, shapes)
    except InputError as error:
        refused = str(error)
    assert bool(refused) == (key == "target_modules")  # it matches no layer, so the settings leave all of them out
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha_pattern": {r"(?<!x)to_q": 3}}, r"alpha_pattern '\(\?<!x\)to_q' uses \(\?\.\.\.\)"),
        ({"rank_pattern": {r"(a)\1": 4}}, r"rank_pattern .* which is not read: write the names"),
        ({"target_modules": "(?i)TO_Q"}, r"target_modules .* give a list of names"),
        ({"target_modules": ["to_v"]}, r"\d+ are left out by the target_modules of the settings"),
        ({"exclude_modules": ["to_q"]}, r"are left out by the target_modules"),
        ({"layers_to_transform": [0], "layers_pattern": "layers"}, r"are left out by"),
        ({"r": 8}, r"have rank 4, and 8 in the settings that came with them"),
        ({"use_dora": True}, "is DoRA, as its settings say"),
        ({"peft_type": "LOKR"}, "is LOKR, as its settings say"),
        ({"peft_type": "LOHA"}, "is LOHA"),
        ({"lora_alpha": float("inf")}, "cannot be read"),
        ({"lora_alpha": 10**400}, "cannot be read"),
        ({"r": -3}, "cannot be read"),
        ({"rank_pattern": {"to_q": "x"}}, "cannot be read"),
        ({"alpha_pattern": [1]}, "cannot be read"),
        ({"layers_to_transform": ["a"]}, "cannot be read"),
        ({"layers_pattern": "(a+)+", "layers_to_transform": [0]}, "layers_pattern is a regular expression"),
    ],
)
def test_settings_that_cannot_be_used_are_named(opened_zimage, tmp_path, settings, message):
    saved(opened_zimage.network, tmp_path)
    changed(tmp_path, **settings)
    shapes = linear_shapes(opened_zimage.network)
    for read in (lambda: read_lora(tmp_path, shapes), lambda: check_lora(tmp_path, shapes)):
        with pytest.raises(InputError, match=message) as caught:
            read()
        assert "adapter_model.safetensors" in str(caught.value)


def alphas(found):
    """The scale that was read, of a LoRA whose factors are those of `written`."""
    return {round(float(up.norm() / written().up[name].norm()), 6) for name, up in found.up.items()}


def written():
    return random_lora({"layers.0.attention.to_q": (32, 32)}, RANK, seed=1)


@pytest.fixture
def lora(tmp_path):
    """Writes the LoRA under a name, as peft's or with bare keys."""

    def write(name, prefix="base_model.model."):
        one = written()
        tensors = {f"{prefix}{module}.lora_A.weight": down for module, down in one.down.items()}
        save_file(tensors | {f"{prefix}{m}.lora_B.weight": up for m, up in one.up.items()}, tmp_path / name)
        return tmp_path / name

    return write


SETTINGS = json.dumps({"peft_type": "LORA", "r": RANK, "lora_alpha": 2})


@pytest.mark.parametrize(
    ("weights", "config"),
    [
        ("adapter_model.safetensors", "adapter_config.json"),
        ("adapter_model.safetensors", "config.json"),
        ("my style.safetensors", "adapter_config.json"),
        ("my style.safetensors", "my style.json"),
        ("my style.safetensors", "my style_config.json"),
        ("adapter_model.safetensors", "anything.json"),
    ],
)
def test_settings_are_found_under_any_name_that_leaves_no_doubt(lora, tmp_path, opened_zimage, weights, config):
    file = lora(weights)
    (tmp_path / config).write_text(SETTINGS)
    (tmp_path / "other.json").write_text('{"civitai": 1}')
    assert alphas(read_lora(file, linear_shapes(opened_zimage.network))) == {0.5}


def test_settings_of_another_lora_are_not_taken(lora, tmp_path, opened_zimage):
    shapes = linear_shapes(opened_zimage.network)
    (tmp_path / "adapter_config.json").write_text(SETTINGS)
    file, bare = lora("b.safetensors"), lora("c.safetensors", "transformer.")
    with pytest.raises(InputError, match=r"b\.safetensors is one of several LoRAs beside one adapter_config\.json"):
        read_lora(file, shapes)
    assert alphas(read_lora(bare, shapes)) == {1.0}
    lora("adapter_model.safetensors")  # whose settings they are
    assert alphas(read_lora(file, shapes)) == {1.0}
    assert alphas(read_lora(tmp_path / "adapter_model.safetensors", shapes)) == {0.5}
    (tmp_path / "b.json").write_text(SETTINGS)
    assert alphas(read_lora(file, shapes)) == {0.5}


def test_two_settings_beside_one_lora_are_refused(lora, tmp_path, opened_zimage):
    file = lora("a.safetensors")
    for name in ("x.json", "y.json"):
        (tmp_path / name).write_text(SETTINGS)
    with pytest.raises(InputError, match=r"several LoRA settings beside it \(x\.json, y\.json\)"):
        read_lora(file, linear_shapes(opened_zimage.network))


def test_of_a_lora_and_its_copy_in_half_precision_the_lora_is_read(lora, tmp_path, opened_zimage):
    file = lora("pytorch_lora_weights.safetensors", "transformer.")
    halves = {key: tensor.half() for key, tensor in load_file(file).items()}
    save_file(halves, tmp_path / "pytorch_lora_weights.fp16.safetensors")
    found = read_lora(tmp_path, linear_shapes(opened_zimage.network))
    assert all(found.up[module].equal(up) for module, up in written().up.items())
    file.unlink()
    read_lora(tmp_path, linear_shapes(opened_zimage.network))
