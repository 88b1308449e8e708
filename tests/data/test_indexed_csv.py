"""A large CSV file is read row by row: the rows are those of Python's own DictReader, whatever the file looks like."""

from __future__ import annotations

import csv
import os
import random
from pathlib import Path

import pytest

from danceopd_core.data import csv_rows
from danceopd_core.data.csv_rows import items_of, numbered_rows, row_numbers
from danceopd_core.data.indexed_csv import IndexedCsv
from danceopd_core.errors import InputError


@pytest.fixture(autouse=True)
def _every_file_is_large(monkeypatch):
    monkeypatch.setattr(csv_rows, "IN_MEMORY", 0)


def written(path: Path, seed: int, end: str, mark: bytes) -> Path:
    """A file with quotes, line ends within cells, blank lines, short rows, and letters of one to four bytes."""
    random_ = random.Random(seed)
    words = ["a", "cat", "größe", "猫", "🐈", 'say "no"', "x, y", f"two{end}lines", " ", ""]

    def cell() -> str:
        text = " ".join(random_.choice(words) for _ in range(random_.randint(0, 4)))
        quoted = any(sign in text for sign in ',"\r\n') or random_.random() < 0.2
        return '"' + text.replace('"', '""') + '"' if quoted else text

    lines = ["prompt,task,source_image,target_image"]
    for _ in range(random_.randint(1, 40)):
        lines.append("" if random_.random() < 0.1 else ",".join(cell() for _ in range(random_.randint(1, 4))))
    lines.append("a last one without an end")
    path.write_bytes(mark + end.join(lines).encode())
    return path


def expected(path: Path) -> list[tuple[int, str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        rows = [(reader.line_num, " ".join((row["prompt"] or "").split()), row["source_image"]) for row in reader]
    return [(number, prompt, (source or "").strip()) for number, prompt, source in rows if prompt]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("seed", range(12))
def test_rows_are_those_of_the_dict_reader(tmp_path, seed, end, mark):
    path = written(tmp_path / "table.csv", seed, end, mark)
    rows, wanted = numbered_rows(path), expected(path)
    assert isinstance(rows, IndexedCsv)
    assert len(rows) == len(wanted)
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    for row in order:
        number, prompt, source = wanted[row]
        assert (rows[row].number, rows[row].item.prompt) == (number, prompt)
        assert rows[row].item.source == (tmp_path / os.path.expanduser(source) if source else None)
    assert [item.prompt for item in items_of(rows)] == [prompt for _, prompt, _ in wanted]
    assert [row.number for row in rows[1:-1]] == [number for number, _, _ in wanted][1:-1]
    for filled in (True, False):
        assert row_numbers(rows, "source", filled) == [n for n, _, source in wanted if bool(source) == filled]
        assert row_numbers(tuple(rows), "source", filled) == row_numbers(rows, "source", filled)


def test_the_rows_of_a_task_are_counted_among_themselves(csv_file):
    rows = numbered_rows(csv_file("prompt,task", "a,x", "b,y", "c,x"), " x ")
    assert [row.item.prompt for row in rows] == ["a", "c"]
    with pytest.raises(InputError, match="'z'"):
        numbered_rows(csv_file("prompt,task", "a,x", "b,y"), "z")


def test_a_file_that_changes_under_a_run_is_said(csv_file):
    path = csv_file("prompt", "a cat", "a dog")
    rows = numbered_rows(path)
    path.write_text("prompt\nanother cat\na dog\n", encoding="utf-8")
    with pytest.raises(InputError, match="changed since the run began"):
        rows[1]


@pytest.mark.skipif(os.name == "nt", reason="Windows replaces no file that is open")
def test_a_file_that_is_replaced_under_a_run_is_still_read(csv_file, tmp_path):
    path = csv_file("prompt", "a cat", "a dog")
    rows = numbered_rows(path)
    (tmp_path / "new").write_text("prompt\nno\n", encoding="utf-8")
    os.replace(tmp_path / "new", path)
    assert rows[1].item.prompt == "a dog"


def test_in_memory_there_are_few_bytes_a_row(csv_file):
    rows = numbered_rows(csv_file("prompt,source_image", *(f"cat number {n},{n}.png" for n in range(1000))))
    kept = sum(part.itemsize * len(part) for part in (rows._starts, rows._ends, rows.numbers)) + len(rows.marks)
    assert kept <= 25 * 1000
