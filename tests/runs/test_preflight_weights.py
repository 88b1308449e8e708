"""Laws of the dry run for files of weights: their headers tell, and every fault is told at once, with all others."""

import copy
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from danceopd_core.errors import InputError
from danceopd_core.recipe.schema import Bucket, Recipe, Route, Student, Teacher
from danceopd_core.runs.plans.preflight import preflight
from danceopd_core.weights.lora_io import write_lora

from ..loras import random_lora
from ..native_names import tiny_sd3, to_native


@pytest.fixture
def recipe(tmp_path, zimage_folder) -> Recipe:
    return Recipe(
        model=str(zimage_folder),
        routes=(Route("all", {"a": 0.5, "b": 0.5}, Bucket(prompts=("x",))),),
        teachers={"a": Teacher(), "b": Teacher()},
        out=str(tmp_path / "run"),
    )


def with_teachers(recipe, **teachers):
    return replace(recipe, teachers={**recipe.teachers, **teachers})


def faults_of(recipe) -> list[str]:
    with pytest.raises(InputError) as caught:
        preflight(recipe)
    return [str(fault) for fault in caught.value.faults]


@pytest.fixture
def weights(tmp_path):
    """Writes tensors of ones and gives the file's name."""

    def write(name, shapes, dtype=torch.float32):
        save_file({key: torch.ones(shape).to(dtype) for key, shape in shapes.items()}, tmp_path / name)
        return str(tmp_path / name)

    return write


def lora_shapes(layer="layers.0.attention.to_q", width=32):
    return {f"transformer.{layer}.lora_A.weight": (2, width), f"transformer.{layer}.lora_B.weight": (width, 2)}


def test_every_fault_of_every_kind_of_file_is_told_at_once(recipe, weights, opened_zimage):
    lokr = weights("lokr.safetensors", {"lycoris_layers_0_attention_to_q.lokr_w1": (2, 2)})
    dora = weights(
        "dora.safetensors", lora_shapes() | {"transformer.layers.0.attention.to_q.lora_magnitude_vector": (32,)}
    )
    other = weights("other.safetensors", lora_shapes("layers.7.attention.to_q"))
    wide = weights("wide.safetensors", lora_shapes(width=64))
    part = {name: tuple(tensor.shape) for name, tensor in opened_zimage.network.state_dict().items()}
    del part["cap_pad_token"]
    checkpoint = weights("checkpoint.safetensors", part)
    fp8 = weights("fp8.safetensors", {"layers.0.x.weight": (2, 2), "layers.0.x.weight_scale": (1,)})
    broken = replace(
        with_teachers(recipe, a=Teacher(lora=lokr), b=Teacher(checkpoint, lora=dora)),
        student=Student(base_lora=other),
        components={"transformer": fp8},
        width=1000,
    )
    expected = {
        "width": "1000",
        "components.transformer": "holds quantised weights",
        "student.base_lora": "match no layer of this network (transformer.layers.7",
        "teachers.a.lora": "1 belong to LoKr",
        "teachers.b.lora": "1 belong to DoRA",
        "teachers.b.checkpoint": "1 missing (cap_pad_token)",
    }
    found = dict(fault.split(": ", 1) for fault in faults_of(broken))
    assert found.keys() == expected.keys()
    for setting, part in expected.items():
        assert part in found[setting], setting
    (line,) = faults_of(replace(recipe, student=Student(start=wide)))
    assert line.startswith(
        f"student.start: {wide} cannot be used as a LoRA: 1 do not fit the network, (64, 2) times (2, 64)"
    )


@pytest.mark.parametrize("model", [None, "owner/name"])
def test_a_checkpoint_is_no_lora(recipe, tmp_path, opened_zimage, model):
    save_file(dict(opened_zimage.network.state_dict()), tmp_path / "c.safetensors")
    named = replace(recipe, model=model or recipe.model)
    (line,) = faults_of(with_teachers(named, a=Teacher(lora=str(tmp_path / "c.safetensors"))))
    assert line == f"teachers.a.lora: {tmp_path / 'c.safetensors'} holds no LoRA: it has no lora_A or lora_down weights"


def test_sound_files_pass(recipe, tmp_path, opened_zimage):
    network = opened_zimage.network
    write_lora(tmp_path / "lora.safetensors", random_lora({"layers.0.attention.to_q": (32, 32)}, 2, seed=1))
    save_file(to_native(network), tmp_path / "native.safetensors")
    copy.deepcopy(network).save_pretrained(tmp_path / "folder")
    lora, native = (str(tmp_path / name) for name in ("lora.safetensors", "native.safetensors"))
    preflight(
        replace(
            with_teachers(recipe, a=Teacher(native, lora=lora), b=Teacher(str(tmp_path / "folder"))),
            student=Student(start=lora),
            components={"transformer": native},
        )
    )


def test_files_of_another_family_are_told(recipe, tmp_path):
    save_file(to_native(tiny_sd3()), tmp_path / "sd3.safetensors")
    lines = faults_of(with_teachers(recipe, a=Teacher(str(tmp_path / "sd3.safetensors"))))
    assert len(lines) == 1
    assert lines[0].startswith(
        f"teachers.a.checkpoint: {tmp_path / 'sd3.safetensors'} is not a checkpoint of this network"
    )


def test_a_teacher_of_another_model_is_held_against_that_model(recipe, weights, tmp_path, zimage_folder):
    other = str(zimage_folder / ".." / "zimage")
    stray = weights("stray.safetensors", lora_shapes("layers.7.attention.to_q"))
    good = weights("good.safetensors", lora_shapes())
    preflight(with_teachers(recipe, a=Teacher(lora=good, model=other)))
    (line,) = faults_of(with_teachers(recipe, a=Teacher(lora=stray, model=other)))
    assert line.startswith("teachers.a.lora: ")


def test_without_the_models_configuration_kinds_are_told_all_the_same(recipe, weights):
    away = replace(recipe, model="owner/name")
    preflight(with_teachers(away, a=Teacher(lora=weights("x.safetensors", lora_shapes("any.layer")))))
    text = weights("te.safetensors", {"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (2, 2)})
    (line,) = faults_of(with_teachers(away, a=Teacher(lora=text)))
    assert "belong to a text encoder" in line
    plain = weights("plain.safetensors", {"layers.0.x.weight": (2, 2)})
    (line,) = faults_of(with_teachers(away, a=Teacher(lora=plain)))
    assert line == f"teachers.a.lora: {plain} holds no LoRA: it has no lora_A or lora_down weights"
