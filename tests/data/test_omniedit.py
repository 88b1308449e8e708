"""OmniEdit's metadata becomes a CSV that this package reads, or all its faults are reported and nothing is written."""

import csv
import io
import json
import os
import sys

import pytest
from PIL import Image

from danceopd_core.cli.parser import main
from danceopd_core.data.csv_rows import read_csv
from danceopd_core.data.omniedit import convert_omniedit
from danceopd_core.errors import InputError


def row(**changes):
    return {
        "omni_edit_id": "task_obj/../swap 1",
        "task": "object_swap",
        "src_img": "in/a.png",
        "edited_img": "in/b.jpg",
        "edited_prompt_list": ["  ", "swap  the cat", "another wording"],
        "o_score": 8.5,
    } | changes


@pytest.fixture
def metadata(tmp_path, picture_file):
    """Writes rows as a file of any kind beside two pictures, and gives its path."""
    for name in ("in/a.png", "in/b.jpg"):
        picture_file(name)

    def write(rows, kind="jsonl"):
        path = tmp_path / f"rows.{kind}"
        if kind == "csv":
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, rows[0])
                writer.writeheader()
                writer.writerows(rows)
        elif kind == "json":
            path.write_text(json.dumps({"version": 1, "data": rows}))
        else:
            path.write_text("\n".join(json.dumps(entry) for entry in rows))
        return str(path)

    return write


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl"])
def test_every_kind_of_metadata_gives_the_csv_that_is_trained_on(metadata, tmp_path, kind):
    rows = [row(), row(task="style", omni_edit_id="", edited_img="", edited_prompt_list=["as a, watercolour"])]
    made = convert_omniedit(metadata(rows, kind), tmp_path / "new" / "out")
    assert made.tasks == {"local_edit": 1, "global_edit": 1}
    first, second = read_csv(tmp_path / "new" / "out" / "edits.csv")
    assert (first.prompt, first.task) == ("swap the cat", "local_edit")
    assert first.source.read_bytes() == (tmp_path / "in" / "a.png").read_bytes()
    assert first.target.read_bytes() == (tmp_path / "in" / "b.jpg").read_bytes()
    assert first.source.parent == tmp_path / "new" / "out" / "source"
    assert (first.source.suffix, first.target.suffix) == (".png", ".jpg")
    assert (second.prompt, second.task, second.target) == ("as a, watercolour", "global_edit", None)
    for item in (first, second):
        assert set(item.source.stem) <= set("0123456789-_abcdefghijklmnopqrstuvwxyz")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["out"]


@pytest.mark.parametrize(
    ("kind", "task"),
    [
        ("style_transfer", "global_edit"),
        ("Background Swap", "global_edit"),
        ("env", "global_edit"),
        ("environment", "global_edit"),
        ("weather-change", "global_edit"),
        ("tone", "global_edit"),
        ("global_edit", "global_edit"),
        ("removal", "local_edit"),
        ("stone_addition", "local_edit"),
        ("attribute_modification", "local_edit"),
    ],
)
def test_the_words_of_the_edits_type_route_it(metadata, tmp_path, kind, task):
    assert convert_omniedit(metadata([row(task=kind)]), tmp_path / "out").tasks == {task: 1}


def test_prompts_are_the_first_text_there_is(metadata, tmp_path):
    lists = ["['it\\'s red', 'b']", '["c"]', "[not a list", "plain", "a\0b \ud800"]
    convert_omniedit(metadata([row(edited_prompt_list=text) for text in lists]), tmp_path / "out")
    found = [item.prompt for item in read_csv(tmp_path / "out" / "edits.csv")]
    assert found == ["it's red", "c", "[not a list", "plain", "a b ?"]


def test_a_score_and_a_limit_choose_rows(metadata, tmp_path):
    rows = [row(o_score=score, edited_prompt_list=[str(score)]) for score in (9, 3, "8.0", 7, 10)]
    convert_omniedit(metadata(rows), tmp_path / "out", min_score=7, limit=3)
    assert [item.prompt for item in read_csv(tmp_path / "out" / "edits.csv")] == ["9", "8.0", "7"]


BAD = [
    row(edited_prompt_list=[]),
    row(task=" ", src_img="in/none.png"),
    row(src_img=None),
    row(),
    row(edited_img="rows.jsonl"),
    row(src_img="https://example.com/a.png"),
    row(src_img=7),
    row(o_score="good"),
]
TOLD = [
    r"row 1: it has no prompt\n",
    r"row 2: it has no task; its source cannot be used: the picture .*in/none\.png cannot be read: No such file",
    r"row 3: it has no source picture\n",
    r"row 5: its target is not a readable picture",
    r"row 6: its source is a URL, https://example\.com/a\.png: download it",
    r"row 7: its source is of type int, not a picture",
    r"row 8: its o_score is not a number: 'good'",
    r"row 9: it is not valid JSON",
    r"row 10: it is not a mapping",
]


def test_every_bad_row_is_reported_at_once_and_nothing_is_written(metadata, tmp_path):
    path = metadata(BAD)
    with open(path, "a", encoding="utf-8") as file:
        file.write("\n{\n[1]\n")
    with pytest.raises(InputError, match=r"9 rows that cannot be used[^$]*" + "[^$]*".join(TOLD)) as caught:
        convert_omniedit(path, tmp_path / "out", min_score=1)
    assert "row 4" not in str(caught.value)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["in", "rows.jsonl"]
    made = convert_omniedit(path, tmp_path / "out", min_score=1, skip_bad=True)
    assert made.tasks == {"local_edit": 1}
    assert len(made.left_out) == 9


def test_only_an_empty_folder_is_written_to(metadata, tmp_path):
    path = metadata([row()])
    (tmp_path / "out").mkdir()
    convert_omniedit(path, tmp_path / "out")
    before = (tmp_path / "out" / "edits.csv").read_bytes()
    for out in (tmp_path / "out", tmp_path / "rows.jsonl"):
        with pytest.raises(InputError, match=f"{out} is not empty"):
            convert_omniedit(path, out)
    assert (tmp_path / "out" / "edits.csv").read_bytes() == before


def test_an_interrupt_leaves_nothing(metadata, tmp_path, monkeypatch):
    def interrupted(value, folder):
        raise KeyboardInterrupt

    monkeypatch.setattr("danceopd_core.data.omniedit.picture_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert_omniedit(metadata([row()]), tmp_path / "out")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["in", "rows.jsonl"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "[", "is not valid JSON"),
        ("a.json", '{"a": [1], "b": [2]}', "is neither a list of rows"),
        ("a.jsonl", "", "holds no usable edits"),
        ("a.csv", "prompt,task\nx,y\n", r"has no column for the source \(src_img, source_image\): it has prompt, task"),
        ("a.csv", "prompt,task,src_img\nx,y,z,w\n", r"row 2: it is longer than the header"),
        ("a.txt", "", r"is neither a \.csv, \.json, \.jsonl file nor"),
    ],
)
def test_files_without_metadata_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        convert_omniedit(str(tmp_path / name), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="cannot be read"):
        convert_omniedit(str(tmp_path / "absent.csv"), tmp_path / "out")
    with pytest.raises(InputError, match="limit of 0"):
        convert_omniedit(str(tmp_path / name), tmp_path / "out", limit=0)


DATASETS = """
import PIL.Image

class Image:
    def __init__(self, decode=True):
        self.decode = decode

class Found:
    features = {"src_img": Image(), "task": None}
    decoded = True
    def cast_column(self, column, kind):
        assert (column, kind.decode) == ("src_img", False)
        self.decoded = False
        return self
    def __iter__(self):
        assert not self.decoded
        data = open("in/a.png", "rb").read()
        yield {"task": "env", "edited_prompt_list": ["a"], "src_img": {"bytes": data, "path": "a"},
               "edited_img": PIL.Image.new("RGB", (8, 8), "red")}
        yield {"task": "env", "edited_prompt_list": ["b"], "src_img": "in/a.png"}

def load_dataset(name, split, streaming, trust_remote_code, revision):
    assert not trust_remote_code and revision is None
    if split != "dev":
        raise ValueError(f"Unknown split {split}")
    assert (name, streaming) == ("some/edits", True)
    return Found()
"""


def test_a_dataset_holds_its_pictures_itself(metadata, tmp_path, monkeypatch):
    metadata([row()])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "datasets.py").write_text(DATASETS)
    monkeypatch.syspath_prepend(tmp_path / "lib")
    monkeypatch.delitem(sys.modules, "datasets", raising=False)
    made = convert_omniedit("some/edits", tmp_path / "out", split="dev", skip_bad=True)
    assert "a path, in/a.png, but a dataset has no folder" in made.left_out[0]
    (item,) = read_csv(tmp_path / "out" / "edits.csv")
    assert item.source.read_bytes() == (tmp_path / "in" / "a.png").read_bytes()
    assert Image.open(io.BytesIO(item.target.read_bytes())).getpixel((0, 0)) == (255, 0, 0)
    with pytest.raises(InputError, match=r"some/edits, split test, cannot be read: Unknown split"):
        convert_omniedit("some/edits", tmp_path / "other", split="test")
    del sys.modules["datasets"]  # monkeypatch would put it back in the end


def test_without_datasets_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("danceopd_core.data.metadata_rows.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"some/edits is not a file;.*pip install datasets"):
        convert_omniedit("some/edits", tmp_path / "out")


def test_the_command_says_what_it_wrote_and_what_it_left_out(metadata, tmp_path, capsys):
    path = metadata([row(), row(src_img=None), row(task="style")])
    assert main(["data", "omniedit", path, "--out", str(tmp_path / "out")]) == 2
    assert "row 2: it has no source picture" in capsys.readouterr().err
    assert main(["data", "omniedit", path, "--out", str(tmp_path / "out"), "--skip-bad"]) == 0
    err = capsys.readouterr().err
    assert "left out row 2" in err
    assert f"wrote {tmp_path / 'out' / 'edits.csv'}: 1 global_edit, 1 local_edit" in err
    assert len(os.listdir(tmp_path / "out" / "source")) == 2


def test_names_with_spaces_around_them_are_read_and_misspelt_ones_told(metadata, tmp_path):
    spaced = {f" {name} ": value for name, value in row().items()}
    for kind in ("json", "jsonl"):
        assert convert_omniedit(metadata([spaced], kind), tmp_path / f"out-{kind}").tasks == {"local_edit": 1}
    wrong = {name.replace("edited_img", "edited_imgs"): value for name, value in row().items()}
    with pytest.raises(InputError, match=r"'edited_imgs', which is not read and looks like that of the target"):
        convert_omniedit(metadata([wrong]), tmp_path / "out")


def test_an_open_quote_in_metadata_is_told(tmp_path):
    (tmp_path / "rows.csv").write_text('prompt,task,src_img\n"a,swap,b.png\nc,swap,d.png\n')
    with pytest.raises(InputError, match=r"rows\.csv is not a readable CSV file: the row that begins in line 2"):
        convert_omniedit(str(tmp_path / "rows.csv"), tmp_path / "out")
