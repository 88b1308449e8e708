import json
import os
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

from danceopd_core.data.images import picture_fault
from danceopd_core.errors import Fault, InputError, shown
from danceopd_core.models.registry import family_of
from danceopd_core.outside import parse_json, read_bytes, read_json, read_lines, read_text
from danceopd_core.weights.safetensors_io import open_header, open_safetensors


def test_a_regular_file_is_read_up_to_its_limit(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"\xef\xbb\xbf" + b"1" * 5)
    assert read_bytes(file, "the file", 8) == file.read_bytes()
    assert read_text(file, "the file") == "11111"
    assert read_json(file, "the file") == 11111
    with pytest.raises(InputError, match="more than 0 MiB"):
        read_bytes(file, "the file", 7)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_what_is_no_regular_file_neither_blocks_nor_fills_the_memory(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, "/dev/zero", tmp_path / "absent", "a\0b", "\ud800"):
        with pytest.raises(InputError, match=r"the recipe .* (is not a regular file|cannot be read)") as error:
            read_bytes(path, "the recipe")
        str(error.value).encode()


@pytest.mark.parametrize("text", ["[" * 100_000, "[" * 65 + "]" * 65, '{"a":' * 70 + "1" + "}" * 70, "{", "9" * 9999])
def test_json_that_cannot_be_read_is_one_sentence(text):
    with pytest.raises(InputError, match=r"^the file ") as error:
        parse_json(text, "the file")
    assert len(str(error.value)) < 200


def test_json_of_a_sane_depth_is_read():
    text = "[" * 64 + "]" * 64
    assert parse_json(text, "the file") == json.loads(text)


def test_no_control_character_and_no_surrogate_leaves_in_an_error():
    error = InputError("\x1b[31mred \ud800", [Fault("a\x00b", "line\x07 one\nline two")])
    assert str(error) == "\\x1b[31mred \\ud800\n  a\\x00b: line\\x07 one\nline two"
    assert shown("abcdefgh", 6) == "abc..."


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_lines_are_read_one_at_a_time_and_weights_from_regular_files(tmp_path):
    file = tmp_path / "table.csv"
    file.write_bytes(b"\xef\xbb\xbfa\r\nb\n\nc")
    assert list(read_lines(file, "the table")) == ["a\r\n", "b\n", "\n", "c"]
    file.write_bytes(b"a\n\xff\n")
    with pytest.raises(InputError, match="is not UTF-8 text"):
        list(read_lines(file, "the table"))
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InputError, match="is not a regular file"):
        list(read_lines(tmp_path / "fifo", "the table"))
    for path in (tmp_path / "fifo", Path("/dev/zero"), tmp_path / ("x" * 5000), tmp_path):
        with pytest.raises(InputError), open_safetensors(path):
            pass
        assert picture_fault(path)
        with pytest.raises(InputError):
            family_of(path)


def test_a_file_of_postscript_is_no_picture(tmp_path):
    file = tmp_path / "a.eps"
    Image.new("RGB", (8, 8)).save(file)
    assert "is not a readable picture" in picture_fault(file)
    for name in ("a.png", "a.jpg", "a.webp", "a.bmp", "a.gif", "a.tiff"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
        assert picture_fault(tmp_path / name) == ""


def test_headers_of_weights_larger_than_the_memory_are_read(tmp_path):
    """A file of 256 GiB, of which no byte is there. No error but ours leaves the opening of its weights."""
    file, size = tmp_path / "large.safetensors", 2**38
    header = json.dumps({"a": {"dtype": "I8", "shape": [size], "data_offsets": [0, size]}}).encode()
    with open(file, "wb") as target:
        target.write(len(header).to_bytes(8, "little") + header)
        target.truncate(8 + len(header) + size)
    with open_header(file) as handle:
        assert handle.get_slice("a").get_shape() == [size]
    with suppress(InputError), open_safetensors(file):  # refused where the system allows less
        pass
