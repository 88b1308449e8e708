"""Laws of atomic writes: what is there is complete, and an error changes nothing."""

from __future__ import annotations

import pytest

from danceopd_core.files import atomic, write_bytes, write_text


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
