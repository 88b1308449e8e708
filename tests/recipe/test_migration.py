"""Laws of renamed keys: the old key is read everywhere, the new one is written."""

import pytest

from danceopd_core.errors import Fault, InputError
from danceopd_core.recipe.io import parse_recipe, read_recipe, read_stored_recipe, write_recipe
from danceopd_core.recipe.migration import RENAMED, migrated


@pytest.fixture
def old_text(plain_text) -> str:
    return plain_text + "student: {rank: 4, over: 'shapes:edit'}\n"


def test_an_old_key_is_read_and_the_new_one_is_written(recipe_file, old_text, tmp_path):
    recipe = read_recipe(recipe_file(old_text))
    assert (recipe.student.rank, recipe.student.base_lora) == (4, "shapes:edit")
    write_recipe(tmp_path / "new.yaml", recipe)
    text = (tmp_path / "new.yaml").read_text(encoding="utf-8")
    assert "base_lora: shapes:edit" in text
    assert "over:" not in text
    assert read_recipe(tmp_path / "new.yaml").digest() == recipe.digest()


def test_an_old_key_is_read_from_a_mapping(recipe_file, old_text):
    recipe = read_recipe(recipe_file(old_text))
    whole = recipe.to_dict()
    whole["student"]["over"] = whole["student"].pop("base_lora")
    assert parse_recipe(whole) == recipe
    assert whole["student"]["over"] == "shapes:edit"  # the mapping itself is not changed


@pytest.mark.parametrize(
    "override",
    [
        "student.over=shapes:edit",
        "student.base_lora=shapes:edit",
        "student[over]=shapes:edit",
        "student={over: shapes:edit}",
    ],
)
def test_an_override_may_use_either_key(recipe_file, plain_text, old_text, override):
    for text in (plain_text, old_text.replace("edit'}", "draw'}")):
        assert read_recipe(recipe_file(text), [override]).student.base_lora == "shapes:edit"


def test_both_keys_are_a_fault(recipe_file, plain_text):
    text = plain_text + "student: {over: a, base_lora: b}\n"
    with pytest.raises(InputError) as caught:
        read_recipe(recipe_file(text))
    (fault,) = caught.value.faults
    assert fault.setting == "student.over"
    assert "old name of student.base_lora" in fault.message


def test_a_tree_of_another_form_is_left_to_the_parser():
    faults: list[Fault] = []
    for tree in (None, "text", [1], {}, {"student": None}, {"student": "text"}, {"student": {"rank": 1}}):
        assert migrated(tree, faults) == tree
    assert not faults


def test_a_renamed_key_stays_in_its_mapping():
    assert all(old.rpartition(".")[0] == new.rpartition(".")[0] for old, new in RENAMED.items())


def test_a_run_that_an_earlier_release_began_held_nothing_out(plain_text, recipe_file, tmp_path):
    file = recipe_file(plain_text)
    stored = read_stored_recipe(file)
    assert stored.held_out == 0 != read_recipe(file).held_out
    assert stored.digest() != read_recipe(file).digest()
    for recipe in (stored, read_recipe(file)):  # which a run of this release says, though it is the default
        write_recipe(tmp_path / "stored.yaml", recipe, stored=True)
        assert read_stored_recipe(tmp_path / "stored.yaml") == recipe
