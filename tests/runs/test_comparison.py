"""The column of stacked LoRAs in a comparison: their exact sum on the base model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from danceopd_core.data.csv_rows import Item
from danceopd_core.recipe.graph import FieldSpec, ModelSpec, PromptSpec, RouteSpec, RoutesSpec
from danceopd_core.recipe.schema import Bucket, Teacher
from danceopd_core.runs.pictures.comparison import comparison_stacks
from danceopd_core.runs.pictures.field_sampling import SamplingSettings, sample_fields
from danceopd_core.weights.linear_like import linear_shapes
from danceopd_core.weights.lora import stacked
from danceopd_core.weights.lora_io import write_lora

from ..loras import random_lora

SETTINGS = SamplingSettings(2, 32, 32, 0, "cpu")
ITEMS = [Item("a red cat")]


class Quiet:
    cancelled = KeyboardInterrupt

    def check(self) -> None: ...
    def progress(self, value, total) -> None: ...
    def preparing(self, done, total) -> None: ...
    def memory_mb(self) -> float:
        return 0.0


def routes(model: ModelSpec, *teachers: Teacher) -> RoutesSpec:
    prompts = PromptSpec(Bucket(prompts=("a",)), "prompts")
    return RoutesSpec(tuple(RouteSpec(FieldSpec(model, "one", ((teacher, 1.0),)), prompts) for teacher in teachers))


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_stack_is_the_sum_of_the_loras_at_their_strengths(zimage_folder, opened_zimage, tmp_path, guidance):
    one, two = (random_lora(linear_shapes(opened_zimage.network), 3, seed) for seed in (1, 2))
    halved = replace(two, scale=0.5)
    for name, lora in {"one": one, "two": two, "sum": stacked(one, halved)}.items():
        write_lora(tmp_path / f"{name}.safetensors", lora)
    teachers = [
        Teacher(lora=str(tmp_path / "one.safetensors"), guidance=guidance),
        Teacher(lora=str(tmp_path / "two.safetensors"), strength=0.5, guidance=guidance),
    ]
    model = ModelSpec(str(zimage_folder), "float32")
    stacks = comparison_stacks(routes(model, *teachers))
    both = FieldSpec(model, "sum", ((Teacher(lora=str(tmp_path / "sum.safetensors"), guidance=guidance), 1.0),))
    fields = {"sum": both, "first": FieldSpec(model, "first", ((teachers[0], 1.0),))}
    images = sample_fields(model, fields, ITEMS, SETTINGS, Quiet(), stacks)
    assert list(images) == ["sum", "first", "stacked"]
    assert torch.allclose(images["stacked"], images["sum"], atol=1e-4)
    assert not torch.allclose(images["stacked"], images["first"], atol=1e-3)


def test_only_loras_on_the_routes_model_are_stacked():
    model = ModelSpec("folder", "float32")
    one, two = Teacher(lora="one"), Teacher(lora="two")
    guided_again = Teacher(lora="one", guidance=4)
    assert comparison_stacks(routes(model, one, two, Teacher())) == {"stacked": [one, two]}
    for others in ([Teacher()], [guided_again], [Teacher(lora="two", model="other")], [Teacher("full", lora="two")]):
        assert comparison_stacks(routes(model, one, *others)) == {}
