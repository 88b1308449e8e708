"""Reads picture files as RGB arrays of a given size, and checks them."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import InputError, shown
from ..outside import PICTURE_LIMIT, expanded, read_bytes
from ..outside import opened as opened_file
from .orientation import SWAPPED, TURNS, orientation

Picture = Path | np.ndarray | bytes
"""A file, its bytes, or RGB uint8 (H, W, 3)."""
FORMATS = (
    "PNG", "JPEG", "WEBP", "AVIF", "HEIF", "JXL", "BMP", "DIB", "GIF", "TIFF", "PPM", "JPEG2000", "TGA", "ICO", "PCX",
    "PSD", "QOI",
)  # fmt: skip
"""What is read, as far as the installed PIL knows it. It hands EPS to Ghostscript, which runs what the file says."""


def open_picture(picture: Picture, width: int, height: int) -> np.ndarray:
    """The picture as RGB uint8 (height, width, 3): upright, alpha on white, centre-cropped and resized (LANCZOS).

    InputError, naming the file, if it is absent or not a picture.
    """
    return np.array(ImageOps.fit(upright(picture), (width, height), Image.Resampling.LANCZOS))


def opened(data: bytes) -> Image.Image:
    """The picture of a file's bytes, not decoded yet; of `FORMATS` only, as PIL runs programs for some others."""
    return _of_known_format(io.BytesIO(data))


def _of_known_format(file: BinaryIO) -> Image.Image:
    Image.init()
    return Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN])


def upright(picture: Picture) -> Image.Image:
    """The picture, or the one in a file's bytes, as RGB at its original size: upright, alpha on white.

    InputError, naming the file, if it is absent or not a picture.
    """
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
            raise InputError(f"a picture cannot be an array of {picture.dtype} {picture.shape}: give uint8 (H, W, 3)")
        return Image.fromarray(picture)
    if isinstance(picture, bytes):
        try:
            return _decoded(picture)
        except InputError as error:
            raise InputError(f"not a readable picture: {error}") from error
    return _of_file(picture)


def _of_file(path: Path, draft: bool = False) -> Image.Image:
    """`upright` of a file; with `draft` JPEGs are decoded at an eighth of their size."""
    if not os.path.isfile(path):  # Path.is_file raises for a name that is too long
        raise InputError(f"{path} does not exist or is not a file")
    data = read_bytes(path, "the picture", PICTURE_LIMIT)
    try:
        return _decoded(data, draft)
    except InputError as error:
        raise InputError(f"{path} is not a readable picture ({error}): save it again") from error


def _decoded(data: bytes, draft: bool = False) -> Image.Image:
    """The one way from a file's bytes to an upright picture; InputError with the decoder's reason."""
    try:
        with opened(data) as image:
            turn = TURNS.get(orientation(image))
            if draft:
                image.draft("RGB", (max(1, image.width // 8), max(1, image.height // 8)))
            image.load()
            return _rgb(image if turn is None else image.transpose(turn))
    except InputError:
        raise
    except Exception as error:  # a damaged file can raise any exception in PIL's decoders
        raise InputError(_reason(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is of no known format"
    return shown(" ".join(str(error).split()), 300) or type(error).__name__


def upright_size(data: bytes) -> tuple[int, int]:
    """(width, height) of `upright`, from the header of a picture file's bytes."""
    try:
        with opened(data) as image:
            if image.format == "TIFF":  # PIL turns it upright when it loads it
                image.load()
            return (image.height, image.width) if orientation(image) in SWAPPED else image.size
    except Exception as error:  # as in `_decoded`
        raise InputError(f"not a readable picture: {_reason(error)}") from error


def check_picture(data: bytes) -> None:
    """Decodes a picture file's bytes as `upright` does; InputError, as a predicate, if they cannot be opened."""
    if len(data) > PICTURE_LIMIT:
        raise InputError(f"is a picture of {len(data) / 2**20:.0f} MB, and {PICTURE_LIMIT // 2**20} are read at most")
    try:
        _decoded(data, draft=True)
    except InputError as error:
        raise InputError(f"is not a readable picture ({error})") from error


def picture_fault(path: Path) -> str:
    """Decodes a picture file as `upright` does; returns why it cannot be opened, empty if it can."""
    try:
        _of_file(path, draft=True)
    except InputError as error:
        return str(error)
    return ""


def header_fault(path: Path) -> str:
    """Why a picture file cannot be opened, as far as its header tells; empty if it can."""
    if not os.path.isfile(path):
        return f"{path} does not exist or is not a file"
    try:
        with opened_file(path, "the picture") as file:
            return _header_reason(file, path)
    except InputError as error:
        return str(error)


def _header_reason(file: BinaryIO, path: Path) -> str:
    try:
        with _of_known_format(file):
            return ""
    except Exception as error:  # as in `_decoded`
        return f"{path} is not a readable picture ({_reason(error)}): save it again"


class PictureFile(NamedTuple):
    """The bytes of a readable picture file, and the file extension of its format, without dot."""

    data: bytes
    suffix: str


def picture_file(value: object, folder: Path | None) -> PictureFile:
    """The picture file that a row of metadata contains or refers to; InputError, as a predicate, if there is none.

    value: a path, relative to `folder` (None: paths are refused); the file's bytes; a mapping with either, as in
    Hugging Face datasets; or a PIL image.
    """
    if isinstance(value, dict):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if isinstance(value, str):
        data = _read(value, folder)
    elif isinstance(value, Image.Image):
        buffer = io.BytesIO()
        value.save(buffer, "PNG")
        data = buffer.getvalue()
    elif isinstance(value, bytes):
        data = value
    else:
        raise InputError(f"is of type {type(value).__name__}, not a picture")
    try:
        with opened(data) as image:
            kind = str(image.format).lower()
        _decoded(data)
    except Exception as error:  # as above
        raise InputError(f"is not a readable picture ({_reason(error)})") from error
    return PictureFile(data, {"jpeg": "jpg"}.get(kind, kind))


def _read(path: str, folder: Path | None) -> bytes:
    if re.match(r"\w+://", path):
        raise InputError(f"is a URL, {path}: download it and give the file")
    if folder is None:
        raise InputError(f"is a path, {path}, but a dataset has no folder: give its metadata as a file")
    try:
        return read_bytes(folder / expanded(path.strip()), "the picture", PICTURE_LIMIT)
    except InputError as error:
        raise InputError(f"cannot be used: {error}") from None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise InputError("it holds floating-point numbers, whose value range is unknown")
    if image.mode.startswith("I"):  # 16 bits; a plain conversion would clip to white
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")
