"""Opening a run is never its peak: encoders first, then the transformer; checkpoints go where they wait."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from danceopd_core.errors import InputError
from danceopd_core.models.base import DiffusersBackbone
from danceopd_core.recipe.schema import Bucket, Recipe, Route, Student, Teacher
from danceopd_core.runs.plans import opening
from danceopd_core.runs.training.session import open_session
from danceopd_core.weights.full_checkpoints import load_full_checkpoint
from danceopd_core.weights.linear_like import linear_shapes
from danceopd_core.weights.lora import fresh_lora
from danceopd_core.weights.lora_io import write_lora

from ..tiny import save_twin


@pytest.fixture
def recipe(zimage_folder) -> Recipe:
    return Recipe(
        str(zimage_folder),
        (Route("a", "base", Bucket(prompts=("a red cat",))),),
        {"base": Teacher(guidance=2.0)},
        student=Student(rank=2),
        steps=1,
        accumulate=1,
        rollout_steps=2,
        width=32,
        height=32,
        dtype="float32",
        device="cpu",
    )


class Seen(NamedTuple):
    """What was asked, and whether the network had weights then."""

    what: str
    loaded: bool


@pytest.fixture
def seen(monkeypatch) -> list[Seen]:
    found: list[Seen] = []
    for name in ("encode", "offload_encoders"):
        original = getattr(DiffusersBackbone, name)

        def noted(self, *arguments, original=original, name=name):
            found.append(Seen(name, not next(self.network.parameters()).is_meta))
            return original(self, *arguments)

        monkeypatch.setattr(DiffusersBackbone, name, noted)
    return found


def test_prompts_are_encoded_and_encoders_sent_away_before_the_transformer_is_loaded(recipe, seen, tmp_path):
    twin = save_twin(tmp_path / "twin", Path(recipe.model))
    both = {"base": Teacher(guidance=2.0), "other": Teacher(model=str(twin))}
    routes = (Route("a", {"base": 0.5, "other": 0.5}, Bucket(prompts=("a red cat",))),)
    opened = open_session(replace(recipe, teachers=both, routes=routes))
    assert [one.what for one in seen] == ["encode", "encode", "offload_encoders", "offload_encoders"]
    assert not any(one.loaded for one in seen)
    assert not any(p.is_meta for p in opened.backbone.network.parameters())
    assert next(iter(opened.trainer)).update == 1


def test_a_lora_of_another_model_is_refused_before_a_prompt_is_encoded(recipe, seen, opened_zimage, tmp_path):
    shapes = {name: (out + 1, into) for name, (out, into) in linear_shapes(opened_zimage.network).items()}
    write_lora(tmp_path / "odd.safetensors", fresh_lora(shapes, 2, 2, ("to_q",), torch.Generator()))
    teachers = {"base": Teacher(lora=str(tmp_path / "odd.safetensors"))}
    with pytest.raises(InputError, match=r"teachers\.base\.lora"):
        open_session(replace(recipe, teachers=teachers))
    assert not seen


def test_an_unreadable_transformer_is_refused_before_a_prompt_is_encoded(recipe, seen, zimage_folder, tmp_path):
    shutil.copytree(zimage_folder, tmp_path / "model")
    for file in (tmp_path / "model" / "transformer").glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError):
        open_session(replace(recipe, model=str(tmp_path / "model")))
    assert not seen


def test_a_lora_that_several_teachers_share_is_read_once(recipe, opened_zimage, tmp_path, monkeypatch):
    write_lora(
        tmp_path / "one.safetensors",
        fresh_lora(linear_shapes(opened_zimage.network), 2, 2, ("to_q",), torch.Generator()),
    )
    read = []
    original = opening.FileWeights.read_lora

    def noted(self, name, backbone, shapes):
        read.append(name)
        return original(self, name, backbone, shapes)

    monkeypatch.setattr(opening.FileWeights, "read_lora", noted)
    name = str(tmp_path / "one.safetensors")
    teachers = {"base": Teacher(lora=name), "other": Teacher(lora=name, strength=0.5)}
    routes = (Route("a", {"base": 0.5, "other": 0.5}, Bucket(prompts=("a",))),)
    open_session(replace(recipe, teachers=teachers, routes=routes, student=Student(name)))
    assert read == [name]


def test_changed_weights_go_to_the_place_where_they_wait(opened_zimage, tmp_path):
    from safetensors.torch import save_file

    state = opened_zimage.network.state_dict()
    changed = next(iter(state))
    save_file({**state, changed: 2 * state[changed] + 1}, tmp_path / "full.safetensors")
    teacher = load_full_checkpoint(opened_zimage.network, tmp_path / "full.safetensors", "meta")
    there = {name for name, tensor in teacher.state_dict().items() if tensor.is_meta}
    assert there == {changed}


def test_the_log_says_what_is_loaded_when(recipe):
    told: list[str] = []
    open_session(recipe, log=told.append)
    *steps, held_out = told
    assert steps == ["opening the model", "encoding the bucket of 'a'", "loading the transformer"]
    assert held_out.startswith("a: validations measure on prompts that are trained too")


def test_a_base_in_float16_scales_its_loss(recipe):
    assert open_session(replace(recipe, dtype="float16")).trainer.loss_scale == 2.0**16
    assert open_session(recipe).trainer.loss_scale == 1
