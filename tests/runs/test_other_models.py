"""Laws of teachers with a base model of their own: they answer as at home, and only in the same latent space."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from danceopd_core.algorithm.fields import Conditioning, mixed
from danceopd_core.data.csv_rows import Item
from danceopd_core.errors import InputError
from danceopd_core.recipe.graph import FieldSpec, ModelSpec
from danceopd_core.recipe.schema import Bucket, LearnedRouter, Recipe, Route, Student, Teacher
from danceopd_core.runs.budget.memory import planned_memory
from danceopd_core.runs.pictures.field_sampling import SamplingSettings, sample_fields
from danceopd_core.runs.plans.preflight import preflight
from danceopd_core.runs.training.session import TrainingSession, open_session
from danceopd_core.weights.linear_like import linear_shapes
from danceopd_core.weights.lora_io import write_lora

from ..loras import random_lora
from ..tiny import save_twin, save_zimage
from ..tiny_families import save_sd3


@pytest.fixture(scope="module")
def twin(zimage_folder, tmp_path_factory) -> Path:
    return save_twin(tmp_path_factory.mktemp("twin") / "twin", zimage_folder)


@pytest.fixture(scope="module")
def files(opened_zimage, tmp_path_factory) -> Path:
    """lora.safetensors, and edits.csv with one picture."""
    folder = tmp_path_factory.mktemp("files")
    write_lora(folder / "lora.safetensors", random_lora(linear_shapes(opened_zimage.network), 3, 1))
    Image.new("RGB", (32, 32), (200, 30, 60)).save(folder / "a.png")
    (folder / "edits.csv").write_text("prompt,source_image\nmake it blue,a.png\n", encoding="utf-8")
    return folder


@pytest.fixture
def recipe(zimage_folder, twin, files, tmp_path) -> Recipe:
    """Routes of own teachers, of another model's, and of both."""
    lora = str(files / "lora.safetensors")
    return Recipe(
        model=str(zimage_folder),
        teachers={
            "own": Teacher(guidance=2.0, negative="dull"),
            "other": Teacher(lora=lora, strength=0.7, guidance=3.0, negative="bad", model=str(twin)),
            "plain": Teacher(model=str(twin)),
        },
        routes=(
            Route("edits", "other", Bucket(csv=str(files / "edits.csv"))),
            Route("text", "own", Bucket(prompts=("a red cat", "a dog"))),
            Route("both", {"own": 0.25, "other": 0.5, "plain": 0.25}, Bucket(prompts=("a blue fish",))),
        ),
        student=Student(rank=2),
        router="all",
        steps=2,
        accumulate=1,
        rollout_steps=2,
        width=32,
        height=32,
        dtype="float32",
        device="cpu",
        out=str(tmp_path / "run"),
    )


def at_home(recipe: Recipe, twin: Path) -> TrainingSession:
    """The other model's teachers as the run's own, over that model."""
    teachers = {name: replace(recipe.teachers[name], model=None) for name in ("other", "plain")}
    routes = (recipe.routes[0], Route("both", {"other": 0.5, "plain": 0.5}, recipe.routes[2].bucket))
    return open_session(replace(recipe, model=str(twin), teachers=teachers, routes=routes))


def test_a_teacher_of_another_model_is_that_teacher_at_home_to_the_bit(recipe, twin):
    session, home = open_session(recipe), at_home(recipe, twin)
    x, sigma = torch.randn(1, 16, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0.7])
    edits, _, both = (route.samples for route in session.trainer.routes)
    edits_at_home, both_at_home = (route.samples for route in home.trainer.routes)
    for name, cond, cond_at_home in (
        ("other", edits, edits_at_home),
        ("other", both, both_at_home),
        ("plain", both, both_at_home),
    ):
        assert torch.equal(session.fields[name](x, sigma, cond), home.fields[name](x, sigma, cond_at_home)), name
    assert not torch.equal(session.fields["own"](x, sigma, both), session.fields["plain"](x, sigma, both))
    parts = [(session.fields[name], weight) for name, weight in recipe.routes[2].teacher.items()]
    assert torch.equal(session.trainer.routes[2].teacher(x, sigma, both), mixed(parts)(x, sigma, both))


def test_only_the_routes_of_such_teachers_are_encoded_by_their_model(recipe, twin):
    edits, text, both = (route.samples.samples[0] for route in open_session(recipe).trainer.routes)
    assert [set(sample.views) for sample in (edits, text, both)] == [{str(twin)}, set(), {str(twin)}]
    assert (set(edits.nulls), set(edits.views[str(twin)].nulls)) == (set(), {"bad"})
    assert (set(text.nulls), set(both.nulls)) == ({"dull"}, {"dull"})


def test_it_trains_validates_and_writes_the_student(recipe, tmp_path):
    session = open_session(recipe)
    results = list(session.trainer)
    assert [set(result.losses) for result in results] == [{"edits", "text", "both"}] * 2
    assert all(error > 0 for error in session.trainer.validate().values())
    session.write_student(tmp_path / "student.safetensors")
    assert (tmp_path / "student.safetensors").exists()


def test_prompts_that_a_learned_router_assigns_are_encoded_by_the_other_model_too(recipe, twin):
    texts = tuple(f"a red cat number {number}" for number in range(8))
    routes = (
        Route("text", "own", Bucket(prompts=texts)),
        Route("other", "plain", Bucket(prompts=tuple(text.upper() for text in texts))),
    )
    teachers = {name: recipe.teachers[name] for name in ("own", "plain")}
    learned = LearnedRouter(Bucket(prompts=("A RED CAT NUMBER 20", "a red cat number 20")))
    session = open_session(replace(recipe, routes=routes, teachers=teachers, learned_router=learned))
    for route in session.trainer.routes[1:]:
        assert len(route.samples) > 8
        assert all(str(twin) in sample.views for sample in route.samples.samples)
    assert len(list(session.trainer)) == 2


def test_conditioning_without_the_view_is_refused():
    with pytest.raises(ValueError, match="no encoding by the model 'other'"):
        Conditioning((open_sample(),)).seen_by("other")


def open_sample():
    from danceopd_core.algorithm.fields import Sample

    return Sample({"text": torch.zeros(1, 2)}, views={"another": Sample({})})


def test_another_latent_space_is_refused_before_training(recipe, tmp_path):
    other = save_zimage(tmp_path / "other", seed=7)  # the same shapes, another VAE
    teachers = {**recipe.teachers, "plain": Teacher(model=str(other))}
    with pytest.raises(InputError, match=r"teachers\.plain\.model: .*encodes a picture to other latents"):
        open_session(replace(recipe, teachers=teachers))


def test_latents_of_another_shape_are_refused(recipe, zimage_folder):
    """The embedded model has one latent for 4 x 4 pixels, the tiny one for 8 x 8."""
    teachers = {**recipe.teachers, "plain": Teacher(model="shapes")}
    with pytest.raises(InputError, match=r"latents of 16 x 8 x 8 .* and the run's model has 16 x 4 x 4"):
        open_session(replace(recipe, teachers=teachers))


def test_faults_of_such_a_model_are_found_before_one_is_loaded(recipe, tmp_path):
    described = save_sd3(tmp_path / "no edits", t5=False)
    teachers = {
        "own": Teacher(model=str(tmp_path / "nowhere")),
        "other": Teacher(model=str(described)),
        "plain": Teacher(model="comfyui:Flux:0123456789abcdef"),
    }
    with pytest.raises(InputError) as caught:
        preflight(replace(recipe, teachers=teachers))
    faults = {fault.setting: fault.message for fault in caught.value.faults}
    assert "nowhere" in faults["teachers.own.model"]
    assert "was a MODEL of ComfyUI" in faults["teachers.plain.model"]
    assert "which a StableDiffusion3Pipeline does not take" in faults[""]


def test_its_memory_is_counted(recipe, twin):
    own = {"own": recipe.teachers["own"]}
    alone = planned_memory(replace(recipe, teachers=own, routes=recipe.routes[1:2]))
    assert alone.others == 0
    both = planned_memory(recipe)
    assert both.others == alone.base
    assert both.device - both.loras == alone.device + alone.base
    assert both.encoders == 2 * alone.encoders


class Quiet:
    cancelled = KeyboardInterrupt

    def check(self) -> None: ...
    def progress(self, value, total) -> None: ...
    def preparing(self, done, total) -> None: ...
    def memory_mb(self) -> float:
        return 0.0


def test_fields_of_two_models_are_sampled_side_by_side(zimage_folder, twin, files):
    model, other = (ModelSpec(str(folder), "float32") for folder in (zimage_folder, twin))
    at_home = FieldSpec(other, "lora", ((Teacher(lora=str(files / "lora.safetensors")), 1.0),)).guided(2.0, "bad")
    taken, base = at_home.over(model), FieldSpec(model, "base", ((Teacher(), 1.0),))
    settings = SamplingSettings(2, 32, 32, 0, "cpu")
    items = [Item("a red cat"), Item("a dog")]
    both = sample_fields(model, {"base": base, "lora": taken, "mix": base.mixed(taken, 0.5)}, items, settings, Quiet())
    assert len({picture.numpy().tobytes() for picture in both.values()}) == 3
    alone = sample_fields(other, {"lora": at_home}, items, settings, Quiet())
    assert torch.equal(both["lora"], alone["lora"])
