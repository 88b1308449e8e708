"""Planned memory is what the opened parts hold."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from danceopd_core.cli.parser import main
from danceopd_core.errors import InputError
from danceopd_core.recipe.io import write_recipe
from danceopd_core.recipe.schema import Bucket, Optimizer, Recipe, Route, Student, Teacher
from danceopd_core.runs.memory import planned_memory
from danceopd_core.runs.released import RELEASED
from danceopd_core.weights.linear_like import linear_shapes
from danceopd_core.weights.lora import fresh_lora
from danceopd_core.weights.lora_io import write_lora


def elements(module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.fixture
def recipe(zimage_folder, opened_zimage, tmp_path) -> Recipe:
    shapes = linear_shapes(opened_zimage.network)
    lora = fresh_lora(shapes, 3, 3, opened_zimage.default_targets, torch.Generator())
    write_lora(tmp_path / "lora.safetensors", lora)
    save_file(opened_zimage.network.state_dict(), tmp_path / "full.safetensors")
    full = Teacher(checkpoint=str(tmp_path / "full.safetensors"))
    return Recipe(
        str(zimage_folder),
        (Route("a", "one", Bucket(prompts=("a",))),),
        {"one": full, "two": full, "three": Teacher(lora=str(tmp_path / "lora.safetensors"))},
        student=Student(rank=3),
        dtype="bfloat16",
    )


def test_it_counts_what_is_opened(recipe, opened_zimage, tmp_path):
    found, base = planned_memory(recipe), elements(opened_zimage.network)
    assert found.base == 2 * base
    assert found.checkpoints == 2 * found.base
    assert found.waiting == 0
    assert found.encoders == 2 * (elements(opened_zimage.text_encoder) + elements(opened_zimage.vae.module))
    assert found.student == 8 * found.loras  # weights, gradient, two moments: 16 bytes for 2
    started = replace(recipe, student=Student(str(tmp_path / "lora.safetensors")), optimizer=Optimizer(ema=0.9))
    assert planned_memory(started).student == 10 * found.loras


def test_offloaded_checkpoints_wait_and_one_is_on_the_device(recipe):
    found, stay = planned_memory(replace(recipe, offload=True)), planned_memory(recipe)
    assert found.waiting == stay.checkpoints == 2 * found.checkpoints
    assert stay.device - found.device == found.base


def test_the_command_reads_a_recipe_and_refuses_what_is_not_there(recipe, tmp_path, capsys):
    write_recipe(tmp_path / "recipe.yaml", recipe)
    assert main(["memory", str(tmp_path / "recipe.yaml"), "offload=true"]) == 0
    assert "GiB  on the device in training" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"model_index\.json"):
        planned_memory(replace(recipe, model=str(tmp_path)))


def test_the_table_of_a_released_model_is_what_a_recipe_would_be_told(recipe, tmp_path, capsys):
    network = RELEASED["sd35m"].network()
    network.save_config(tmp_path / "model" / "transformer")
    index = {"_class_name": "StableDiffusion3Pipeline", "transformer": ["diffusers", "SD3Transformer2DModel"]}
    (tmp_path / "model" / "model_index.json").write_text(json.dumps(index))
    assert sum(t.numel() for t in network.state_dict().values()) == 2_469_663_936  # 4.94 GB of bfloat16
    assert main(["memory", "--like", "sd35m"]) == 0
    rows = {row.split(" | ")[0]: row.split(" | ")[1:] for row in capsys.readouterr().out.splitlines()}
    for column, quantise in enumerate((None, "int8", "nf4")):
        plan = replace(recipe, model=str(tmp_path / "model"), teachers={}, student=Student(rank=128), quantise=quantise)
        found = planned_memory(plan)
        size = found.device + 2 * found.student // 8  # two teachers of half precision
        assert rows["| two LoRA teachers, rank 128"][column] == f"{size / 2**30:.1f}"


def test_memory_wants_a_recipe_or_a_released_model(tmp_path, capsys):
    assert main(["memory"]) == 2
    assert main(["memory", str(tmp_path / "r.yaml"), "--like", "zimage"]) == 2
    assert main(["memory", "--like", "zimag"]) == 2
    assert "did you mean 'zimage'?" in capsys.readouterr().err
