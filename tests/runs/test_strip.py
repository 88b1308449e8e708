"""The picture strip of a run: what is kept of it, and what a folder that others wrote makes of it."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from danceopd_core.errors import InputError
from danceopd_core.runs.live.plots import SheetRow, contact_sheet
from danceopd_core.runs.live.strip import MOST, Strip, StripRow
from danceopd_core.runs.training.earlier_run import EarlierRun
from danceopd_core.runs.training.run_dir import RunFolder

ROWS = [StripRow("a cat", "draw"), StripRow("make it red", None)]
PICTURE = np.zeros((4, 4, 3), np.uint8)


@pytest.fixture
def strip(tmp_path):
    strip = Strip(tmp_path)
    assert not strip.begin(ROWS, "watch", 0)
    return strip


def test_rows_stand_beside_their_teachers_and_columns_follow_the_updates(strip):
    assert strip.lacks_teachers()
    strip.add_beside("teacher", {0: PICTURE})
    strip.add_beside("source", {1: PICTURE})
    assert not strip.lacks_teachers()  # the second row has no route
    for update in (0, 50, 25):
        strip.add(update, [PICTURE, PICTURE])
    (strip.folder / "000025-01.png").unlink()
    assert strip.table().to_dict(lambda file: f"/{file}") == {
        "rows": [
            {"prompt": "a cat", "route": "draw", "source": None, "teacher": "/teacher-00.png"},
            {"prompt": "make it red", "route": None, "source": "/source-01.png", "teacher": None},
        ],
        "columns": [
            {"update": 0, "pictures": ["/000000-00.png", "/000000-01.png"]},
            {"update": 25, "pictures": ["/000025-00.png", None]},
            {"update": 50, "pictures": ["/000050-00.png", "/000050-01.png"]},
        ],
    }
    assert [file.name for file in strip.last()] == ["000050-00.png", "000050-01.png"]


def test_columns_are_thinned_evenly_and_the_first_last_and_best_stay(strip):
    for update in range(0, 2500, 25):
        strip.add(update, [PICTURE])
        strip.thin(best=75 if update >= 75 else None)
    updates = list(strip.table().columns)
    assert len(updates) == MOST
    assert {0, 75, 2475} <= set(updates)
    gaps = np.diff([update for update in updates if update != 75])
    assert gaps.max() <= 4 * gaps.min()


def test_other_prompts_begin_another_strip(strip):
    strip.add(0, [PICTURE, PICTURE])
    strip.add_beside("teacher", {0: PICTURE})
    assert strip.begin(ROWS, "watch", 25)
    assert list(strip.table().columns) == [0]
    assert not strip.begin(ROWS[:1], "other", 25)
    strip.add(50, [PICTURE])
    assert list(strip.table().columns) == [50]
    assert strip.table().teachers == (None,)


def test_a_run_of_an_earlier_release_has_the_pictures_alone(tmp_path):
    strip = Strip(tmp_path)
    assert strip.table(["a cat"]).to_dict(str)["columns"] == []
    strip.folder.mkdir()
    strip.add(25, [PICTURE])
    found = strip.table(["a cat"]).to_dict(str)
    assert found["rows"] == [{"prompt": "a cat", "route": None, "source": None, "teacher": None}]
    assert found["columns"] == [{"update": 25, "pictures": ["000025-00.png"]}]


BAD = ["", "[]", '{"rows": 3, "since": 0, "watch": ""}', '{"rows": [{"prompt": 1}], "since": 0, "watch": ""}',
       '{"rows": [], "since": "0", "watch": ""}', "[" * 100_000,
       json.dumps({"rows": [{"prompt": "x", "route": ["y"]}], "since": 0, "watch": ""})]  # fmt: skip


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_a_file_that_is_no_strip_is_none(strip, tmp_path, text):
    strip.add(0, [PICTURE])
    (tmp_path / "strip.json").write_text(text)
    assert strip.table().to_dict(str) == {"rows": [], "columns": []}
    assert not strip.begin(ROWS, "watch", 0)


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="needs links")
def test_a_folder_of_pictures_that_is_a_link_is_neither_read_nor_written(tmp_path):
    outside, run = tmp_path / "outside", tmp_path / "run"
    outside.mkdir()
    run.mkdir()
    names = ["000300-00.png", "teacher-00.png", "source-00.png"]
    for name in names:
        (outside / name).write_bytes(b"x")
    (run / "pictures").symlink_to(outside)
    strip = Strip(run)
    for attempt in (lambda: strip.begin(ROWS, "watch", 0), lambda: strip.add(0, [PICTURE])):
        with pytest.raises(InputError, match="is a link to another folder"):
            attempt()
    strip.cut(0)
    strip.thin(None)
    assert strip.last() == []
    with pytest.raises(InputError, match="is a link to another folder"):
        EarlierRun(run, RunFolder(run).states).own_folders()
    assert sorted(path.name for path in outside.iterdir()) == sorted(names)


def test_a_cut_leaves_pictures_that_name_no_update(strip):
    for name in ("000300.png", "000300-00.png", "000300-cat.png", "000010-00.png", "teacher-00.png"):
        (strip.folder / name).write_bytes(b"x")
    strip.cut(180)
    assert sorted(file.name for file in strip.folder.iterdir()) == ["000010-00.png", "000300.png", "teacher-00.png"]


def test_a_table_has_no_more_than_a_page_can_show(strip):
    rows = [{"prompt": "x" * 2500, "route": None}] * 5000
    (strip.folder.parent / "strip.json").write_text(json.dumps({"watch": "", "since": 0, "rows": rows}))
    for update in range(100):
        (strip.folder / f"{update:06d}-00.png").touch()
    table = strip.table()
    assert (len(table.rows), len(table.sources), len(table.teachers)) == (64, 64, 64)
    assert list(table.columns) == list(range(100 - MOST, 100))
    assert {len(files) for files in table.columns.values()} == {64}
    assert {len(row.prompt) for row in table.rows} == {2000}
    (strip.folder.parent / "strip.json").unlink()
    assert len(strip.table(["a"] * 5000).rows) == 64


def test_a_long_prompt_is_cut_on_a_sheet():
    sheets = [contact_sheet([""], [SheetRow("a b " * count, [None])]).tobytes() for count in (200, 10**6)]
    assert sheets[0] == sheets[1]
    contact_sheet([""], [SheetRow("\ud800", [None])])
