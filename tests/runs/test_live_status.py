"""What the page is told, and the files of runs and buckets."""

import json
import math

import numpy as np
import pytest

from danceopd_core.data import bucket_files
from danceopd_core.data.csv_rows import read_csv
from danceopd_core.errors import InputError
from danceopd_core.listening import Step
from danceopd_core.runs.live import live_status as live
from danceopd_core.runs.stored import records as runs


def status(sent):
    return live.LiveStatus("1:2", "1", "run", 1000, sent.append)


def test_every_event_is_plain_json():
    sent = []
    shown = status(sent)
    shown.publish(validation={"a": math.nan, "b": np.float64(1.5)}, losses={"a": math.inf})
    assert json.loads(json.dumps(sent[-1], allow_nan=False))["validation"] == {"a": None, "b": 1.5}
    assert type(sent[-1]["validation"]["b"]) is float


def test_updates_are_told_at_most_five_times_a_second_and_changes_of_state_at_once():
    sent = []
    shown = status(sent)
    shown.begin(0)
    for update in range(1, 200):
        shown.add_update(update, {"a": 1.0}, 5.0)
    assert len(sent) <= 3
    shown.publish(state="done")
    assert (sent[-1]["state"], sent[-1]["update"]) == ("done", 199)


def test_losses_of_routes_that_were_not_drawn_are_kept():
    shown = status([])
    shown.add_update(1, {"a": 1.0}, 0.0)
    shown.add_update(2, {"b": 2.0}, 0.0)
    assert shown.data["losses"] == {"a": 1.0, "b": 2.0}


def test_only_a_running_node_can_be_stopped():
    registry = live.RunRegistry()
    assert not registry.stop("1")
    with registry.running("1") as stop:
        assert registry.stop("1")
        assert stop.is_set()
    assert not registry.stop("1")


@pytest.mark.parametrize("name", ["", "a/b", "../x", "..", ".hidden", "a\\b", "x" * 101, "end.", "nul\0", "C:x"])
def test_a_name_is_one_files_name(name):
    with pytest.raises(InputError, match="name"):
        runs.check_name(name)


@pytest.mark.parametrize("name", ["student", " padded ", "my edit-v2.1", "学生"])
def test_ordinary_names_are_taken(name):
    assert runs.check_name(name) == name.strip()


def test_an_earlier_run_is_set_aside_and_not_lost(tmp_path):
    run = runs.RunRecord(tmp_path, "a")
    for number in (1, 2):
        run.write("identity.json", {"n": number})
        run.set_aside()
        assert json.loads((tmp_path / "danceopd" / f"a.{number}" / "identity.json").read_text()) == {"n": number}
    assert not run.path.exists()


def test_what_others_have_made_is_not_overwritten(tmp_path):
    run = runs.RunRecord(tmp_path, "a")
    run.path.mkdir(parents=True)
    run.check_free()
    (run.path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="name"):
        run.check_free()


def pictures(count, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 255, (8, 8, 3), dtype=np.uint8) for _ in range(count)]


def test_a_bucket_of_pictures_is_a_csv_that_the_core_reads(tmp_path):
    table = bucket_files.write_bucket(tmp_path, ["a", "b, c"], pictures(2), [])
    items = read_csv(table)
    assert [item.prompt for item in items] == ["a", "b, c"]
    assert all(item.source.exists() for item in items)


def test_the_same_bucket_is_the_same_folder(tmp_path):
    first = bucket_files.write_bucket(tmp_path, ["a"], pictures(1), [])
    assert bucket_files.write_bucket(tmp_path, ["a"], pictures(1), []) == first
    assert bucket_files.write_bucket(tmp_path, ["a"], pictures(1, seed=1), []) != first
    assert bucket_files.write_bucket(tmp_path, ["a"], [], pictures(1)) != first


def test_one_picture_serves_all_prompts_and_one_prompt_all_pictures(tmp_path):
    assert len({i.source for i in read_csv(bucket_files.write_bucket(tmp_path, ["a", "b"], pictures(1), []))}) == 1
    assert len({i.source for i in read_csv(bucket_files.write_bucket(tmp_path, ["a"], pictures(3), []))}) == 3


def test_counts_that_do_not_match_are_named(tmp_path):
    with pytest.raises(InputError, match="source_images"):
        bucket_files.write_bucket(tmp_path, ["a", "b", "c"], pictures(2), [])
    with pytest.raises(InputError, match="source_images: 3 pictures for 2 prompts"):
        bucket_files.write_bucket(tmp_path, ["a", "b"], pictures(3), [])
    with pytest.raises(InputError, match="target_images"):
        bucket_files.write_bucket(tmp_path, ["a"], pictures(3), pictures(2))


def test_work_is_shown_with_its_time_and_ends_with_the_next_message(monkeypatch):
    now, sent = [100.0], []
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    status = live.LiveStatus("9", "9", "run", 4, sent.append)
    status.show_work(Step("encoding", 0, 4))
    for done in (1, 2):
        now[0] += 3
        status.show_work(Step("encoding", done, 4))
    assert sent[-1]["work"] == {"what": "encoding", "done": 2, "total": 4, "seconds": 6.0, "eta": 6.0}
    count = len(sent)
    status.show_work(Step("encoding", 3, 4))  # too soon
    status.show_work(Step("loading"))
    assert sent[-1]["work"]["eta"] is None
    status.show_work(Step())
    assert sent[-1]["work"] is None
    status.show_work(Step())
    assert len(sent) == count + 2
    status.show_work(Step("loading"))
    status.publish(message="next")
    assert sent[-1]["work"] is None
