"""Quick checks of CSV tables, before anything of them is used."""

import numpy as np
import pytest
from PIL import Image

from danceopd_core.data.tables import table_faults


@pytest.fixture
def told(tmp_path):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "black.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")

    def faults(text, task=None, most=100):
        (tmp_path / "table.csv").write_text(text, encoding="utf-8")
        return " | ".join(table_faults(tmp_path / "table.csv", task, None, most))

    return faults


def test_a_sound_table_has_no_fault(told):
    assert told("prompt,task,source_image\nmake it red,edit,black.png\n") == ""
    assert told("prompt\na star\n") == ""


@pytest.mark.parametrize("task", ["edit", "local_edit", "Global Edit", "edits"])
def test_edits_without_any_source_are_told(told, task):
    assert "learned as text-to-image" in told(f"prompt,task,source_image\nmake it red,{task},\n")


@pytest.mark.parametrize("task", ["t2i", "credit", "edited pictures", ""])
def test_other_tasks_need_no_source(told, task):
    assert told(f"prompt,task,source_image\na star,{task},\n") == ""


def test_rows_of_another_task_do_not_count(told):
    text = "prompt,task,source_image\nmake it red,edit,\na star,t2i,\n"
    assert told(text, "t2i") == ""
    assert "learned as text-to-image" in told(text, "edit")


def test_pictures_are_looked_at_by_their_headers_up_to_a_number(told):
    text = "prompt,source_image\nmake it red,black.png\nmake it red,broken.png\nmake it red,absent.png\n"
    faults = told(text)
    assert ", row 3: " in faults
    assert "is not a readable picture (it is of no known format)" in faults
    assert ", row 4: " in faults
    assert "does not exist" in faults
    assert told(text, most=2) == ""


def test_many_faults_are_counted(told):
    rows = "".join("make it red,broken.png\n" for _ in range(12))
    assert ": 2 more pictures cannot be used" in told(f"prompt,source_image\n{rows}")


def test_what_cannot_be_read_is_told(told):
    assert "has no column prompt" in told("text\na star\n")
    assert "no task" in told("prompt,task\na star,t2i\n", "edit")
