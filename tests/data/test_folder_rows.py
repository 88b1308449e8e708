"""Folders of pictures, JSONL and the tables of datasets are read as the same rows in a CSV would be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from danceopd_core.data import csv_rows
from danceopd_core.data.csv_rows import numbered_rows, read_csv, row_numbers
from danceopd_core.errors import InputError


def put(folder: Path, **files: str) -> Path:
    """Files by name, with `__` for the dot of an extension."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text, encoding="utf-8")
    return folder


def test_captions_beside_pictures(tmp_path):
    folder = put(tmp_path / "set", b__PNG="", b__txt="a  dog\nin snow ", a__jpg="", a__txt="a cat", notes__md="x")
    items = read_csv(folder)
    assert [(item.prompt, item.source, item.target) for item in items] == [
        ("a cat", None, folder / "a.jpg"),
        ("a dog in snow", None, folder / "b.PNG"),
    ]


def test_pairs_are_edits_and_their_targets_may_be_absent(tmp_path):
    folder = put(
        tmp_path / "set", a_source__png="", a_target__webp="", a__txt="make it red", b_source__png="", b__txt="x"
    )
    first, second = read_csv(folder)
    assert (first.prompt, first.source, first.target) == (
        "make it red",
        folder / "a_source.png",
        folder / "a_target.webp",
    )
    assert (second.source, second.target) == (folder / "b_source.png", None)


def test_a_picture_with_a_caption_of_its_own_is_no_half_of_a_pair(tmp_path):
    folder = put(tmp_path / "set", open_source__png="", open_source__txt="a logo")
    (item,) = read_csv(folder)
    assert (item.prompt, item.source, item.target) == ("a logo", None, folder / "open_source.png")


def test_captions_alone_are_prompts(tmp_path):
    assert [item.prompt for item in read_csv(put(tmp_path / "set", b__txt="b", a__txt="a"))] == ["a", "b"]


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"a__png": "", "b__png": "", "b__txt": "b"}, "a.png is without a caption"),
        ({"a__png": "", "a__txt": "a", "readme__txt": "x"}, "readme.txt is beside no picture"),
        ({"a__png": "", "a__txt": " \n"}, "a.txt is empty"),
        ({"a__png": "", "a__jpg": "", "a__txt": "a"}, "a.jpg and a.png, which have one name"),
        ({"a__png": "", "a_target__png": "", "a__txt": "a"}, "are both the target_image of a"),
        ({"a__md": "x"}, "holds no pictures with captions"),
        ({"metadata__csv": "prompt\na\n", "metadata__jsonl": "{}"}, "leave one of them out"),
    ],
)
def test_what_would_be_lost_in_silence_is_refused(tmp_path, files, told):
    with pytest.raises(InputError, match=told):
        read_csv(put(tmp_path / "set", **files))


def test_jsonl_is_read_as_csv(tmp_path):
    rows = [
        {"prompt": "make it red", "task": "local", "source_image": "a.png", "target_image": None},
        {"caption_dict": {"prompt": "far"}, "source_image": "/b.png", "extra": 3},
    ]
    file = tmp_path / "t.JSONL"
    file.write_text("\n\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    first, second = numbered_rows(file)
    assert (first.number, first.item.prompt, first.item.source) == (1, "make it red", tmp_path / "a.png")
    assert (second.number, second.item.prompt, str(second.item.source)) == (3, "far", "/b.png")
    assert [item.prompt for item in read_csv(file, "local")] == ["make it red"]


def test_a_large_jsonl_is_read_row_by_row(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_rows, "IN_MEMORY", 2)
    file = tmp_path / "t.jsonl"
    file.write_text(
        "\ufeff" + "".join(json.dumps({"prompt": f"häuser {n}"}) + "\n" for n in range(5)), encoding="utf-8"
    )
    rows = numbered_rows(file)
    assert not isinstance(rows, tuple)
    assert [rows[n].item.prompt for n in (4, 0, 2)] == ["häuser 4", "häuser 0", "häuser 2"]
    assert row_numbers(rows, "source", False) == [1, 2, 3, 4, 5]
    file.write_text("x")
    with pytest.raises(InputError, match="has changed"):
        _ = rows[1]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"prompt": "a"}\n{"prompt"', "row 2: the line is not valid JSON"),
        ('["a"]', "row 1: the line is no mapping"),
        ('{"text": "a"}', "text' looks like prompt"),
        ('{"prompt": "a"}\n{"promt": "b"}', "promt' looks like prompt"),
        ("", "holds no prompts"),
    ],
)
def test_a_faulty_line_is_named(tmp_path, text, told):
    file = tmp_path / "t.jsonl"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=told):
        read_csv(file)


def test_the_metadata_of_datasets(tmp_path):
    """https://huggingface.co/docs/datasets/image_dataset: file_name, and *_file_name for further pictures."""
    folder = put(tmp_path / "one", metadata__csv="file_name,text\nimg/a.png,a cat\n")
    (item,) = read_csv(folder)
    assert (item.prompt, item.source, item.target) == ("a cat", None, folder / "img" / "a.png")
    line = json.dumps({"input_image_file_name": "a.png", "edited_image_file_name": "b.png", "edit_prompt": "red"})
    folder = put(tmp_path / "two", metadata__jsonl=line)
    (item,) = read_csv(folder)
    assert (item.prompt, item.source, item.target) == ("red", folder / "a.png", folder / "b.png")


def test_a_folder_outside_is_refused_in_the_usual_sentence(tmp_path):
    put(tmp_path / "out", a__txt="a")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "out")
    for path in (tmp_path / "out", tmp_path / "in" / "link", tmp_path / "nowhere"):
        with pytest.raises(InputError, match="lies outside"):
            read_csv(path, roots=(tmp_path / "in",))
