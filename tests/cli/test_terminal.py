"""What comes from files and arguments reaches the terminal escaped."""

import pytest

from danceopd_core.cli import main

RECIPE = """\
model: shapes
teachers: {base: {guidance: 2}}
routes: [{name: "draw \\e]0;taken\\a \\u009b2J", teacher: base, bucket: {prompts: [a circle]}}]
steps: 1
width: 64
height: 64
dtype: float32
"""
CONTROLS = {"\x1b", "\x07", "\x9b", "\r", "\x08"}


def test_names_of_a_recipe_are_escaped(tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    assert main(["train", str(tmp_path / "recipe.yaml"), f"out={tmp_path / 'run'}", "--dry-run"]) == 0
    told = capsys.readouterr()
    assert not CONTROLS & set(told.out + told.err)
    assert "draw \\x1b]0;taken\\x07 \\x9b2J" in told.out


@pytest.mark.parametrize("name", ["\udcff.yaml", "\x1b[2J.yaml", "a\x00b.yaml", "\ud800"])
@pytest.mark.parametrize("more", [[], ["optimizer.lr=\udcff\x1b[2J"], ["\x1b[2J=1"]])
def test_arguments_are_escaped(tmp_path, capsys, name, more):
    assert main(["train", f"{tmp_path}/{name}", *more]) == 2
    told = capsys.readouterr()
    assert not CONTROLS & set(told.out + told.err)
    told.err.encode()


def test_an_override_with_half_a_character_is_refused(tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    assert main(["train", str(tmp_path / "recipe.yaml"), "teachers.base.negative=\ud800", "--dry-run"]) == 2
    assert "teachers.base.negative: expected text" in capsys.readouterr().err
