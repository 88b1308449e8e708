"""The paper's recipes: each is whole, says the paper's values, and passes a dry run once its files are there."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from danceopd_core.cli.parser import main
from danceopd_core.recipe.io import parse_recipe, read_recipe
from danceopd_core.recipe.presets import preset_text, presets
from danceopd_core.recipe.schema import Optimizer, Query, Recipe

from ..tiny_families import save_flux2, save_krea2, save_qwen21, save_sd3
from ..versions import needs_diffusers

SAME = {"rollout_steps": "path_steps"}
"""What a recipe that leaves a setting out has for it, where that is for the model to say."""
PAPER = ["cfg_absorption", "sd35m_realism", "zimage_local_global", "zimage_t2i_edit", "zimage_three_buckets"]
KLEIN = ["klein_absorb_guidance", "klein_t2i_edit", "klein_two_loras"]
NEEDS = {**dict.fromkeys(KLEIN, "0.37"), "krea2_two_loras": "0.39", "qwen21_t2i_edit": "0.41"}
"""Recipes of models that the paper has not, with the diffusers that opens them."""
NAMES = sorted([*PAPER, *NEEDS])
OPENED = [*PAPER, *(pytest.param(name, marks=needs_diffusers(release)) for name, release in NEEDS.items())]
SHIFTED = ("sd3", *NEEDS)
"""Recipes on the model's own sigmas."""


@pytest.fixture(scope="module")
def sd3_folder(tmp_path_factory) -> Path:
    return save_sd3(tmp_path_factory.mktemp("models") / "sd3")


@pytest.fixture(scope="module")
def klein_folder(tmp_path_factory) -> Path:
    return save_flux2(tmp_path_factory.mktemp("models") / "klein")


@pytest.fixture(scope="module")
def krea2_folder(tmp_path_factory) -> Path:
    return save_krea2(tmp_path_factory.mktemp("models") / "krea2")


@pytest.fixture(scope="module")
def qwen21_folder(tmp_path_factory) -> Path:
    return save_qwen21(tmp_path_factory.mktemp("models") / "qwen21")


@pytest.fixture
def stand_ins(tmp_path, request):
    """Puts a tiny file or folder wherever a recipe asks for one."""

    def make(recipe: Recipe) -> None:
        for name in ("models", "loras", "data"):
            (tmp_path / name).mkdir(exist_ok=True)
        known = {"stable": "sd3", "klein": "klein", "Krea": "krea2", "Qwen-Image-2.1": "qwen21"}
        family = next((family for word, family in known.items() if word in recipe.model), "zimage")
        Path(recipe.model).symlink_to(request.getfixturevalue(f"{family}_folder"))
        plain = family == "zimage"
        layer, width = ("layers.0.attention.to_q", 32) if plain else ("transformer_blocks.0.attn.to_q", 64)
        down, up = torch.zeros(1, width), torch.zeros(width, 1)
        lora = {f"transformer.{layer}.lora_A.weight": down, f"transformer.{layer}.lora_B.weight": up}
        loras = {teacher.lora for teacher in recipe.teachers.values()} | {recipe.student.start}
        for file in loras - {None, "fresh"}:
            save_file(lora, file)
        for teacher in recipe.teachers.values():
            if teacher.checkpoint:
                (weights,) = (Path(recipe.model) / "transformer").glob("*.safetensors")
                shutil.copyfile(weights, teacher.checkpoint)
        Image.fromarray(np.zeros((40, 48, 3), np.uint8)).save(tmp_path / "data" / "a.png")
        for route in recipe.routes:
            rows = [{"prompt": "x", "task": "t2i"}] * 3
            if "edits" in route.bucket.csv:
                rows = [{**rows[0], "task": task, "source_image": "a.png"} for task in ("local_edit", "global_edit")]
            with Path(route.bucket.csv).open("w", newline="") as file:
                writer = csv.DictWriter(file, rows[0])
                writer.writeheader()
                writer.writerows(rows)

    return make


def test_these_are_the_recipes(capsys):
    assert list(presets()) == NAMES
    assert main(["recipes"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == NAMES
    assert all(line.endswith(".") and len(line) < 120 for line in listed)


@pytest.mark.parametrize("fast", [False, True], ids=["paper", "fast"])
@pytest.mark.parametrize("name", OPENED)
def test_a_recipe_with_its_files_passes_a_dry_run(name, fast, stand_ins, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["recipes", name, *(["--fast"] if fast else [])]) == 0
    file = tmp_path / "recipe.yaml"
    file.write_text(capsys.readouterr().out, encoding="utf-8")
    assert main(["train", "recipe.yaml", "--dry-run"]) == 2  # every file that it names is missing
    missing = capsys.readouterr().err
    assert all(word in missing for word in ("model: ", ".csv cannot be read"))
    stand_ins(read_recipe(file))
    assert main(["train", "recipe.yaml", "--dry-run"]) == 0, capsys.readouterr().err
    told = capsys.readouterr().out
    assert "nothing is missing" in told
    assert ("0.5 15 %" in told) == (not fast and not name.startswith(SHIFTED))  # shift 3 over 16 steps


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_says_the_papers_values_and_every_file_in_its_head(name):
    text = preset_text(name)
    assert text.isascii()  # a shell writes it into a file
    tree = yaml.safe_load(text)
    recipe = parse_recipe(tree)
    default = Recipe(recipe.model, recipe.routes, recipe.teachers)
    for key in ("method", "router", "steps", "batch", "accumulate", "rollout_steps", "width", "save_every", "dtype"):
        assert str(tree[key]) == str(recipe.__dict__[key]) == str(getattr(default, SAME.get(key, key)))
    assert (recipe.query, recipe.optimizer) == (Query("low", 1), Optimizer(2e-4, 0.0, clip=1.0))
    assert recipe.sigmas == ("model" if name.startswith(SHIFTED) else "paper")
    assert {route.weight for route in recipe.routes} == {1.0}
    assert recipe.out.endswith(name)
    head = text.partition("\nmodel:")[0]
    files = [recipe.model, *(r.bucket.csv for r in recipe.routes), recipe.student.start]
    files += [file for t in recipe.teachers.values() for file in (t.lora, t.checkpoint)]
    assert all(file in head for file in files if file not in (None, "fresh"))


@pytest.mark.parametrize("name", NAMES)
def test_fast_changes_the_rollout_and_nothing_else(name):
    whole, fast = (parse_recipe(yaml.safe_load(preset_text(name, fast))).to_dict() for fast in (False, True))
    assert {key: (whole[key], fast[key]) for key in whole if whole[key] != fast[key]} == {"rollout_steps": (16, 8)}


@pytest.mark.parametrize("command", [["recipes", "zimage_t2i_edti"], ["recipes", "--fast"], ["recipes", "../cli"]])
def test_an_unknown_recipe_is_told_with_those_there_are(command, capsys):
    assert main(command) == 2
    told = capsys.readouterr()
    assert "zimage_three_buckets" in told.err
    assert not told.out
