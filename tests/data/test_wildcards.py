"""Wildcards in prompts: drawn by the seed, alike on every reading, each row as often as the others."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from danceopd_core.data.bucket_text import bucket_text
from danceopd_core.data.buckets import bucket_rows, load_bucket
from danceopd_core.data.csv_rows import Item
from danceopd_core.data.wildcards import expanded
from danceopd_core.errors import InputError
from danceopd_core.recipe.io import parse_recipe
from danceopd_core.recipe.schema import Bucket


def prompts(*lines: str, count=1, seed=0, folder=None, roots=None) -> list[str]:
    bucket = Bucket(prompts=lines, wildcards=count, wildcard_files=folder and str(folder))
    return [item.prompt for item in load_bucket(bucket, seed, roots=roots)]


def test_without_the_setting_braces_are_text():
    assert prompts("a {red|blue} cat __x__", count=0) == ["a {red|blue} cat __x__"]


def test_every_row_is_taken_as_often_and_draws_anew():
    found = prompts("a {red|blue|green} cat", "a dog", count=200)
    assert found[200:] == ["a dog"] * 200
    counts = [found[:200].count(f"a {colour} cat") for colour in ("red", "blue", "green")]
    assert sum(counts) == 200
    assert min(counts) > 40


def test_the_seed_alone_decides():
    line = "a {red|blue} {cat|dog} {in|on} {a|b|c}"
    assert prompts(line, count=20) == prompts(line, count=20)
    assert prompts(line, count=20) != prompts(line, count=20, seed=1)
    assert prompts(line, count=20)[:5] == prompts(line, count=5)  # more draws leave those before them


def test_inner_choices_are_drawn_first_and_empty_ones_leave_no_gap():
    found = set(prompts("a {|big|{very|} small} cat", count=100))
    assert found == {"a cat", "a big cat", "a very small cat", "a small cat"}


def test_files_hold_a_line_an_option(tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "colour.txt").write_text("# warm\nred\n\n{light|dark} blue\n", encoding="utf-8")
    (tmp_path / "more" / "animal.txt").write_text("cat\n", encoding="utf-8")
    found = set(prompts("a __colour__ __more/animal__", count=60, folder=tmp_path, roots=(tmp_path,)))
    assert found == {"a red cat", "a light blue cat", "a dark blue cat"}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("__loop__", "do not come to an end"),
        ("__empty__", "holds no lines"),
        ("__absent__", "cannot be read"),
    ],
)
def test_what_cannot_be_drawn_is_told_with_its_row(tmp_path, line, told):
    (tmp_path / "loop.txt").write_text("a __loop__", encoding="utf-8")
    (tmp_path / "empty.txt").write_text("# nothing\n", encoding="utf-8")
    with pytest.raises(InputError, match=told) as error:
        prompts("fine", line, folder=tmp_path)
    assert str(error.value).startswith("row 2: ")


def test_a_file_without_a_folder_and_one_outside_are_refused(tmp_path):
    with pytest.raises(InputError, match="no folder of wildcards"):
        prompts("__colour__")
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError, match="lies outside"):
        prompts("__colour__", folder=tmp_path, roots=(tmp_path / "in",))
    assert prompts("__../secret__ {a}", folder=tmp_path) == ["__../secret__ {a}"]  # no name of a file


def test_too_many_are_refused():
    with pytest.raises(InputError, match="lower wildcards"):
        prompts(*["a"] * 30, count=10_000)


@given(st.text(alphabet="{}|_a/ ", max_size=40))
def test_any_text_is_drawn_or_told(text):
    try:
        found = expanded(text, lambda place, options: place % options, lambda name: ("x", "y"))
    except InputError:
        return
    assert "\n" not in found


def test_a_csv_is_drawn_row_by_row_and_keeps_its_pictures(csv_file, tmp_path):
    path = csv_file("prompt,source_image", "make it {red|blue},a.png", "remove it,b.png")
    rows = bucket_rows(Bucket(csv=str(path), wildcards=3), 0)
    assert [row.number for row in rows] == [2, 2, 2, 3, 3, 3]
    assert {row.item.source for row in rows[:3]} == {tmp_path / "a.png"}


def test_wildcards_of_the_embedded_world_are_a_fault():
    recipe = {
        "model": "shapes", "teachers": {"a": {}},
        "routes": [{"name": "a", "teacher": "a", "bucket": {"shapes": "t2i", "wildcards": 2}}],
    }  # fmt: skip
    with pytest.raises(InputError, match=r"routes\[0\].bucket.wildcards"):
        parse_recipe(recipe)


def test_the_node_tells_how_many_and_what_may_be_amiss():
    bucket = Bucket(prompts=("a",))
    few = [Item("a {red|blue} cat")] * 20
    assert bucket_text(bucket, few).splitlines()[0] == "20 prompts"
    assert "few" in bucket_text(bucket, few)
    assert "plain text" in bucket_text(bucket, few)
    assert bucket_text(replace(bucket, wildcards=10), few * 10) == "20 prompts, 10 draws of each"
    assert bucket_text(bucket, [Item("a", source="a.png")] * 100) == "100 edits"
