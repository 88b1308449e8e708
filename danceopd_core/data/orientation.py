"""How a camera was held: the one EXIF tag that says it, read by itself.

Other tags may be broken without a viewer minding, and reading or writing them all would fail.
"""

from __future__ import annotations

import struct

from PIL import Image

TAG, SHORT = 0x0112, 3
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By the tag's value, what makes the picture upright; 1 is upright already."""
SWAPPED = (5, 6, 7, 8)
"""Values with which width and height change places."""


def orientation(image: Image.Image) -> int:
    """The tag's value from 1 to 8; 1 where it is absent or broken. TIFFs are turned by PIL itself: 1."""
    data = image.info.get("exif")
    if data is None:
        data = _raw_profile(image.info.get("Raw profile type exif"))
    return exif_orientation(data) if isinstance(data, bytes) else 1


def exif_orientation(data: bytes) -> int:
    """The same from a block of EXIF, with or without its "Exif" in front."""
    data = data.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None or len(data) < 10:
        return 1
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    if start + 2 > len(data):
        return 1
    (count,) = struct.unpack_from(f"{order}H", data, start)
    for at in range(start + 2, min(start + 2 + 12 * count, len(data) - 11), 12):
        tag, kind, number, value = struct.unpack_from(f"{order}HHIH", data, at)
        if tag == TAG:
            return value if kind == SHORT and number == 1 and 1 <= value <= 8 else 1
    return 1


def _raw_profile(text: object) -> bytes | None:
    """EXIF as ImageMagick writes it into a PNG's text: a head of three lines, then hexadecimal digits."""
    if not isinstance(text, str):
        return None
    try:
        return bytes.fromhex("".join(text.split("\n")[3:]))
    except ValueError:
        return None
