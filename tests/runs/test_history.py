"""The lines of a run's history, in a file that others may have written."""

from __future__ import annotations

import os

import pytest

from danceopd_core.errors import InputError
from danceopd_core.runs.files import history as module
from danceopd_core.runs.files.history import LIMIT, UpdateLines
from danceopd_core.runs.live import history_pages


def test_lines_that_are_no_entries_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LINE", 30)
    lines = UpdateLines(tmp_path / "history.jsonl")
    long, huge = '{"update": 2, "more": "' + "x" * 30 + '"}', '{"update": 1' + "0" * 12 + "}"
    lines.path.write_text("\n".join(['{"update": 1}', "", long, huge, '{"update": -1}', '{"update": 3}', '{"upd']))
    assert [entry["update"] for entry in lines.read()] == [1, 3]
    assert lines.cut(1) == (4, True)
    assert lines.path.read_text() == '{"update": 1}\n'


def test_a_file_that_is_too_large_is_refused(tmp_path, monkeypatch):
    lines = UpdateLines(tmp_path / "history.jsonl")
    lines.path.write_text('{"update": 1}\n' * 3)
    monkeypatch.setattr(module, "MOST_LINES", 2)
    with pytest.raises(InputError, match="more than 2 lines"):
        lines.read()
    os.truncate(lines.path, LIMIT + 1)  # takes no space
    with pytest.raises(InputError, match="more than 256 MiB"):
        lines.read()


def test_memory_that_runs_out_is_an_input_error(tmp_path, monkeypatch):
    lines = UpdateLines(tmp_path / "history.jsonl")
    lines.path.write_text('{"update": 1}\n')

    def full(*_):
        raise MemoryError

    monkeypatch.setattr(module, "is_update", full)
    with pytest.raises(InputError, match="more memory"):
        lines.read()


def test_memory_that_runs_out_over_a_page_is_an_input_error(tmp_path, monkeypatch):
    (tmp_path / "history.jsonl").write_text('{"update": 1}\n')

    def full(*_):
        raise MemoryError

    monkeypatch.setattr(history_pages, "read_text", full)
    with pytest.raises(InputError, match="more memory"):
        history_pages.history_page(tmp_path)


def test_a_line_that_is_too_deep_is_left_out(tmp_path):
    lines = UpdateLines(tmp_path / "history.jsonl")
    deep, wide = "[" * 70 + "]" * 70, "[" + "[], " * 70 + "[]]"
    lines.path.write_text(f'{{"update": 1, "more": {deep}}}\n{{"update": 2, "more": {wide}}}\n')
    assert [entry["update"] for entry in lines.read()] == [2]
