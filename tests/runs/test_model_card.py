"""Model cards: what Hugging Face reads of them, what a private run leaves out, and what is pushed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from danceopd_core.cli import main
from danceopd_core.errors import InputError
from danceopd_core.recipe.io import write_recipe
from danceopd_core.recipe.schema import Bucket, Recipe, Route, Teacher
from danceopd_core.runs.cards.model_card import is_card_of, write_card
from danceopd_core.runs.files.known_models import known_model
from danceopd_core.runs.files.student_metadata import student_metadata, thumbnail, workflow_metadata
from danceopd_core.weights.lora import Lora
from danceopd_core.weights.lora_io import write_lora

RUN = "0123456789abcdef"
LORA = Lora({"layer": torch.ones(4, 8)}, {"layer": torch.ones(6, 4)})
TASKS = {"draw": "text-to-image", "edit": "edit"}


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return Recipe(
        str(tmp_path / "secret folder" / "Z-Image"),
        (
            Route("draw", "base", Bucket(prompts=("a private prompt",))),
            Route("edit", "lora", Bucket(csv=str(tmp_path / "edits.csv"))),
        ),
        {"base": Teacher(guidance=4), "lora": Teacher(lora=str(tmp_path / "secret folder" / "edit | er.safetensors"))},
        out=str(tmp_path / "run"),
    )


def write_run(recipe: Recipe) -> Path:
    folder = Path(recipe.out)
    (folder / "pictures").mkdir(parents=True)
    write_recipe(folder / "recipe.yaml", recipe)
    metadata = student_metadata(
        recipe, LORA, family="zimage", title="a", date="2026-01-02", update=30, run=RUN, tasks=TASKS,
        base=known_model([recipe.model]),
    )  # fmt: skip
    write_lora(folder / "student.safetensors", LORA, metadata)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "pictures" / "000030-00.png")
    status = {
        "state": "done",
        "update": 30,
        "steps": 30,
        "losses": {},
        "pictures": [{"prompt": "a |private| one", "url": "/x/000030-00.png"}],
    }
    (folder / "status.json").write_text(json.dumps(status))
    errors = [{"update": update, "errors": {"draw": error, "edit": None}} for update, error in ((0, 0.5), (30, 0.125))]
    (folder / "validation.jsonl").write_text("".join(json.dumps(line) + "\n" for line in errors))
    history = [{"update": update, "losses": {"edit": 2.0 if update <= 20 else 1.0}} for update in range(1, 41)]
    (folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in history))
    (folder / "health.jsonl").write_text(json.dumps({"update": 30, "verdict": "healthy: as it is"}) + "\n")
    return folder


def card_of(folder: Path) -> str:
    write_card(folder, "mine")
    return (folder / "README.md").read_text(encoding="utf-8")


def test_hugging_face_reads_the_card(recipe):
    card = ModelCard(card_of(write_run(recipe)))
    found = card.data.to_dict()
    assert found["base_model"] == "Tongyi-MAI/Z-Image"
    assert found["base_model_relation"] == "adapter"
    assert (found["license"], found["library_name"]) == ("apache-2.0", "diffusers")
    assert found["pipeline_tag"] == "text-to-image"
    assert {"lora", "danceopd", "image-to-image"} <= set(found["tags"])
    assert found["widget"] == [{"text": "a |private| one", "output": {"url": "pictures/000030-00.png"}}]


def test_a_row_a_capability(recipe):
    text = card_of(write_run(recipe))
    assert "| draw | text-to-image | base x4 | none | 0.5 → 0.125 | 1 | 16 | 1 |" in text
    assert "| edit | edit | edit \\| er | none | 2 → 1 | 1 | 16 | 1 |" in text  # losses: it was not validated
    assert "healthy: as it is" in text
    assert "30 updates of 4 samples" in text


def test_a_student_over_a_model_of_comfyui_is_not_offered_to_diffusers(recipe):
    folder = write_run(recipe)
    assert "load_lora_weights" in card_of(folder)
    write_lora(folder / "student.safetensors", LORA, prefix="diffusion_model.")
    text = card_of(folder)
    assert "load_lora_weights" not in text
    assert "library_name" not in text


def test_an_unknown_base_is_asked_for(recipe):
    text = card_of(write_run(replace(recipe, model="/models/My-Own")))
    assert ModelCard(text).data.to_dict()["license"] == "unknown"
    assert "# base_model: set this" in text
    assert "for My-Own" in text


@pytest.mark.parametrize("private", [False, True])
def test_folders_are_never_told_and_prompts_only_if_the_run_is_not_private(recipe, private):
    folder = write_run(replace(recipe, private=private))
    text = card_of(folder)
    assert "secret folder" not in text
    assert ("a private prompt" in text) != private
    assert ("private| one" in text) != private
    with safe_open(folder / "student.safetensors", "pt") as handle:
        metadata = json.dumps(handle.metadata())
    assert ("secret folder" in metadata) != private
    assert ("a private prompt" in metadata) != private
    assert RUN in metadata


def test_a_card_of_somebody_else_is_known(recipe, tmp_path):
    folder = write_run(recipe)
    card_of(folder)
    assert is_card_of(folder / "README.md", ["other", RUN])
    assert not is_card_of(folder / "README.md", ["", "other"])


def test_a_damaged_folder_keeps_its_card(recipe):
    folder = write_run(recipe)
    before = card_of(folder)
    (folder / "recipe.yaml").write_text("{")
    assert card_of(folder) == before


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("/models/diffusion_models/z_image_turbo_bf16.safetensors", "Tongyi-MAI/Z-Image-Turbo"),
        ("C:\\models\\Z-Image", "Tongyi-MAI/Z-Image"),
        ("- qwen_image_edit_2509_fp8_e4m3fn.safetensors", "Qwen/Qwen-Image-Edit-2509"),
        ("sd3.5_medium.safetensors", "stabilityai/stable-diffusion-3.5-medium"),
        ("black-forest-labs/FLUX.1-dev", "black-forest-labs/FLUX.1-dev"),
        ("qwen_image_2.1_bf16.safetensors", "Qwen/Qwen-Image-2.1"),
        ("Qwen/Qwen-Image-2.1-Turbo", None),  # no Qwen-Image, whose licence is another
        ("Qwen/Qwen-Image-Layered", None),
        ("krea/Krea-2-Raw", "krea/Krea-2-Raw"),
        ("z_imagery.safetensors", None),
        ("shapes", None),
    ],
)
def test_released_models_are_known_by_their_names(name, repository):
    found = known_model([name])
    assert (found and found.repository) == repository


def test_the_hash_is_that_of_the_files_tensors(recipe):
    file = write_run(recipe) / "student.safetensors"
    data = file.read_bytes()
    header = int.from_bytes(data[:8], "little")
    with safe_open(file, "pt") as handle:
        found = handle.metadata()
    assert found["modelspec.hash_sha256"] == "0x" + hashlib.sha256(data[8 + header :]).hexdigest()
    assert found["modelspec.resolution"] == "1024x1024"
    assert found["modelspec.base_model"] == "Tongyi-MAI/Z-Image"


def test_a_thumbnail_is_a_small_jpeg_and_a_workflow_opens_where_it_is_dropped(tmp_path):
    Image.new("RGBA", (1024, 512)).save(tmp_path / "a.png")
    (entry,) = thumbnail(tmp_path / "a.png").values()
    assert entry.startswith("data:image/jpeg;base64,/9j/")
    assert json.loads(workflow_metadata({"workflow": {"nodes": []}, "prompt": None})["workflow"]) == {"nodes": []}
    assert workflow_metadata(None) == {}


def test_a_dry_push_lists_what_it_would_push_and_shows_the_card(recipe, capsys):
    folder = write_run(recipe)
    assert main(["push", str(folder), "me/mine", "--name", "my lora", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "my lora.safetensors (" in out
    assert "images/000030-00.png (" in out
    assert "url: images/000030-00.png" in out


@pytest.mark.parametrize(("repository", "told"), [("mine", "owner/name"), ("me/mine@main", "owner/name")])
def test_a_repository_needs_an_owner(recipe, capsys, repository, told):
    assert main(["push", str(write_run(recipe)), repository, "--dry-run"]) == 2
    assert told in capsys.readouterr().err


def test_a_folder_without_a_student_is_refused(tmp_path):
    from danceopd_core.runs.cards.pushing import planned_push

    with pytest.raises(InputError, match="holds no student"):
        planned_push(tmp_path)


def test_text_that_no_file_can_hold_is_escaped(recipe):
    folder = write_run(recipe)
    (folder / "health.jsonl").write_text('{"update": 30, "verdict": "odd \\ud800 <img src=x>\\n# Head"}\n')
    status = json.loads((folder / "status.json").read_text())
    status["pictures"][0]["prompt"] = "\udc00 a [x](y)"
    (folder / "status.json").write_text(json.dumps(status))
    text = card_of(folder)
    assert "examined: odd \\\\ud800 &lt;img src=x&gt; \\# Head." in text
    assert "| \\\\udc00 a \\[x\\](y) |" in text
    ModelCard(text)


def test_names_and_prompts_stay_out_of_markdown(recipe):
    name = "<img src=//evil>\n```\n# Head `a` | [x](//evil)"
    route = Route(name, "base", Bucket(prompts=("a\n````\n<b>",)))
    text = card_of(write_run(replace(recipe, routes=(route, recipe.routes[1]))))
    assert "holds &lt;img src=//evil&gt; \\`\\`\\` \\# Head \\`a\\` \\| \\[x\\](//evil), edit, for" in text
    assert "\n`````yaml\n" in text
    assert text.count("\n`````\n") == 1
    assert "# Head" not in text.splitlines()


@pytest.mark.parametrize("digits", ["9" * 5000, "9" * 10, "x", "-1", "²"])
def test_a_rank_that_is_none_is_not_told(recipe, digits):
    folder = write_run(recipe)
    with safe_open(folder / "student.safetensors", "pt") as handle:
        metadata = handle.metadata()
    save_file({"transformer.a": torch.ones(1)}, folder / "student.safetensors", {**metadata, "ss_network_dim": digits})
    assert "rank 0, seed" in card_of(folder)


@pytest.mark.parametrize("wrong", [10**400, float("nan"), True, -1])
def test_distances_and_updates_that_are_none_are_unknown(recipe, wrong):
    folder = write_run(recipe)
    with (folder / "validation.jsonl").open("a") as file:
        file.write(json.dumps({"update": 30, "errors": {"draw": wrong}}) + "\n")
    (folder / "history.jsonl").write_text(json.dumps({"update": 1, "losses": {"edit": wrong}}) + "\n")
    with safe_open(folder / "student.safetensors", "pt") as handle:
        metadata = handle.metadata()
    told = {**json.loads(metadata["danceopd"]), "update": wrong, "run": "--><b>"}
    save_file(
        {"transformer.a": torch.ones(1)}, folder / "student.safetensors", {**metadata, "danceopd": json.dumps(told)}
    )
    text = card_of(folder)
    assert "0.5 → 0.125" in text
    assert "| edit | edit | edit \\| er | none | - |" in text
    assert "<b>" not in text


def test_a_picture_of_a_name_that_none_has_is_left_out(recipe):
    folder = write_run(recipe)
    (folder / "pictures" / "000030-00.png").unlink()
    for url in ("x" * 5000, "a\0b", "\ud800"):
        status = json.loads((folder / "status.json").read_text())
        status["pictures"] = [{"prompt": "b", "url": url}]
        (folder / "status.json").write_text(json.dumps(status))
        assert "## Samples" not in card_of(folder)
