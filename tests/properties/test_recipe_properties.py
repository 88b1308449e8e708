"""Recipes: whatever stands in the file, it is a recipe or an InputError; a recipe that was written is read again."""

import json

from hypothesis import given
from hypothesis import strategies as st

from danceopd_core.errors import encodable
from danceopd_core.recipe.io import parse_recipe, read_recipe, write_recipe
from danceopd_core.recipe.schema import Recipe

from .texts import TREES, WILD, taken

SOUND = {
    "model": "shapes",
    "teachers": {"base": {"guidance": 2}},
    "routes": [{"name": "draw", "teacher": "base", "bucket": {"prompts": ["a red circle"]}}],
}
KEYS = st.sampled_from(sorted(Recipe.__dataclass_fields__))


@given(TREES)
def test_any_tree_is_a_recipe_or_a_sentence(tree):
    taken(lambda: parse_recipe(tree))


@given(st.dictionaries(KEYS, TREES, max_size=4))
def test_any_value_of_any_setting(changes):
    recipe = taken(lambda: parse_recipe({**SOUND, **changes}))
    assert recipe is None or parse_recipe(recipe.to_dict()) == recipe


@given(st.binary(max_size=200) | TREES.map(lambda tree: json.dumps(tree).encode()))
def test_any_file_is_a_recipe_or_a_sentence(tmp_path, data):
    (tmp_path / "recipe.yaml").write_bytes(data)
    taken(lambda: read_recipe(tmp_path / "recipe.yaml"))


@given(st.lists(KEYS.flatmap(lambda key: WILD.map(lambda text: f"{key}={text}")) | WILD, max_size=3))
def test_any_override_is_taken_or_a_sentence(tmp_path, overrides):
    (tmp_path / "recipe.yaml").write_text(json.dumps(SOUND))
    taken(lambda: read_recipe(tmp_path / "recipe.yaml", overrides))


@given(
    st.lists(WILD, min_size=1, max_size=4), WILD, WILD, st.floats(), st.integers(), st.lists(WILD, max_size=2),
)  # fmt: skip
def test_a_recipe_that_was_written_is_read_again(tmp_path, prompts, name, negative, weight, steps, notes):
    tree = {
        **SOUND,
        "teachers": {"base": {"negative": negative, "guidance": 2}},
        "routes": [{"name": name, "teacher": "base", "bucket": {"prompts": prompts}, "weight": weight}],
        "steps": steps,
        "out": str(tmp_path / "out"),
    }
    recipe = taken(lambda: parse_recipe(tree))
    if recipe is not None:
        assert all(map(encodable, prompts))
        write_recipe(tmp_path / "written.yaml", recipe, notes)
        again = read_recipe(tmp_path / "written.yaml")
        assert again == recipe
        assert again.digest() == recipe.digest()
