"""Laws of atomic writes: what is there is complete, and an error changes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from danceopd_core.files import atomic, is_abandoned, is_temporary, remove_leftovers, write_bytes, write_text


def test_text_is_written_with_its_folder_and_its_line_ends(tmp_path):
    file = tmp_path / "new" / "folder" / "a.txt"
    write_text(file, "ä\nb\r\n")
    assert file.read_bytes() == "ä\nb\r\n".encode()
    write_text(file, "shorter")
    assert file.read_text() == "shorter"
    assert list(file.parent.iterdir()) == [file]


def test_until_the_end_of_the_block_a_reader_meets_the_old_file(tmp_path):
    file = tmp_path / "a"
    write_bytes(file, b"old")
    with atomic(file) as temporary:
        temporary.write_bytes(b"new")
        assert file.read_bytes() == b"old"
        assert temporary.parent == file.parent  # os.replace cannot cross file systems
    assert file.read_bytes() == b"new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("as_folder", [False, True])
def test_an_error_leaves_the_old_content_and_no_temporary_file(tmp_path, error, as_folder):
    place = tmp_path / "place"
    write_bytes(place, b"old")

    def fail():
        with atomic(place) as temporary:
            if as_folder:
                temporary.mkdir()
            (temporary / "half" if as_folder else temporary).write_bytes(b"new")
            raise error

    with pytest.raises(error):
        fail()
    assert place.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [place]


def test_a_block_that_writes_nothing_is_an_error_and_not_an_empty_file(tmp_path):
    with pytest.raises(FileNotFoundError), atomic(tmp_path / "a"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_folder_takes_the_place_of_an_empty_one_only(tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    with atomic(place) as temporary:
        temporary.mkdir()
        (temporary / "one").touch()
    assert [file.name for file in place.iterdir()] == ["one"]
    with pytest.raises(OSError, match="place"), atomic(place) as temporary:
        temporary.mkdir()
    assert [file.name for file in place.iterdir()] == ["one"]
    assert list(tmp_path.iterdir()) == [place]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_a_file_that_a_library_kept_to_its_owner_has_the_permissions_of_the_umask(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        with atomic(tmp_path / "a") as temporary:
            temporary.touch(0o600)
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == mode
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_what_a_killed_process_left_is_known_by_its_name(tmp_path):
    code = (
        "import os, signal, sys; from danceopd_core.files import atomic\n"
        "with atomic(sys.argv[1]) as part: part.touch(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], cwd=Path(__file__).parents[1], check=False)
    with atomic(tmp_path / "b") as mine:
        mine.touch()
        (tmp_path / "notes.part").touch()
        (left,) = {file.name for file in tmp_path.iterdir()} - {mine.name, "notes.part"}
        assert is_temporary(left)
        assert is_abandoned(left)
        assert not is_abandoned(mine.name)
        assert remove_leftovers(tmp_path, is_abandoned) == [left]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["b", "notes.part"]
    assert remove_leftovers(tmp_path / "none", is_abandoned) == []


def test_a_file_is_on_the_disk_before_it_replaces_another_and_its_folder_after_that(tmp_path, monkeypatch):
    calls = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda handle: (calls.append(os.readlink(f"/proc/self/fd/{handle}")), sync(handle))
    )
    monkeypatch.setattr(os, "replace", lambda *paths: (calls.append("replace"), replace(*paths)))
    write_bytes(tmp_path / "a", b"new")
    part, move, folder = calls
    assert part.endswith(".part")
    assert (move, folder) == ("replace", str(tmp_path))
