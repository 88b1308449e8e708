"""The best student of a run: how it is told, kept, taken back with a resumed run, and published."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from danceopd_core.errors import InputError
from danceopd_core.runs.files.history import UpdateLines
from danceopd_core.runs.files.run_id import run_of_lora
from danceopd_core.runs.files.run_lock import RunLock
from danceopd_core.runs.stored.publishing import publish_kept, saved_facts
from danceopd_core.runs.stored.records import RunRecord
from danceopd_core.runs.training.best import Best, BestFile, best_of, percent, wholes


def test_percent_is_of_the_start_and_a_route_that_begins_at_its_teacher_counts_by_the_farthest():
    start = {"a": 0.5, "kept": 0.0, "watched": 0.2}
    assert wholes(start, ["a", "kept"]) == {"a": 0.5, "kept": 0.5}
    assert percent(start, {"a": 0.25, "kept": 0.1, "watched": 9.0}, ["a", "kept"]) == pytest.approx((50 + 20) / 2)
    assert percent(start, {"a": None, "kept": 0.1}, ["a", "kept"]) is None
    assert percent({"a": 0.5}, {"a": 0.1, "kept": 0.1}, ["a", "kept"]) is None
    assert wholes({"a": 0.0}, ["a"]) == {}


def test_the_best_is_the_lowest_after_the_start():
    errors = {0: 0.5, 25: 0.3, 50: 0.2, 75: 0.2, 100: 0.4}
    entries = [{"update": update, "errors": {"a": error}} for update, error in errors.items()]
    assert best_of(entries, ["a"]) == Best(50, pytest.approx(40))
    assert best_of(entries[:1], ["a"]) is None
    assert best_of(entries[1:], ["a"]) is None  # a run that did not measure its start


def write(file, update, value=1.0, run="abc"):
    file.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"danceopd": json.dumps({"run": run, "update": update, "recipe": {}})}
    save_file({"transformer.a.lora_A.weight": torch.full((1, 2), value)}, file, metadata)


class Session:
    """Writes a student of an update, as a training session does."""

    class trainer:
        update = 0

    def write_student(self, path, date, run):
        write(path, self.trainer.update, self.trainer.update, run)


def kept(folder, *updates):
    session, best = Session(), BestFile(folder)
    for update in updates:
        session.trainer.update = update
        best.write(session, "abc")
    return best


@pytest.mark.parametrize(("update", "left"), [(30, 20), (25, 20), (15, 10), (40, 40), (5, None)])
def test_a_resumed_run_goes_back_to_the_best_that_it_had(tmp_path, update, left):
    best = kept(tmp_path, 10, 20, 40)
    best.cut(update)
    assert best.update == left
    assert sorted(path.name for path in tmp_path.iterdir()) == (["best.safetensors"] if left else [])


def test_a_saved_state_needs_no_earlier_best(tmp_path):
    best = kept(tmp_path, 10, 20)
    assert len(list(tmp_path.iterdir())) == 2
    best.settle()
    assert [path.name for path in tmp_path.iterdir()] == ["best.safetensors"]
    assert best.update == 20


@pytest.fixture
def record(tmp_path):
    """A finished run whose best student is of update 2 and whose last one, which is published, of update 4."""
    run = RunRecord(tmp_path / "output", "run")
    run.path.mkdir(parents=True)
    recipe = {
        "model": "shapes",
        "teachers": {"a": {}},
        "routes": [{"name": "a", "teacher": "a", "bucket": {"prompts": ["x"]}}],
    }
    (run.path / "recipe.yaml").write_text(json.dumps(recipe))
    (run.path / "run.json").write_text(json.dumps({"id": "abc", "stamps": {}}))
    (run.path / "identity.json").write_text("{}")
    write(run.path / "best.safetensors", 2, 2.0)
    write(run.path / "student.safetensors", 4, 4.0)
    write(run.lora, 4, 4.0)
    history = UpdateLines(run.path / "history.jsonl")
    for update in (1, 2, 3, 4):
        history.add({"update": update, "losses": {"a": 0.1}, "seconds": {"total": 1.5}})
    validations = UpdateLines(run.path / "validation.jsonl")
    for update, error in ((0, 0.5), (2, 0.1), (4, 0.2)):
        validations.add({"update": update, "errors": {"a": error}})
    run.write("status.json", {"state": "done", "update": 4, "steps": 4, "losses": {}, "pictures": []})
    return run


def test_the_best_is_published_by_one_call_and_the_last_again(record):
    assert saved_facts(record) == {
        "lora": "run.safetensors", "folder": "output/danceopd/run", "update": 4, "seconds": 6.0, "best_kept": True,
    }  # fmt: skip
    assert publish_kept(record, "best") == {"lora": "run.safetensors", "update": 2}
    assert float(load_file(record.lora)["transformer.a.lora_A.weight"][0, 0]) == 2
    assert run_of_lora(record.lora) == "abc"
    saved = record.status()["saved"]
    assert (saved["update"], saved["best_kept"]) == (2, False)
    card = record.lora.with_suffix(".md").read_text(encoding="utf-8")
    assert "0.5 → 0.1" in card
    assert publish_kept(record, "last")["update"] == 4
    assert "0.5 → 0.2" in record.lora.with_suffix(".md").read_text(encoding="utf-8")


def test_a_lora_of_somebody_else_is_left_alone(record):
    write(record.lora, 9, 9.0, "xyz")
    before = record.lora.read_bytes()
    assert publish_kept(record, "best") == {"lora": "run.1.safetensors", "update": 2}
    assert record.lora.with_name("run.safetensors").read_bytes() == before
    again = RunRecord(record.path.parents[1], "run")
    assert publish_kept(again, "last") == {"lora": "run.1.safetensors", "update": 4}  # its own, by now
    assert not record.lora.with_name("run.2.safetensors").exists()


def test_nothing_is_published_while_it_runs_or_where_there_is_nothing(record):
    before = record.lora.read_bytes()
    with RunLock(record.path), pytest.raises(InputError, match="in use by process"):
        publish_kept(record, "best")
    (record.path / "best.safetensors").unlink()
    with pytest.raises(InputError, match="no best checkpoint"):
        publish_kept(record, "best")
    assert record.lora.read_bytes() == before


HUGE = 10**400


@pytest.mark.parametrize("wrong", [HUGE, -HUGE, -1, float("nan"), float("inf"), True, "1", None])
def test_errors_that_are_no_distances_are_unknown(wrong):
    entries = [{"update": update, "errors": {"a": error}} for update, error in ((0, 0.5), (25, 0.3), (50, wrong))]
    assert best_of(entries, ["a"]).update == 25
    assert best_of([{"update": 0, "errors": {"a": wrong}}, entries[1]], ["a"]) is None
    assert best_of([entries[0], {"update": HUGE, "errors": {"a": 0.1}}, {"errors": {"a": 0.1}}], ["a"]) is None


def test_a_mean_that_no_float_holds_is_unknown():
    assert percent({"a": 1e-320}, {"a": 1e308}, ["a"]) is None


@pytest.mark.parametrize("update", [-1, 10**9 + 1, 10**300, 1.5, True])
def test_a_student_of_no_update_is_not_published(record, update):
    write(record.path / "best.safetensors", update)
    before = record.lora.read_bytes()
    with pytest.raises(InputError, match="no best checkpoint"):
        publish_kept(record, "best")
    assert record.lora.read_bytes() == before


@pytest.mark.parametrize("which", ["best", "last"])
def test_the_student_of_another_run_is_not_published(record, which):
    write(record.path / ("best.safetensors" if which == "best" else "student.safetensors"), 2, 2.0, "xyz")
    before = record.lora.read_bytes(), record.status()
    with pytest.raises(InputError, match="was written by another run"):
        publish_kept(record, which)
    assert (record.lora.read_bytes(), record.status()) == before
    assert not record.lora.with_suffix(".md").exists()


def test_leftovers_of_numbers_that_no_update_has_are_removed(tmp_path):
    best = kept(tmp_path, 10)
    for name in ("best--00007.safetensors", "best-999999999999999.safetensors"):
        (tmp_path / name).touch()
    best.path.unlink()
    best.cut(20)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("total", [HUGE, float("nan"), float("inf"), -5, "1"])
def test_seconds_that_are_none_are_left_out(record, total):
    UpdateLines(record.path / "history.jsonl").add({"update": 5, "losses": {}, "seconds": {"total": total}})
    assert saved_facts(record)["seconds"] == 6.0


@pytest.mark.parametrize(
    "name", ["x" * 5000, "\ud800.png", "a\0.png", "..", "a\\..\\b.png", "y" * 300 + ".png"], ids=range(6)
)
@pytest.mark.parametrize("strip", [False, True])
def test_a_picture_of_a_name_that_no_file_has_counts_as_absent(record, name, strip):
    """Two pictures in the status, one of which can be there."""
    (record.path / "pictures").mkdir()
    for row in range(2 if strip else 1):
        Image.new("RGB", (8, 8)).save(record.path / "pictures" / f"000002-{row:02d}.png")
    pictures = [
        {"prompt": f"prompt {url[-6:-4]}", "url": url} for url in ("/danceopd/000002-00.png", f"/danceopd/{name}")
    ]
    record.write("status.json", {**json.loads((record.path / "status.json").read_text()), "pictures": pictures})
    assert [picture["prompt"] for picture in record.status()["pictures"]] == ["prompt 00"]
    assert publish_kept(record, "best")["update"] == 2
    card = record.lora.with_suffix(".md").read_text(encoding="utf-8")
    assert card.count("000002-00.png") == 2  # in its head and its text
    assert "prompt 00" in card
