"""Laws of a node run's identity: equal recipes have equal ones, and those of version 0.1.0 are still recognised."""

import json
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import pytest

from danceopd_core.recipe.io import read_stored_recipe
from danceopd_core.runs.files.identity import VERSION, run_identity
from danceopd_core.runs.stored.records import RunRecord

OLD = Path(__file__).parent / "fixtures" / "run_of_0_1_0" / "node"


@pytest.fixture
def old_run(tmp_path) -> RunRecord:
    copytree(OLD, tmp_path / "danceopd" / "old")
    return RunRecord(tmp_path, "old")


def test_an_identity_without_a_version_counts_by_the_runs_own_recipe(old_run):
    recipe = read_stored_recipe(old_run.path / "recipe.yaml")
    known = old_run.identity()
    assert known["recipe"] == run_identity(recipe)["recipe"] == run_identity(replace(recipe, steps=9))["recipe"]
    assert known["recipe"] != run_identity(replace(recipe, seed=4))["recipe"]
    assert known["version"] == VERSION
    stored = json.loads((OLD / "identity.json").read_text(encoding="utf-8"))
    assert "version" not in stored
    assert {name: known[name] for name in ("contents", "steps", "watch")} == {
        name: stored[name] for name in ("contents", "steps", "watch")
    }


def test_an_old_recipe_with_a_renamed_key_is_recognised(old_run, tmp_path):
    path = old_run.path / "recipe.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("student:\n", "student:\n  over: shapes:edit\n"), encoding="utf-8")
    recipe = read_stored_recipe(path)
    assert recipe.student.base_lora == "shapes:edit"
    assert old_run.identity()["recipe"] == run_identity(recipe)["recipe"]


def test_an_identity_with_a_version_counts_as_it_was_written(old_run):
    old_run.write("identity.json", {"version": VERSION, "recipe": "abc"})
    assert old_run.identity() == {"version": VERSION, "recipe": "abc"}


@pytest.mark.parametrize("text", [None, "", "model: [", "stepz: 3"])
def test_an_old_run_without_a_readable_recipe_is_no_longer_recognised(old_run, text):
    path = old_run.path / "recipe.yaml"
    recipe = read_stored_recipe(path)
    path.unlink() if text is None else path.write_text(text, encoding="utf-8")
    assert old_run.identity()["recipe"] != run_identity(recipe)["recipe"]


def test_no_run_has_no_identity(tmp_path):
    assert RunRecord(tmp_path, "none").identity() == {}
