"""Laws of runs over ComfyUI's models on the command line: they are refused with the command that queues them."""

import pytest

from danceopd_core.cli.parser import main
from danceopd_core.errors import InputError
from danceopd_core.recipe.io import parse_recipe, read_recipe, write_recipe
from danceopd_core.runs.stored.queueing import queue_command, refuse_live

RECIPE = {
    "model": "comfyui:Flux:0123",
    "teachers": {"base": {}},
    "routes": [{"name": "a", "teacher": "base", "bucket": {"prompts": ["x"]}}],
}


@pytest.fixture
def recipe(tmp_path):
    file = tmp_path / "recipe.yaml"
    write_recipe(file, parse_recipe(RECIPE), ["comfyui:Flux:0123 was loaded from:", "- UNETLoader, unet_name: a\nb: c"])
    return file


def test_notes_are_comments_and_change_nothing(recipe):
    lines = recipe.read_text().splitlines()
    assert lines[:2] == ["# comfyui:Flux:0123 was loaded from:", "# - UNETLoader, unet_name: a b: c"]
    assert read_recipe(recipe).digest() == parse_recipe(RECIPE).digest()


@pytest.mark.parametrize("command", [["train"], ["train", "--dry-run"], ["train", "--resume"], ["memory"]])
def test_the_command_is_told(recipe, command, capsys):
    (recipe.parent / "workflow.json").write_text("{}")
    assert main([command[0], str(recipe), *command[1:]]) != 0
    assert queue_command(recipe.parent / "workflow.json") in capsys.readouterr().err


def test_without_the_workflow_that_is_said(recipe):
    with pytest.raises(InputError, match=r"no workflow\.json beside it"):
        refuse_live(read_recipe(recipe), recipe)


def test_other_recipes_pass(recipe):
    refuse_live(parse_recipe({**RECIPE, "model": "shapes"}), recipe)
