"""The list of the runs on the disk, and deleting one: its own folder, and nothing else."""

from __future__ import annotations

import os

import pytest

from danceopd_core.errors import InputError
from danceopd_core.runs.records import RunRecord
from danceopd_core.runs.run_lock import RunLock
from danceopd_core.runs.stored_runs import delete_run, stored_runs


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
