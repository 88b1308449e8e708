"""Laws of the preflight: a sound run passes; of an unsound one every fault is reported, in one error."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from danceopd_core.algorithm.fields import Sample
from danceopd_core.data.buckets import load_bucket
from danceopd_core.data.encoded_bucket import write_encoded
from danceopd_core.errors import InputError
from danceopd_core.recipe.schema import Bucket, LearnedRouter, Recipe, Route, Student, Teacher
from danceopd_core.runs.plans.preflight import preflight
from danceopd_core.runs.plans.preflight_buckets import MAX_ROW_FAULTS
from danceopd_core.runs.plans.sources import ModelFacts
from danceopd_core.runs.training.session import open_session

from ..tiny_families import save_flux, save_qwen, save_sd3

SAVED = {"StableDiffusion3Pipeline": save_sd3, "FluxPipeline": save_flux, "QwenImagePipeline": save_qwen}


def described(folder: Path, pipeline: str) -> Path:
    """The folder as one of another pipeline."""
    if pipeline in SAVED:
        shutil.rmtree(folder)
        return SAVED[pipeline](folder)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": pipeline}))
    return folder


@pytest.fixture
def model(tmp_path, zimage_folder) -> Path:
    return shutil.copytree(zimage_folder, tmp_path / "model")


@pytest.fixture
def lora(tmp_path) -> Path:
    path = tmp_path / "lora.safetensors"
    layer, down, up = "transformer.layers.0.attention.to_q", torch.zeros(1, 32), torch.zeros(32, 1)
    save_file({f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}, path)
    return path


@pytest.fixture
def checkpoint(tmp_path, zimage_folder) -> Path:
    (weights,) = (zimage_folder / "transformer").glob("*.safetensors")
    return Path(shutil.copyfile(weights, tmp_path / "checkpoint.safetensors"))


@pytest.fixture
def recipe(tmp_path, model, lora, checkpoint) -> Recipe:
    return Recipe(
        model=str(model),
        routes=(
            Route("text", {"base": 0.5, "real": 0.5}, Bucket(prompts=("a cat",))),
            Route("edits", "edit", Bucket(shapes="edit", count=6)),
        ),
        teachers={"base": Teacher(), "real": Teacher(str(checkpoint)), "edit": Teacher(lora=str(lora))},
        student=Student(str(lora)),
        out=str(tmp_path / "new" / "run"),
    )


def faults_of(recipe: Recipe) -> list[str]:
    with pytest.raises(InputError) as caught:
        preflight(recipe)
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


def with_csv(recipe: Recipe, path: Path, task: str | None = None) -> Recipe:
    return replace(
        recipe, routes=(recipe.routes[0], replace(recipe.routes[1], bucket=Bucket(csv=str(path), task=task)))
    )


def test_a_sound_run_passes_and_leaves_nothing(recipe):
    preflight(recipe)
    assert not Path(recipe.out).parent.exists()


def test_what_was_read_is_handed_on(recipe, csv_file, picture_file, monkeypatch):
    """The items are those of `load_bucket`, and no CSV is read twice."""
    picture_file("a.png")
    more = Bucket(csv=str(csv_file("prompt,source_image", "x,a.png", "y,a.png")))
    recipe = replace(recipe, routes=(*recipe.routes, Route("more", "edit", more)))
    expected = {bucket: load_bucket(bucket, recipe.seed, recipe.width, recipe.height) for bucket in recipe.buckets()}
    files = preflight(recipe)
    assert files.recipe is recipe
    Path(more.csv).unlink()
    for bucket in recipe.buckets():
        items = files.items(bucket)
        assert [(item.prompt, item.task) for item in items] == [(item.prompt, item.task) for item in expected[bucket]]
        for item, other in zip(items, expected[bucket], strict=True):
            assert np.array_equal(item.source, other.source) if bucket.shapes else item.source == other.source


def test_pictures_of_a_csv_pass(recipe, csv_file, picture_file):
    picture_file("in/a.png")
    picture_file("in/b.jpg")
    preflight(with_csv(recipe, csv_file("prompt,source_image", "x,in/a.png", "y,in/b.jpg")))


def test_a_recipe_made_by_hand_is_checked_like_a_file(recipe):
    with pytest.raises(InputError) as caught:
        open_session(replace(recipe, steps=0, method="danceopt"))
    assert [str(fault) for fault in caught.value.faults] == [
        "steps: 0 is out of range: it must be at least 1 and at most 1000000000",
        "method: no method is named 'danceopt' (did you mean 'danceopd'?): "
        "there are danceopd, diffusionopd, flowopd, offpolicy",
    ]


def test_every_fault_is_reported_at_once(recipe, csv_file, tmp_path):
    (tmp_path / "file").touch()
    broken = replace(
        with_csv(recipe, csv_file("prompt,task", "a,edits"), "edit"),
        width=1000,
        out=str(tmp_path / "file" / "run"),
        student=Student(str(tmp_path / "file")),
        teachers={**recipe.teachers, "edit": Teacher(lora="shapes:nothing"), "idle": Teacher(str(tmp_path / "none"))},
    )
    starts = ["width", "out", "student.start", "teachers.edit.lora", "teachers.idle.checkpoint"]
    starts += ["teachers.idle", "route 'edits'"]
    lines = faults_of(broken)
    assert [line.split(":")[0] for line in lines] == starts
    assert lines[0] == "width: 1000 is not a multiple of 16: use 992"
    assert "did you mean 'edits'?" in lines[-1]
    assert faults_of(replace(broken, model=str(tmp_path)))[1].startswith("model: ")


def test_pictures_that_cannot_be_used_are_named_with_their_rows(recipe, csv_file, picture_file, tmp_path):
    good = picture_file("good.png")
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:500])
    path = csv_file("prompt,source_image,target_image", "a,good.png,gone.png", "b,none.png,", "c,cut.png,")
    lines = faults_of(with_csv(recipe, path))
    assert lines[0] == f"route 'edits', {path}, row 3: {tmp_path / 'none.png'} does not exist or is not a file"
    assert lines[1].startswith(f"route 'edits', {path}, row 4: {tmp_path / 'cut.png'} is not a readable picture")
    assert len(lines) == 2  # targets are for the method that learns from them


def test_many_bad_pictures_are_counted(recipe, csv_file):
    path = csv_file("prompt,source_image", *(f"p,{i}.png" for i in range(MAX_ROW_FAULTS + 7)))
    lines = faults_of(with_csv(recipe, path))
    assert len(lines) == MAX_ROW_FAULTS + 1
    assert lines[-1] == f"route 'edits', {path}: 7 more images cannot be used"


def test_a_route_is_all_edits_or_all_text(recipe, csv_file, picture_file):
    picture_file("a.png")
    (line,) = faults_of(with_csv(recipe, csv_file("prompt,source_image", "x,a.png", "y,", "z,")))
    assert "2 of 3 rows have no source_image (row 3, 4) and the others have" in line


@pytest.mark.parametrize("pipeline", ["StableDiffusion3Pipeline", "FluxPipeline", "QwenImagePipeline"])
def test_edits_need_a_model_that_edits(recipe, model, csv_file, picture_file, pipeline):
    recipe = replace(recipe, student=Student(), teachers={name: Teacher() for name in recipe.teachers})
    described(model, pipeline)
    picture_file("a.png")
    path = csv_file("prompt,source_image", "x,a.png", "y,a.png")
    (line,) = faults_of(with_csv(recipe, path))
    told = f"2 of 2 rows have a source image (row 2, 3), which a {pipeline} does not take"
    assert line.startswith(f"route 'edits', {path}: {told}")
    (line,) = faults_of(recipe)
    assert line.startswith("route 'edits': 6 of 6 rows have a source image")
    preflight(replace(recipe, routes=recipe.routes[:1], teachers={n: recipe.teachers[n] for n in ("base", "real")}))
    described(model, "FluxPipeline")
    preflight(replace(recipe, model=str(described(model, "FluxKontextPipeline"))))


def test_the_models_own_files_are_looked_at(recipe, model):
    assert faults_of(replace(recipe, width=1000)) == ["width: 1000 is not a multiple of 16: use 992"]
    (line,) = faults_of(replace(recipe, model=str(described(model, "PixArtPipeline"))))
    assert line.startswith("model: ")
    assert "PixArtPipeline" in line
    described(model, "ZImagePipeline")
    (model / "vae" / "config.json").unlink()
    shutil.rmtree(model / "tokenizer")
    lines = faults_of(recipe)
    assert lines[0].startswith(f"model: the configuration {model / 'vae' / 'config.json'} cannot be read")
    assert lines[1].startswith(f"model: {model} has no tokenizer folder")


def test_a_method_that_learns_from_targets_needs_them(recipe, csv_file, picture_file):
    picture_file("a.png")
    off = replace(recipe, method="offpolicy")
    (line,) = faults_of(off)
    assert line.startswith("route 'text': 1 of 1 rows have no target_image (row 1), which offpolicy learns from")
    edits = replace(off, routes=off.routes[1:], teachers={"edit": off.teachers["edit"]})
    preflight(edits)
    path = csv_file("prompt,source_image,target_image", "x,a.png,a.png", "y,a.png,b.png", "z,a.png,")
    lines = faults_of(replace(edits, routes=(replace(edits.routes[0], bucket=Bucket(csv=str(path))),)))
    assert [line.split(":")[1].split()[0] for line in lines] == ["1", str(path.parent / "b.png")]


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\xff" * 100])
def test_weights_that_are_no_safetensors_are_named(recipe, tmp_path, content):
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(content)
    teachers = {**recipe.teachers, "edit": Teacher(lora=str(bad)), "real": Teacher(str(bad))}
    lines = faults_of(replace(recipe, teachers=teachers))
    assert [line.split(":")[0] for line in lines] == ["teachers.real.checkpoint", "teachers.edit.lora"]
    assert all(str(bad) in line for line in lines)


def test_a_checkpoint_is_no_lora(recipe, checkpoint):
    (line,) = faults_of(replace(recipe, teachers={**recipe.teachers, "edit": Teacher(lora=str(checkpoint))}))
    assert line == f"teachers.edit.lora: {checkpoint} holds no LoRA: it has no lora_A or lora_down weights"


def test_the_lora_under_the_student_is_checked(recipe, lora, checkpoint):
    preflight(replace(recipe, student=Student(base_lora=str(lora))))
    assert "student.base_lora: " in faults_of(replace(recipe, student=Student(base_lora=str(checkpoint))))[0]


def test_a_bucket_that_cannot_be_filled_is_told_by_route(recipe, tmp_path):
    (line,) = faults_of(with_csv(recipe, tmp_path / "absent.csv"))
    assert line.startswith(f"route 'edits': the CSV file {tmp_path / 'absent.csv'} cannot be read")


def with_router(recipe: Recipe, asked: Bucket, *buckets: Bucket) -> Recipe:
    routes = tuple(Route(f"r{number}", "edit", bucket) for number, bucket in enumerate(buckets))
    teachers = {"edit": recipe.teachers["edit"]}
    return replace(recipe, routes=routes, teachers=teachers, learned_router=LearnedRouter(asked))


def test_a_learned_router_needs_routes_to_choose_among_and_prompts_to_learn_from(recipe):
    text, more = (Bucket(prompts=tuple(f"{kind} {n}" for n in range(4))) for kind in ("a", "b"))
    edits, asked = Bucket(shapes="local", count=12), Bucket(prompts=("x", "y"))
    preflight(with_router(recipe, asked, text, more))
    preflight(with_router(recipe, Bucket(shapes="edit", count=12), text, edits, Bucket(shapes="recolour", count=12)))
    (line,) = faults_of(with_router(recipe, asked, text, edits))
    assert line.startswith("learned_router: there is only one route for its prompts, so there is nothing to choose")
    (line,) = faults_of(with_router(recipe, asked, edits, edits))
    assert line.startswith("learned_router: 2 of 2 prompts have no source picture, but all routes have")
    (line,) = faults_of(with_router(recipe, Bucket(shapes="edit", count=6), text, more))
    assert line.startswith("learned_router: 6 of 6 prompts have a source picture, but no route has any")
    (line,) = faults_of(with_router(recipe, asked, text, Bucket(prompts=("a", "b", "c", "c", "c"))))
    assert line == "learned_router: route 'r1' has 3 different prompts to train on: give it 4 or more"


def test_prompts_without_a_route_may_be_of_both_kinds_and_their_files_are_looked_at(recipe, csv_file, picture_file):
    picture_file("a.png")
    text, more = (Bucket(prompts=tuple(f"{kind} {n}" for n in range(4))) for kind in ("a", "b"))
    edits = Bucket(shapes="local", count=12)
    preflight(with_router(recipe, Bucket(csv=str(csv_file("prompt,source_image", "x,a.png", "y,"))), text, more, edits))
    path = csv_file("prompt,source_image", "x,", "y,none.png")
    (line,) = faults_of(with_router(recipe, Bucket(csv=str(path)), text, more, edits))
    assert line.startswith(f"learned_router: {path}, row 3: ")
    (line,) = faults_of(with_router(recipe, Bucket(csv=str(csv_file("prompt,source_image"))), text, more))
    assert line.startswith(f"learned_router: {path} holds no prompts")


def test_targets_are_needed_of_prompts_without_a_route_too(recipe, csv_file, picture_file):
    picture_file("a.png")
    edits = Bucket(shapes="local", count=12)
    path = csv_file("prompt,source_image,target_image", "x,a.png,a.png", "y,a.png,")
    (line,) = faults_of(replace(with_router(recipe, Bucket(csv=str(path)), edits, edits), method="offpolicy"))
    assert line.startswith(f"learned_router: {path}: 1 of 2 rows have no target_image (row 3), which offpolicy")


LIVE = "comfyui:Tiny:0"


def of_conditioning(recipe: Recipe, folder: Path, model: str, nulls: int = 0, pictures: bool = True, **teacher):
    values = {"text": torch.zeros(2, 3)} | ({"reference_latents": (torch.zeros(1, 2, 2, 2),)} if pictures else {})
    file = write_encoded(folder, [Sample(values)] * 2, [Sample(values)] * nulls, [], "given")
    return replace(
        recipe,
        model=model,
        teachers={"edit": Teacher(**teacher)},
        routes=(Route("given", "edit", Bucket(encoded=str(file))),),
    )


def test_conditioning_is_for_models_of_comfyui(recipe, tmp_path):
    (fault,) = faults_of(of_conditioning(recipe, tmp_path, recipe.model))
    assert "route 'given'" in fault
    assert "only its own models take" in fault


def test_guided_edits_need_a_negative_of_their_own(recipe, tmp_path):
    class Live:
        def facts(self):
            return ModelFacts()

    def faults(**more):
        try:
            preflight(of_conditioning(recipe, tmp_path, LIVE, **more), Live())
        except InputError as error:
            return str(error)
        return ""

    assert "connect the input negative" in faults(guidance=2.0)
    assert not faults(guidance=2.0, nulls=1)
    assert not faults(guidance=2.0, pictures=False)
    assert not faults()


def test_a_learned_router_over_conditioning_is_checked_for_every_route(recipe, tmp_path):
    given = of_conditioning(recipe, tmp_path, recipe.model).routes[0].bucket
    learned = replace(recipe, learned_router=LearnedRouter(given))
    assert any("learned_router" in fault and "it holds conditioning" in fault for fault in faults_of(learned))
