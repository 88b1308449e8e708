"""The shipped workflows, as far as they can be read without the page that converts them."""

import re
from pathlib import Path

import pytest
import yaml
from PIL import Image

from danceopd_core.models.sigma_schedule import SIGMA_SCHEDULES
from danceopd_core.recipe.io import parse_recipe
from danceopd_core.recipe.presets import preset_text, presets

from ..templates import API, FOLDER, PAGES, read
from ..web.test_complete import SCHEMAS

NATIVE = {
    "two_loras_into_one_zimage_turbo", "two_loras_into_one_flux2_klein", "edit_and_draw", "absorb_guidance",
    "turbo_keeps_its_steps", "quantised_base",
}  # fmt: skip
"""They run over Load Shapes, and over a person's own files once it is bypassed and the loaders are no longer muted."""
RUNNABLE = NATIVE | {
    "quickstart", "local_global_edit", "realism", "cfg_absorption", "sample_student", "move_lora_between_worlds",
}  # fmt: skip
PAPER = {f"paper_{name}" for name in presets() if not name.startswith(("klein", "krea2", "qwen21"))}
"""They name models and data that a person has to have: what runs every workflow leaves them out by their prefix."""
NAMES = RUNNABLE | PAPER
NOTES = ("MarkdownNote", "Note")
MUTED = 2


def test_every_workflow_comes_in_both_formats():
    assert set(PAGES) == NAMES
    assert len(PAGES) == len(list(FOLDER.glob("*.json")))
    assert {path.stem for path in API.glob("*.json")} == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_workflow_has_a_thumbnail_for_the_template_browser(name):
    file = PAGES[name].with_suffix(".jpg")  # beside the workflow and of this ending: what ComfyUI looks for
    with Image.open(file) as picture:
        assert picture.format == "JPEG"
        assert min(picture.size) >= 200
    assert file.stat().st_size < 100_000


@pytest.mark.parametrize("name", sorted(NAMES))
def test_both_formats_hold_the_same_nodes_and_the_page_has_a_note(name):
    page, api = read(PAGES[name]), read(API / f"{name}.json")
    muted = {node["id"] for node in page["nodes"] if node["mode"] == MUTED}
    nodes = {str(n["id"]): n["type"] for n in page["nodes"] if n["type"] not in NOTES and n["id"] not in muted}
    assert nodes == {key: node["class_type"] for key, node in api.items()}
    assert any(node["type"] in NOTES for node in page["nodes"])
    links = {(str(source), slot, str(target)) for _, source, slot, target, _, _ in page["links"] if source not in muted}
    wired = [(key, value) for key, node in api.items() for value in node["inputs"].values()]
    assert links == {(value[0], value[1], key) for key, value in wired if isinstance(value, list)}


def widgets(node):
    """What an API node's widgets hold."""
    return {name: value for name, value in node["inputs"].items() if not isinstance(value, list)}


@pytest.mark.parametrize("name", sorted(NAMES))
def test_both_formats_hold_the_same_values_of_widgets_that_there_are(name):
    page, api = read(PAGES[name]), read(API / f"{name}.json")
    for node in page["nodes"]:
        if node["type"] in SCHEMAS:
            named = dict(node.get("widgets_values_named", {}))
            assert node.get("widgets_values", []) == list(named.values())
            named.pop("control_after_generate", None)  # the page's own
            assert named == widgets(api[str(node["id"])])
    for node in api.values():
        if node["class_type"] in SCHEMAS:
            asked = {re.sub(r"^(routes_.*?)\d$", r"\g<1>1", key.replace(".", "_")) for key in node["inputs"]}
            assert asked <= SCHEMAS[node["class_type"]]


def inputs_of(name, kind):
    nodes = read(API / f"{name}.json").values()
    return [node["inputs"] for node in nodes if node["class_type"] == f"DanceOPD_{kind}"]


@pytest.mark.parametrize("name", sorted(NAMES))
def test_notes_have_no_inline_code_which_nodes_2_shows_dark_on_dark(name):
    notes = [node["widgets_values"][0] for node in read(PAGES[name])["nodes"] if node["type"] in NOTES]
    assert "`" not in "".join(notes)


@pytest.mark.parametrize("name", sorted(RUNNABLE))
def test_what_runs_as_shipped_names_no_file(name):
    """An empty ComfyUI has no pictures, models or LoRAs but those of the pack."""
    for node in read(API / f"{name}.json").values():
        assert not node["class_type"].startswith("Load")
        files = [node["inputs"].get(key, "none") for key in ("lora", "lora_name", "checkpoint", "start", "transformer")]
        assert all(isinstance(file, list) or file in ("none", "fresh") or "shapes" in file for file in files)


@pytest.mark.parametrize("name", sorted(PAPER))
def test_a_workflow_of_the_paper_is_its_recipe(name):
    recipe = parse_recipe(yaml.safe_load(preset_text(name.removeprefix("paper_"))))
    (train,), (student,), (routes,) = (inputs_of(name, kind) for kind in ("Train", "Student", "Routes"))
    same = ("method", "steps", "batch", "accumulate", "rollout_steps", "save_every", "gradient_checkpointing", "seed")
    assert {key: train[key] for key in same} == {key: recipe.__dict__[key] for key in same}
    assert (train["learning_rate"], train["k"], train["bias"]) == (2e-4, recipe.query.k, recipe.query.bias)
    assert (train["schedule"], train["shift"]) == (recipe.optimizer.schedule, SIGMA_SCHEDULES[recipe.sigmas] or 0)
    assert (train["width"], train["sigma_low"], train["sigma_high"]) == (0, 0, 0)
    assert int(routes["routes"]) == len(recipe.routes)
    assert routes["router"] == recipe.router
    assert student["start"] == Path(recipe.student.start).name
    assert student["rank"] == recipe.student.rank

    def files(kind, key):
        return sorted(Path(inputs[key]).name for inputs in inputs_of(name, kind))

    teachers = [recipe.teachers[route.teacher] for route in recipe.routes]
    assert files("LoadModel", "model") == [Path(recipe.model).name]
    assert files("Teacher", "lora") == sorted(Path(t.lora or "none").name for t in teachers)
    assert files("Teacher", "checkpoint") == sorted(Path(t.checkpoint or "none").name for t in teachers)
    assert files("Bucket", "content.file") == sorted(Path(r.bucket.csv).name for r in recipe.routes)
    assert files("Bucket", "content.task") == sorted(r.bucket.task or "" for r in recipe.routes)
    assert [g["scale"] for g in inputs_of(name, "Guided")] == [t.guidance for t in teachers if t.guidance != 1]


@pytest.mark.parametrize("name", sorted(PAPER))
def test_the_note_says_every_file_and_where_it_goes(name):
    (note,) = [n["widgets_values"][0] for n in read(PAGES[name])["nodes"] if n["type"] in NOTES]
    places = {"LoadModel": ("model", "models/diffusers"), "Bucket": ("content.file", "input")}
    asked = [f"**{folder}/{i[key]}**" for kind, (key, folder) in places.items() for i in inputs_of(name, kind)]
    asked += [f"**models/loras/{i['lora']}**" for i in inputs_of(name, "Teacher") if i["lora"] != "none"]
    checkpoints = {i["checkpoint"] for i in inputs_of(name, "Teacher")} - {"none"}
    asked += [f"**models/diffusion_models/{file}**" for file in checkpoints]
    assert [file for file in asked if file not in note] == []


@pytest.mark.parametrize("name", sorted(NATIVE))
def test_a_native_workflow_says_which_files_go_where_and_where_they_are_to_be_had(name):
    page = read(PAGES[name])
    (note,) = [n["widgets_values"][0] for n in page["nodes"] if n["type"] in NOTES]
    loaders = [node for node in page["nodes"] if node["type"] in ("UNETLoader", "CLIPLoader", "VAELoader")]
    assert len(loaders) == 3
    for loader in loaders:
        assert loader["mode"] == MUTED
        (model,) = loader["properties"]["models"]
        assert model["name"] == loader["widgets_values"][0] == model["url"].rpartition("/")[2]
        assert model["url"].startswith("https://huggingface.co/")
        assert f"**models/{model['directory']}/{model['name']}**" in note


@pytest.mark.parametrize("name", ["quickstart", "sample_student"])
def test_training_and_sampling_are_apps_too(name):
    page = read(PAGES[name])
    form = page["extra"]["linearData"]
    known = {node["id"] for node in page["nodes"]}
    assert form["inputs"]
    assert {entry[0] for entry in form["inputs"]} | set(form["outputs"]) <= known
    # A file of this ending stands under "App" in the template browser, and opens as a form.
    assert (
        PAGES[name].name.endswith(".app.json") == page["extra"].get("linearMode", False) == (name == "sample_student")
    )
