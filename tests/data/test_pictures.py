"""Laws of pictures: upright, opaque, eight bits, cropped at the centre, of the requested size."""

import io
import os
import random
import struct

import numpy as np
import pytest
from PIL import Image

from danceopd_core.data.images import open_picture, picture_fault, upright, upright_size
from danceopd_core.data.orientation import exif_orientation
from danceopd_core.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # of broken metadata

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def one_colour(path, width=10, height=10) -> tuple[int, ...]:
    assert not picture_fault(path)
    picture = open_picture(path, width, height)
    assert picture.shape == (height, width, 3)
    assert picture.dtype == np.uint8
    assert picture.flags.writeable
    assert np.ptp(picture.reshape(-1, 3), axis=0).max() <= 2
    return tuple(picture[0, 0].tolist())


@pytest.mark.parametrize(
    ("image", "seen"),
    [
        (Image.new("RGB", (30, 20), RED), RED),
        (Image.new("RGBA", (30, 20), (*RED, 255)), RED),
        (Image.new("RGBA", (30, 20), (*RED, 0)), WHITE),
        (Image.new("RGBA", (30, 20), (0, 0, 0, 51)), (204, 204, 204)),
        (Image.new("LA", (30, 20), (0, 0)), WHITE),
        (Image.new("L", (30, 20), 100), (100, 100, 100)),
        (Image.new("1", (30, 20), 1), WHITE),
        (Image.new("RGB", (30, 20), BLUE).quantize(4), BLUE),
        (Image.fromarray(np.full((20, 30), 32896, np.uint16)), (128, 128, 128)),
    ],
)
def test_every_mode_becomes_rgb(tmp_path, image, seen):
    image.save(tmp_path / "a.png")
    assert one_colour(tmp_path / "a.png") == seen


def test_a_transparent_palette_colour_is_white(tmp_path):
    image = Image.new("P", (30, 20), 0)
    image.putpalette([*RED, *BLUE])
    image.save(tmp_path / "a.png", transparency=0)
    assert one_colour(tmp_path / "a.png") == WHITE


def test_cmyk_becomes_rgb(tmp_path):
    Image.new("CMYK", (30, 20), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    assert one_colour(tmp_path / "a.jpg")[0] > 200


def test_the_camera_was_turned(tmp_path):
    image = Image.new("RGB", (32, 16), RED)
    image.paste(BLUE, (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = 6  # the top of the scene is at the right of the file
    image.save(tmp_path / "a.png", exif=exif)
    upright = open_picture(tmp_path / "a.png", 16, 32)
    assert tuple(upright[2, 8]) == BLUE
    assert tuple(upright[-3, 8]) == RED


@pytest.mark.parametrize(("width", "height"), [(40, 10), (10, 40), (20, 20), (7, 3), (1, 1)])
def test_the_centre_is_kept_and_nothing_is_stretched(width, height):
    side = 90
    y, x = np.mgrid[:side, :side]
    disc = ((x - 44.5) ** 2 + (y - 44.5) ** 2 < 100)[..., None] * np.uint8(255)
    picture = open_picture(np.repeat(disc, 3, 2), width, height).astype(float)[..., 0] / 255
    assert picture.shape == (height, width)
    assert np.allclose(picture, picture[::-1, ::-1], atol=0.02)
    if min(width, height) >= 10:  # the disc is as wide as it is high
        assert (picture.max(0) > 0.5).sum() == pytest.approx((picture.max(1) > 0.5).sum(), abs=1)


def test_a_picture_of_the_right_size_is_left_alone():
    picture = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    assert np.array_equal(open_picture(picture, 24, 16), picture)


@pytest.mark.parametrize("picture", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)])
def test_other_arrays_are_refused(picture):
    with pytest.raises(InputError, match="give uint8"):
        open_picture(picture, 8, 8)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp"])
def test_damaged_files_are_named(tmp_path, picture_file, suffix):
    good = picture_file(f"good.{suffix}")
    assert not picture_fault(good)
    bad = tmp_path / f"bad.{suffix}"
    for content in (good.read_bytes()[:600], b"", b"text", b"\x89PNG\r\n\x1a\n" + b"\0" * 50):
        bad.write_bytes(content)
        assert str(bad) in picture_fault(bad)
        assert "\n" not in picture_fault(bad)
        with pytest.raises(InputError, match=f"bad.{suffix} is not a readable picture"):
            open_picture(bad, 8, 8)


def test_absent_files_and_folders_are_named(tmp_path):
    for path in (tmp_path / "absent.png", tmp_path):
        assert "does not exist or is not a file" in picture_fault(path)
        with pytest.raises(InputError, match="does not exist or is not a file"):
            open_picture(path, 8, 8)


def test_floating_point_pictures_are_refused(tmp_path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(InputError, match=r"a\.tiff is not a readable picture \(it holds floating-point numbers"):
        open_picture(tmp_path / "a.tiff", 8, 8)


def test_the_smallest_picture_is_one(tmp_path):
    for suffix in ("png", "jpg"):
        Image.new("RGB", (1, 1), RED).save(tmp_path / f"a.{suffix}", quality=100)
        one_colour(tmp_path / f"a.{suffix}", 4, 4)


def jpeg(*segments: bytes) -> bytes:
    """A picture of red above blue, 48 x 32, with these application segments."""
    image = Image.new("RGB", (48, 32), RED)
    image.paste(BLUE, (0, 16, 48, 32))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95)
    data = buffer.getvalue()
    extra = b"".join(b"\xff\xe1" + struct.pack(">H", len(part) + 2) + part for part in segments)
    return data[:2] + extra + data[2:]


def exif(*tags: bytes, order: str = "<", count: int | None = None, rest: bytes = b"") -> bytes:
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8)
    return b"Exif\0\0" + head + struct.pack(f"{order}H", len(tags) if count is None else count) + b"".join(tags) + rest


def turned(value: int, order: str = "<", kind: int = 3) -> bytes:
    return struct.pack(f"{order}HHIHH", 0x0112, kind, 1, value, 0)


BROKEN = {
    "XMP that is no UTF-8": ((b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta>caf\xa8\xe9</x:xmpmeta>",), False),
    "XMP with an orientation alone": ((b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"/>',), False),
    "0 of 0 in a resolution": (
        (exif(turned(6), struct.pack("<HHII", 0x011B, 5, 1, 50), rest=bytes(16)),),
        True,
    ),
    "-1 of 0 in a resolution": (
        (exif(turned(6), struct.pack("<HHII", 0x011B, 10, 1, 38), rest=struct.pack("<ii", -1, 0)),),
        True,
    ),
    "cut short behind the orientation": ((exif(turned(6), count=40),), True),
    "cut short before it": ((exif(count=40),), False),
    "a type that does not exist": ((exif(struct.pack("<HHII", 0x010F, 99, 7, 1 << 31), turned(6)),), True),
    "a place far behind the end": ((exif(struct.pack("<HHII", 0x8769, 4, 1, 1 << 31), turned(6)),), True),
    "big ends first": ((exif(turned(6, ">"), order=">"),), True),
    "an orientation of 99": ((exif(turned(99)),), False),
    "an orientation of another type": ((exif(turned(6, kind=2)),), False),
    "no order of bytes": ((b"Exif\0\0XX*\0\x08\0\0\0",), False),
    "nothing but its name": ((b"Exif\0\0",), False),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_picture_with_broken_metadata_is_turned_by_the_one_tag_that_says_it(tmp_path, case):
    segments, swapped = BROKEN[case]
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(*segments))
    assert not picture_fault(path)
    size = (32, 48) if swapped else (48, 32)
    assert upright(path).size == upright_size(path.read_bytes()) == size
    picture = open_picture(path, *size)
    first, last = (picture[24, -4], picture[24, 4]) if swapped else (picture[4, 24], picture[-4, 24])
    assert first[0] > 200 > last[0]
    assert last[2] > 200 > first[2]


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_every_orientation_is_that_of_pil(tmp_path, value, suffix):
    from PIL import ImageOps

    image = Image.new("RGB", (48, 32), RED)
    image.paste(BLUE, (0, 0, 16, 16))
    tags = Image.Exif()
    tags[0x0112] = value
    image.save(tmp_path / f"a.{suffix}", exif=tags)
    with Image.open(tmp_path / f"a.{suffix}") as opened:
        expected = np.array(ImageOps.exif_transpose(opened).convert("RGB"))
    assert np.array_equal(np.array(upright(tmp_path / f"a.{suffix}")), expected)
    assert upright_size((tmp_path / f"a.{suffix}").read_bytes()) == expected.shape[1::-1]


def told(call) -> str:
    try:
        call()
    except InputError as error:
        return str(error)
    return ""


def test_the_dry_run_and_the_run_say_the_same_of_damaged_files(tmp_path):
    """Bytes anywhere in a file changed at random, and files cut off anywhere."""
    draw, path = random.Random(0), tmp_path / "a.jpg"
    whole = jpeg(exif(turned(6), struct.pack("<HHII", 0x011B, 5, 1, 50), rest=bytes(16)))
    for _ in range(300):
        data = bytearray(whole[: draw.randrange(len(whole))] if draw.random() < 0.3 else whole)
        for _ in range(draw.randrange(1, 6) if data else 0):
            data[draw.randrange(len(data))] = draw.randrange(256)
        path.write_bytes(data)
        early = picture_fault(path)
        late = told(lambda: open_picture(path, 8, 8))
        assert bool(early) == bool(late)
        assert "\n" not in late
        if data:
            assert exif_orientation(bytes(data[draw.randrange(len(data)) :])) in range(1, 9)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_no_picture(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    assert "is not a file" in picture_fault(tmp_path / "a.png")
