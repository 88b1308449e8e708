"""Laws of overrides: one value changes, read as in the file; a path that leads nowhere is refused."""

import copy

import pytest

from danceopd_core.errors import InputError
from danceopd_core.recipe.io import read_recipe
from danceopd_core.recipe.overrides import overridden
from danceopd_core.recipe.schema import Optimizer, Recipe, Student
from danceopd_core.recipe.yaml_text import read_yaml


def test_values_are_typed_as_in_the_file(recipe_file, plain_text):
    overrides = """
        optimizer.lr=1e-4|routes.0.weight=3|routes[1].bucket.count=24|teachers.edit.strength=.5|seed = 7
        |gradient_checkpointing=on|student={rank: 8, targets: [to_q]}|optimizer.betas=[0.8, 0.9]
    """
    recipe = read_recipe(recipe_file(plain_text), overrides.split("|"))
    assert recipe.optimizer == Optimizer(lr=1e-4, betas=(0.8, 0.9))
    assert (recipe.routes[0].weight, recipe.routes[1].bucket.count, recipe.teachers["edit"].strength) == (3.0, 24, 0.5)
    assert recipe.student == Student(rank=8, targets=("to_q",))
    assert (recipe.seed, recipe.gradient_checkpointing) == (7, True)


def test_a_later_override_wins_and_goes_into_an_earlier(recipe_file, plain_text):
    recipe = read_recipe(recipe_file(plain_text), ["student={rank: 8}", "student.rank=4", "steps=1", "steps=2"])
    assert (recipe.student.rank, recipe.steps) == (4, 2)


@pytest.mark.parametrize("text", ["a: b # c", "[blurry]", "{x}", "no", "a = b", "'quoted'"])
def test_text_is_taken_as_it_stands(recipe_file, plain_text, text):
    overrides = [f"teachers.base.negative={text}", "routes.0.name=" + text]
    recipe = read_recipe(recipe_file(plain_text), overrides)
    assert recipe.teachers["base"].negative == text
    assert recipe.routes[0].name == text


def test_teachers_by_name_or_by_weights(recipe_file, plain_text):
    path = recipe_file(plain_text)
    recipe = read_recipe(path, ["routes.0.teacher={base: 0.5, edit: 0.5}", "routes.1.teacher=base"])
    assert [route.teacher for route in recipe.routes] == [{"base": 0.5, "edit": 0.5}, "base"]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("optimizer.lrr=1", r"optimizer.lrr: there is no such setting \(did you mean 'lr'\?\)"),
        ("lr=1", r"lr: there is no such setting \(did you mean 'optimizer.lr'\?\)"),
        (
            "teachers.edt.lora=x",
            r"teachers.edt.lora: there is no 'edt' \(did you mean 'edit'\?\): there are base, edit",
        ),
        ("routes.2.weight=1", "routes.2.weight: there is no entry '2': the list has 2, counted from 0"),
        ("routes.-1.weight=1", "routes.-1.weight: there is no entry '-1'"),
        ("routes.text.weight=1", "routes.text.weight: there is no entry 'text'"),
        ("steps.x=1", "steps.x: it is a single value, without keys"),
        ("routes.0.teacher.base=1", "routes.0.teacher.base: the recipe has no such key here"),
        ("optimizer.betas.0=1", "optimizer.betas.0: .*give the whole"),
        ("steps", "'steps': write key.path=value"),
        ("=1", "there is no such setting"),
        ("steps=ten", "steps: expected a whole number, not 'ten'"),
        ("steps=", "steps: expected a whole number, not ''"),
        ("student={rank: 8", "student: line 1, column"),
    ],
)
def test_wrong_paths_and_values_are_faults(recipe_file, plain_text, override, told):
    with pytest.raises(InputError, match=told):
        read_recipe(recipe_file(plain_text), [override])


def test_faults_of_overrides_and_of_the_file_come_together(recipe_file, plain_text):
    with pytest.raises(InputError) as caught:
        read_recipe(recipe_file(plain_text + "stepz: 3\n"), ["optimizer.lrr=1", "seed=-1"])
    assert "has 3 faults" in str(caught.value)


def test_the_tree_stays_as_it_was_even_where_parts_are_shared():
    tree = read_yaml("teachers: {a: &t {strength: 1}, b: *t}", [])
    before = copy.deepcopy(tree)
    changed = overridden(Recipe, tree, "teachers.a.strength=2", [])
    assert tree == before
    assert changed["teachers"] == {"a": {"strength": "2"}, "b": {"strength": "1"}}
