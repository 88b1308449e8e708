"""The list of the runs on the disk, and deleting one: its own folder, and nothing else."""

from __future__ import annotations

import json
import os

import pytest
from filelock import FileLock

from danceopd_core.errors import InputError
from danceopd_core.runs.files.run_lock import RunLock
from danceopd_core.runs.stored import stored_runs as stored
from danceopd_core.runs.stored.records import RunRecord, all_runs
from danceopd_core.runs.stored.stored_runs import delete_run, stored_runs


def run_at(output, name, time, **files):
    record = RunRecord(output, name)
    (record.path / "pictures").mkdir(parents=True)
    for file, text in {"identity.json": "{}", "pictures/000000-00.png": "x" * 100, **files}.items():
        (record.path / file).write_text(text)
    for path in (record.path, record.path / "identity.json"):
        os.utime(path, (time, time))
    return record


def test_runs_are_listed_with_their_sizes_the_newest_first(tmp_path):
    status = '{"state": "done", "update": 7, "steps": 7, "losses": {}, "pictures": []}'
    run_at(tmp_path, "old", 1000.0)
    run_at(tmp_path, "new", 2000.0, **{"status.json": status})
    os.utime(tmp_path / "danceopd" / "new", (2000, 2000))
    found = stored_runs(tmp_path)
    assert [(run["name"], run["state"], run["update"], run["lora"]) for run in found] == [
        ("new", "done", 7, None), ("old", "", 0, None),
    ]  # fmt: skip
    assert found[1] == {"name": "old", "bytes": 102, "time": 1000.0, "state": "", "update": 0, "lora": None}


def test_a_deleted_run_is_gone_and_its_lora_and_neighbours_stay(tmp_path):
    record, other = run_at(tmp_path, "run", 1.0), run_at(tmp_path, "run.1", 1.0)
    record.lora.parent.mkdir()
    record.lora.write_bytes(b"lora")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept.txt").write_text("kept")
    (record.path / "link").symlink_to(outside)
    (record.path / "pictures" / "deep").symlink_to(outside)
    assert delete_run(record) >= 102
    assert not record.path.exists()
    assert record.lora.read_bytes() == b"lora"
    assert (outside / "kept.txt").exists()
    assert (other.path / "identity.json").exists()


def test_a_run_that_is_under_way_is_not_deleted(tmp_path):
    record = run_at(tmp_path, "run", 1.0)
    with RunLock(record.path), pytest.raises(InputError, match="in use by process"):
        delete_run(record)
    assert (record.path / "identity.json").exists()


def test_a_folder_that_is_a_link_is_not_followed(tmp_path):
    real = run_at(tmp_path / "elsewhere", "real", 1.0)
    (tmp_path / "danceopd").mkdir()
    (tmp_path / "danceopd" / "run").symlink_to(real.path)
    with pytest.raises(InputError, match="is a link"):
        delete_run(RunRecord(tmp_path, "run"))
    assert (real.path / "identity.json").exists()


def nest(folder, depth, monkeypatch):
    with monkeypatch.context() as patch:
        patch.chdir(folder)
        for _ in range(depth):
            os.mkdir("a")
            os.chdir("a")


def test_folders_that_lie_deep_in_each_other_are_listed_and_deleted(tmp_path, monkeypatch):
    record = run_at(tmp_path, "deep", 1.0)
    run_at(tmp_path, "other", 1.0)
    nest(record.path, 1500, monkeypatch)
    assert {run["name"]: run["bytes"] for run in stored_runs(tmp_path)} == {"deep": 102, "other": 102}
    assert delete_run(record) >= 102
    assert [path.name for path in record.path.parent.iterdir()] == ["other"]


def test_a_run_that_begins_while_another_of_its_name_is_deleted_keeps_its_folder(tmp_path, monkeypatch):
    record, begun = run_at(tmp_path, "run", 1.0), []
    size = stored._size

    def begins(folder):
        begun.append(RunLock(record.path).__enter__())
        (record.path / "recipe.yaml").write_text("new")
        return size(folder)

    monkeypatch.setattr(stored, "_size", begins)
    assert delete_run(record) >= 102
    with pytest.raises(InputError, match="in use by"), RunLock(record.path):
        pass
    begun[0].__exit__(None, None, None)
    assert (record.path / "recipe.yaml").read_text() == "new"
    assert [path.name for path in record.path.parent.iterdir()] == ["run"]


def test_a_folder_that_becomes_a_link_before_it_is_deleted_is_not_followed(tmp_path, monkeypatch):
    record, victim = run_at(tmp_path, "run", 1.0), run_at(tmp_path / "elsewhere", "victim", 1.0)
    enter = RunLock.__enter__

    def swapped(lock):
        held = enter(lock)
        record.path.rename(tmp_path / "moved")
        record.path.symlink_to(victim.path)
        return held

    monkeypatch.setattr(RunLock, "__enter__", swapped)
    with pytest.raises(InputError, match="is a link"):
        delete_run(record)
    assert (victim.path / "pictures" / "000000-00.png").exists()


def test_a_lock_in_a_folder_that_was_moved_away_is_not_taken(tmp_path, monkeypatch):
    acquire = FileLock.acquire

    def late(self, *args, **options):
        found = acquire(self, *args, **options)
        (tmp_path / "run").rename(tmp_path / "gone")
        return found

    monkeypatch.setattr(FileLock, "acquire", late)
    with pytest.raises(InputError, match="was deleted just now"):
        RunLock(tmp_path / "run").__enter__()


@pytest.mark.parametrize("file", ["x" * 5000 + ".safetensors", "\ud800.safetensors", "\x01.safetensors"], ids=range(3))
def test_a_hostile_status_spoils_no_other_run(tmp_path, file):
    saved = {"lora": file, "folder": "", "update": 1, "seconds": 1, "best_kept": True}
    pictures = [{"prompt": "a", "url": "x" * 5000}, {"prompt": "b", "url": "x/a.png"}, {"prompt": "c", "url": "\ud800"}]
    status = {"state": "done", "update": 7, "steps": 7, "losses": {}, "pictures": pictures, "saved": saved}
    bad = run_at(tmp_path, "bad", 2000.0, **{"status.json": json.dumps(status)})
    run_at(tmp_path, "good", 1000.0)
    assert [(run["name"], run["lora"]) for run in stored_runs(tmp_path)] == [("bad", None), ("good", None)]
    told = bad.status()  # none at all where the name can be no file's
    assert told is None or [picture["prompt"] for picture in told["pictures"]] == ["b"]


def test_runs_are_listed_under_names_that_a_run_can_have(tmp_path):
    run_at(tmp_path, "run", 1.0)
    for name in (".deleted-0123", "bad.safetensors", "con", "a~b"):
        (tmp_path / "danceopd" / name).mkdir()
        (tmp_path / "danceopd" / name / "identity.json").write_text("{}")
    (tmp_path / "danceopd" / "dangling").mkdir()
    (tmp_path / "danceopd" / "dangling" / "identity.json").symlink_to("nowhere")
    assert all_runs(tmp_path) == ["run"]
