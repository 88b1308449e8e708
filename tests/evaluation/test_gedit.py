"""GEdit-Bench's pictures: in its layout, with the sources that its scorer compares them with."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from danceopd_core.cli.parser import main
from danceopd_core.evaluation.generate import fitted_size

from ..tiny_families import save_flux
from .conftest import SMALL, contents, gedit_sees


@pytest.fixture
def go(zimage_folder, tmp_path):
    def run(source, *more, model=zimage_folder, name="mine"):
        given = ["eval", "gedit", str(source), "--model", str(model), "--name", name, "--out", str(tmp_path / "out")]
        return main([*given, *SMALL, *more])

    return run


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_scorer_finds_every_edit_with_its_source(go, edits, tmp_path):
    table = edits()
    assert go(table, "--language", "all") == 0
    found = gedit_sees(tmp_path / "out", "mine", rows(table))
    assert set(found) == {("k1", "en"), ("k1", "cn"), ("k2", "en"), ("k3", "en")}
    source, edit = found["k1", "en"]
    assert (np.asarray(source) == np.asarray(Image.open(tmp_path / "a.png"))).all()
    assert edit.size == (96, 64), "the raw picture is edited, at its own size as far as the model takes it"
    assert found["k2", "en"][1].size == (32, 32)
    names = {path.name for path in (tmp_path / "out/mine/fullset").rglob("*.*")}
    assert names == {f"{key}{end}.png" for key in ("k1", "k2", "k3") for end in ("", "_SRCIMG")}


def test_the_edit_is_of_the_raw_picture(go, edits, tmp_path):
    def edited(name):
        assert go(edits(), "--tasks", "subject-add", name=name) == 0
        return (tmp_path / f"out/{name}/fullset/subject-add/en/k1.png").read_bytes()

    first = edited("first")
    Image.new("RGB", (48, 32), "red").save(tmp_path / "a.png")
    assert edited("shown") == first
    Image.new("RGB", (100, 60), "red").save(tmp_path / "a_raw.png")
    assert edited("raw") != first


def test_languages_and_tasks_are_chosen_and_share_a_folder(go, edits, tmp_path):
    table = edits()
    assert go(table, "--tasks", "paper") == 2  # the table has not all of them
    assert go(table, "--tasks", "subject-add,style_change") == 0
    assert set(gedit_sees(tmp_path / "out", "mine", rows(table))) == {("k1", "en"), ("k2", "en")}
    assert go(table, "--language", "cn") == 0
    assert ("k1", "cn") in gedit_sees(tmp_path / "out", "mine", rows(table))
    assert go(table, "--pixels", "2048") == 2
    assert go(table, "--pixels", "2048", name="other") == 0
    assert Image.open(tmp_path / "out/other/fullset/subject-add/en/k1.png").size == (64, 32)


def test_a_source_that_was_lost_is_written_again_and_nothing_else(go, edits, tmp_path):
    assert go(edits()) == 0
    before = contents(tmp_path / "out")
    (tmp_path / "out/mine/fullset/style_change/en/k2_SRCIMG.png").unlink()
    assert go(edits()) == 0
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({0: {"key": "../../../up"}, 2: {"task_type": "a\\b"}}, ["2 faults", "line 1: its key", "line 3: its task"]),
        ({0: {"key": ".."}}, ["line 1: its key '..' begins"]),
        ({0: {"key": ""}, 1: {"instruction": " "}}, ["its key is missing", "line 2: has no instruction"]),
        ({2: {"instruction_language": "de"}}, ["line 3: its instruction_language is 'de'"]),
        ({2: {"input_image": "gone.png"}, 3: {"input_image": ""}}, ["gone.png cannot be read", "line 4: it has no"]),
        ({2: {"input_image": "edits.jsonl"}}, ["line 3: its input_image is not a readable picture"]),
        ({2: {"key": "K1", "task_type": "subject-add"}}, ["line 3: 'K1' would be written to the files of line 1"]),
        ({2: {"key": "k1_SRCIMG", "task_type": "subject-add"}}, ["line 3", "to the files of line 1"]),
    ],
)
def test_bad_rows_are_one_message_and_nothing_is_written(go, edits, tmp_path, monkeypatch, capsys, change, told):
    monkeypatch.setattr("danceopd_core.cli.evaluate.open_field", None)
    assert go(edits(change)) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in told), message
    assert not (tmp_path / "out").exists()


def test_names_that_leave_the_folder_and_models_that_do_not_edit_are_refused(go, edits, tmp_path, capsys):
    for name in ("../up", "..", "a/b", ""):
        assert go(edits(), name=name) == 2
        assert "--name" in capsys.readouterr().err
    assert go(edits(), model=save_flux(tmp_path / "flux")) == 2
    assert "FluxPipeline does not take source pictures" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_is_no_table_is_refused_with_the_way_out(go, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("danceopd_core.evaluation.tables.find_spec", lambda name: None)
    (tmp_path / "x.parquet").write_bytes(b"")
    for source, told in (
        (tmp_path / "x.parquet", "pip install pyarrow"),
        (tmp_path, "pip install datasets"),
        ("owner/name", "pip install datasets"),
        (tmp_path / "none.txt", "is not a table"),
    ):
        if source == tmp_path:
            (tmp_path / "x.parquet").unlink()
        assert go(source) == 2
        assert told in capsys.readouterr().err


def test_a_source_keeps_its_size_as_far_as_the_model_takes_it():
    assert fitted_size(640, 480, 16, 1024**2) == (640, 480)
    assert fitted_size(641, 487, 16, 1024**2) == (640, 480)
    assert fitted_size(4000, 3000, 16, 1024**2) == (1184, 880)
    assert fitted_size(5, 3, 16, 1024**2) == (16, 16)
    for width, height in ((1024, 1024), (2047, 1023), (9000, 100), (1030, 1019)):
        wide, high = fitted_size(width, height, 32, 1024**2)
        assert wide * high <= 1024**2
        assert wide % 32 == high % 32 == 0


def as_table(rows, folder):
    """The rows as Hugging Face has them: the files' bytes in a mapping."""
    return [
        {name: {"bytes": (folder / value).read_bytes(), "path": value} if "image" in name else value
         for name, value in {"input_image_raw": one["input_image"], **one}.items()}
        for one in rows
    ]  # fmt: skip


def test_parquet_files_are_the_same_table(go, edits, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    made = as_table(rows(edits()), tmp_path)
    (tmp_path / "shards").mkdir()
    for part in (0, 1):
        parquet.write_table(pyarrow.Table.from_pylist(made[2 * part :][:2]), tmp_path / f"shards/{part}.parquet")
    assert go(edits()) == 0
    assert go(tmp_path / "shards", name="other") == 0
    assert contents(tmp_path / "out/mine") == contents(tmp_path / "out/other")


def test_a_saved_dataset_is_the_same_table(go, edits, tmp_path):
    datasets = pytest.importorskip("datasets")
    made = as_table(rows(edits()), tmp_path)
    for one in made:
        for name in ("input_image", "input_image_raw"):
            one[name] = Image.open(io.BytesIO(one[name]["bytes"]))
    datasets.Dataset.from_list(made).save_to_disk(str(tmp_path / "saved"))
    assert go(edits()) == 0
    assert go(tmp_path / "saved", name="other") == 0
    assert contents(tmp_path / "out/mine") == contents(tmp_path / "out/other")
