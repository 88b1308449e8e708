"""A LoRA file is read whole or refused, and what is written is what diffusers reads."""

import copy
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from danceopd_core.errors import InputError
from danceopd_core.models.registry import FAMILIES
from danceopd_core.weights.adapters import Adapters
from danceopd_core.weights.linear_like import linear_shapes
from danceopd_core.weights.lora import Lora
from danceopd_core.weights.lora_io import lora_metadata, read_lora, write_lora

from ..loras import query, random_lora
from ..native_names import sd3_velocity, tiny_sd3

SCALE = 0.5  # of every file below: alpha is half the rank, 4


@pytest.fixture(scope="module")
def shapes(opened_zimage):
    return linear_shapes(opened_zimage.network)


@pytest.fixture(scope="module")
def lora(shapes):
    return random_lora(shapes, 4, seed=1, scale=SCALE)


def tensors_of(lora, prefix="", names=("lora_A", "lora_B"), alpha=False):
    """The factors as a file holds them, with alpha beside them or nowhere."""
    tensors = {}
    for module, down in lora.down.items():
        tensors[f"{prefix}{module}.{names[0]}.weight"] = down
        tensors[f"{prefix}{module}.{names[1]}.weight"] = lora.up[module]
        if alpha:
            tensors[f"{prefix}{module}.alpha"] = torch.tensor(2.0)
    return tensors


def assert_same(found: Lora, expected: Lora):
    assert found.down.keys() == expected.down.keys()
    for module, up in expected.folded().up.items():
        assert found.down[module].equal(expected.down[module])
        torch.testing.assert_close(found.scale * found.up[module], up, rtol=1e-6, atol=0)


@pytest.mark.parametrize("prefix", ["", "transformer.", "diffusion_model.", "base_model.model."])
@pytest.mark.parametrize(
    "names", [("lora_A", "lora_B"), ("lora_down", "lora_up"), ("lora_A.default", "lora_B.default")]
)
def test_every_layout_in_use_is_read(tmp_path, shapes, lora, prefix, names):
    save_file(tensors_of(lora, prefix, names, alpha=True), tmp_path / "a.safetensors")
    assert_same(read_lora(tmp_path / "a.safetensors", shapes), lora)


def test_without_alpha_the_scale_is_one(tmp_path, shapes, lora):
    save_file(tensors_of(lora), tmp_path / "a.safetensors")
    assert_same(read_lora(tmp_path / "a.safetensors", shapes), Lora(lora.down, lora.up))


def test_the_alpha_of_a_diffusers_file_is_read_from_its_metadata(tmp_path, shapes, lora):
    from diffusers import ZImagePipeline

    ZImagePipeline.save_lora_weights(
        tmp_path,
        transformer_lora_layers=tensors_of(lora),
        transformer_lora_adapter_metadata={"r": 4, "lora_alpha": 2, "alpha_pattern": {}},
    )
    assert_same(read_lora(tmp_path, shapes), lora)


def test_the_alpha_of_a_peft_folder_is_read_from_its_config(tmp_path, shapes, lora):
    special = next(iter(lora.down))
    settings = {"r": 4, "lora_alpha": 4, "use_rslora": True, "alpha_pattern": {special: 6}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    save_file(tensors_of(lora, "base_model.model."), tmp_path / "adapter_model.safetensors")
    found = read_lora(tmp_path, shapes)
    for module, up in lora.up.items():
        torch.testing.assert_close(found.up[module], up * (3.0 if module == special else 2.0))


def test_a_written_student_is_read_by_diffusers_with_the_same_velocity(tmp_path, zimage, opened_zimage):
    from diffusers import ZImagePipeline

    adapters = Adapters(zimage.network)
    adapters.start_student(random_lora(adapters.shapes, 4, seed=1, targets=("to_q", "w2"), scale=0.3))
    write_lora(tmp_path / "student.safetensors", adapters.student(), {"modelspec.title": "mine"})
    pipe = ZImagePipeline(
        scheduler=copy.deepcopy(opened_zimage.scheduler),
        vae=opened_zimage.vae.module,
        text_encoder=opened_zimage.text_encoder,
        tokenizer=opened_zimage.tokenizer,
        transformer=copy.deepcopy(opened_zimage.network),
    )
    x, sigma, cond = query(zimage)
    with torch.no_grad():
        bare = zimage.with_network(pipe.transformer).velocity(x, sigma, cond)
        pipe.load_lora_weights(str(tmp_path), weight_name="student.safetensors", adapter_name="ours")
        theirs = zimage.with_network(pipe.transformer).velocity(x, sigma, cond)
        ours = zimage.velocity(x, sigma, cond)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert (ours - bare).abs().max() > 0.01


def test_a_student_of_stable_diffusion_3_is_read_by_diffusers_with_the_same_velocity(tmp_path):
    from diffusers import StableDiffusion3Pipeline

    network = tiny_sd3()
    adapters = Adapters(copy.deepcopy(network))
    targets = FAMILIES["sd3"].targets
    adapters.start_student(random_lora(adapters.shapes, 4, seed=1, targets=targets, scale=0.3))
    write_lora(tmp_path / "student.safetensors", adapters.student())
    parts = ("scheduler", "vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "text_encoder_3")
    pipe = StableDiffusion3Pipeline(transformer=network, **dict.fromkeys((*parts, "tokenizer_3")))
    bare = sd3_velocity(pipe.transformer)
    pipe.load_lora_weights(str(tmp_path), weight_name="student.safetensors", adapter_name="ours")
    ours = sd3_velocity(adapters.network)
    torch.testing.assert_close(ours, sd3_velocity(pipe.transformer), rtol=0, atol=1e-5)
    assert (ours - bare).abs().max() > 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_file_is_written_in_the_given_dtype_and_read_again(tmp_path, shapes, lora, dtype):
    write_lora(tmp_path / "new" / "a.safetensors", lora, dtype=dtype)
    written = load_file(tmp_path / "new" / "a.safetensors")
    assert {tensor.dtype for tensor in written.values()} == {dtype}
    assert all(key.startswith("transformer.") for key in written)
    found = read_lora(tmp_path / "new" / "a.safetensors", shapes)
    for module, up in lora.folded().up.items():
        assert found.up[module].equal(up.to(dtype).float())
        assert found.down[module].equal(lora.down[module].to(dtype).float())


def test_what_managers_read_is_in_the_metadata(tmp_path, lora):
    metadata = lora_metadata(
        lora,
        family="zimage",
        title="Mine",
        date="2026-01-02",
        steps=300,
        learning_rate=2e-4,
        extra={"routes": [1]},
    )
    write_lora(tmp_path / "a.safetensors", lora, metadata)
    with safe_open(tmp_path / "a.safetensors", "pt") as handle:
        found = handle.metadata()
    assert found["modelspec.title"] == "Mine"
    assert found["modelspec.architecture"] == "zimage/lora"
    assert (found["ss_network_dim"], found["ss_network_alpha"]) == ("4", "4")
    assert (found["ss_steps"], found["ss_learning_rate"]) == ("300", "0.0002")
    assert json.loads(found["danceopd"]) == {"routes": [1]}
    assert "modelspec.author" not in found


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, shapes, lora):
    file = tmp_path / "a.safetensors"
    write_lora(file, lora)
    before = file.read_bytes()
    large = Lora(lora.down, {module: up + 1e6 for module, up in lora.up.items()})
    with pytest.raises(InputError, match=r"a\.safetensors is not written.*float32"):
        write_lora(file, large, dtype=torch.float16)
    with pytest.raises(Exception, match=r"(?i)str"):
        write_lora(file, lora, {"steps": 3})  # type: ignore[dict-item]
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def first(tensors, end):
    return next(key for key in tensors if key.endswith(end))


def drop(tensors):
    del tensors[first(tensors, "lora_A.weight")]


def stray(tensors):
    tensors["layers.99.attention.to_q.lora_A.weight"] = torch.zeros(4, 32)


def text_encoder(tensors):
    tensors["text_encoder.layers.0.self_attn.q_proj.lora_A.weight"] = torch.zeros(4, 32)


def dora(tensors):
    tensors[first(tensors, "lora_A.weight").replace("lora_A.weight", "lora_magnitude_vector")] = torch.zeros(32)


def narrow(tensors):
    key = first(tensors, "lora_A.weight")
    tensors[key] = tensors[key][:, :-1].clone()


def other_rank(tensors):
    key = first(tensors, "lora_A.weight")
    tensors[key] = tensors[key][:-1].clone()


def nan(tensors):
    tensors[first(tensors, "lora_B.weight")][0, 0] = float("nan")


def infinite_alpha(tensors):
    tensors[first(tensors, "lora_A.weight").replace("lora_A.weight", "alpha")] = torch.tensor(float("inf"))


def integers(tensors):
    key = first(tensors, "lora_B.weight")
    tensors[key] = tensors[key].to(torch.int8)


def twice(tensors):
    key = first(tensors, "lora_A.weight")
    tensors[f"transformer.{key}"] = tensors[key].clone()


def vector_alpha(tensors):
    tensors[first(tensors, "lora_A.weight").replace("lora_A.weight", "alpha")] = torch.ones(2)


def empty(tensors):
    tensors.clear()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop, r"1 lack one of their two factors \(.*to_"),
        (stray, r"1 match no layer of this network \(layers\.99"),
        (text_encoder, r"1 belong to a text encoder, .*\(text_encoder.*without text-encoder weights"),
        (dora, r"1 belong to DoRA, .*\(.*magnitude"),
        (narrow, r"do not fit the network, \(32, 4\) times \(4, 31\) for a layer of \(32, 32\)"),
        (other_rank, r"do not multiply, \(32, 4\) times \(3, 32\)"),
        (nan, r"1 hold NaN"),
        (infinite_alpha, r"1 hold NaN, infinity"),
        (integers, r"no real numbers"),
        (twice, r"repeat another key"),
        (vector_alpha, r"alpha that is not a number"),
        (empty, r"it is empty"),
    ],
)
def test_a_damaged_file_is_refused_by_name_and_fault(tmp_path, shapes, lora, damage, message):
    tensors = {key: tensor.clone() for key, tensor in tensors_of(lora).items()}
    damage(tensors)
    save_file(tensors, tmp_path / "damaged.safetensors")
    with pytest.raises(InputError, match=r"damaged\.safetensors cannot be used as a LoRA: .*" + message):
        read_lora(tmp_path / "damaged.safetensors", shapes)


def test_all_strays_are_counted_and_the_first_three_named(tmp_path, shapes, lora):
    save_file(tensors_of(lora, "other."), tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"32 match no layer of this network \(other\.[^,]+, [^,]+, [^,]+ and 29 more"):
        read_lora(tmp_path / "a.safetensors", shapes)


@pytest.mark.parametrize("content", [b"", b"not a model", None])
def test_an_unreadable_file_is_refused_by_name(tmp_path, shapes, lora, content):
    file = tmp_path / "a.safetensors"
    write_lora(file, lora)
    file.write_bytes(file.read_bytes()[:-7] if content is None else content)
    with pytest.raises(InputError, match=r"a\.safetensors is not a readable safetensors file"):
        read_lora(file, shapes)


def test_a_missing_file_and_an_ambiguous_folder_are_refused(tmp_path, shapes, lora):
    with pytest.raises(InputError, match=r"none\.safetensors does not exist"):
        read_lora(tmp_path / "none.safetensors", shapes)
    with pytest.raises(InputError, match=r"0 safetensors files"):
        read_lora(tmp_path, shapes)
    for name in "ab":
        write_lora(tmp_path / f"{name}.safetensors", lora)
    with pytest.raises(InputError, match=r"2 safetensors files \(a\.safetensors, b\.safetensors\)"):
        read_lora(tmp_path, shapes)


@pytest.mark.parametrize("text", ["{", "[]", '{"lora_alpha": null}'])
def test_unreadable_settings_are_refused(tmp_path, shapes, lora, text):
    save_file(tensors_of(lora), tmp_path / "a.safetensors", metadata={"lora_adapter_metadata": text})
    with pytest.raises(InputError, match=r"settings that came with .*a\.safetensors"):
        read_lora(tmp_path / "a.safetensors", shapes)
