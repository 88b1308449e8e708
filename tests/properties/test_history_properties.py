"""Histories and statuses of run folders that anyone may have written."""

import json
import math
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from danceopd_core.errors import InputError
from danceopd_core.runs.files.history import UpdateLines
from danceopd_core.runs.files.run_lock import HOLDER, RunLock, holder
from danceopd_core.runs.live.history_pages import history_page, json_pieces
from danceopd_core.runs.stored.records import RunRecord

from .texts import TREES

LINES = st.lists(
    TREES.map(json.dumps)
    | st.builds(lambda u, v: json.dumps({"update": u, "losses": {"a": v}}), st.integers(-5, 40), st.floats())
    | st.text(st.characters(exclude_categories=("Cs",)), max_size=30),
    max_size=8,
)


@given(LINES, st.integers(0, 40), st.none() | st.integers(1, 5))
def test_any_lines_are_a_page(tmp_path, lines, after, limit):
    for name in ("history.jsonl", "validation.jsonl"):
        (tmp_path / name).write_text("\n".join(lines), encoding="utf-8", newline="")
    page = history_page(tmp_path, after, limit)
    assert limit is None or len(page.updates) <= limit
    assert all(update > after for update in page.updates)
    assert all(len(values) == len(page.updates) for values in page.losses.values())
    found = json.loads(json_pieces(page.to_dict(), 2), parse_constant=lambda text: math.nan)
    assert found == json.loads(json.dumps(page.to_dict(), allow_nan=False))


@given(st.sets(st.integers(1, 60)), st.integers(1, 7))
def test_pages_together_are_the_history(tmp_path, updates, limit):
    ordered = sorted(updates)
    lines = [json.dumps({"update": update, "losses": {"a": 1.0, f"r{update % 2}": None}}) for update in ordered]
    (tmp_path / "history.jsonl").write_text("\n".join(lines))
    found, after = [], 0
    while after is not None:
        page = history_page(tmp_path, after, limit)
        found, after = found + page.updates, page.next
    assert found == ordered


def test_a_route_for_each_update_is_no_table_of_millions(tmp_path):
    lines = [json.dumps({"update": update, "losses": {f"r{update}": 1.0}}) for update in range(1, 5001)]
    (tmp_path / "history.jsonl").write_text("\n".join(lines))
    page = history_page(tmp_path)
    assert (len(page.losses), page.skipped) == (1000, 4000)


def test_a_resumed_history_leaves_out_what_is_no_update(tmp_path):
    deep = b'{"update": 1, "x": ' + b"[" * 970 + b"]" * 970 + b"}"
    lines = UpdateLines(tmp_path / "history.jsonl")
    lines.path.write_bytes(
        b"\n".join([deep, b'{"update": true}', b"\0" * 9, b'{"update": 1}', b'{"update": 2}', b'{"up'])
    )
    assert lines.cut(1) == (4, True)
    assert lines.path.read_bytes() == b'{"update": 1}\n'


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_a_history_that_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "history.jsonl")
    with pytest.raises(InputError, match="is not a regular file"):
        UpdateLines(tmp_path / "history.jsonl").cut(1)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_a_pipe_where_the_lock_names_its_process_blocks_nothing(tmp_path):
    os.mkfifo(tmp_path / HOLDER)
    with RunLock(tmp_path):
        assert holder(tmp_path).startswith(f"process {os.getpid()} on ")


@given(TREES | st.dictionaries(st.sampled_from(["state", "update", "steps", "losses", "pictures", "asked"]), TREES))
def test_any_status_is_one_or_none(tmp_path, tree):
    record = RunRecord(tmp_path, "run")
    record.path.mkdir(parents=True, exist_ok=True)
    for name in ("status.json", "identity.json"):
        (record.path / name).write_text(json.dumps(tree))
    (record.path / "history.jsonl").write_text(json.dumps({"update": 1, "losses": tree}) + '\n{"update": 2}')
    assert len(record.losses()) <= 1
    status = record.status()
    assert status is None or status["state"] in ("opening", "training", "done", "stopped", "cancelled", "failed")
    assert isinstance(record.identity(), dict)
