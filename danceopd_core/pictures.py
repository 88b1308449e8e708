"""Picture files as RGB arrays of the size that a run works in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from .errors import InputError

Picture = Path | np.ndarray
"""A file, or RGB uint8 (H, W, 3)."""


def open_picture(picture: Picture, width: int, height: int) -> np.ndarray:
    """The picture as RGB uint8 (height, width, 3): upright, alpha on white, cropped at its centre to the aspect.

    Resized with LANCZOS. InputError, naming the file, if it is absent or no picture.
    """
    if isinstance(picture, Path):
        try:
            with Image.open(picture) as image:
                rgb = _rgb(ImageOps.exif_transpose(image))
        except Exception as error:  # a damaged file can break PIL's decoders in any way
            raise InputError(_unreadable(picture, error)) from error
    elif picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise InputError(f"a picture is an array of {picture.dtype} {picture.shape}: give uint8 (H, W, 3)")
    else:
        rgb = Image.fromarray(picture)
    return np.array(ImageOps.fit(rgb, (width, height), Image.Resampling.LANCZOS))


def picture_fault(path: Path) -> str:
    """Why a file cannot be opened as a picture, found by decoding it; empty if it can."""
    try:
        with Image.open(path) as image:
            image.draft("RGB", (max(1, image.width // 8), max(1, image.height // 8)))  # a JPEG decodes faster so
            image.load()
            _rgb(image)
    except Exception as error:  # as above
        return _unreadable(path, error)
    return ""


def _unreadable(path: Path, error: Exception) -> str:
    if not path.is_file():
        return f"{path} does not exist or is not a file"
    return f"{path} is no readable picture ({' '.join(str(error).split()) or type(error).__name__}): save it again"


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise InputError("it holds floating-point numbers, whose white is not known")
    if image.mode.startswith("I"):  # 16 bits; a plain conversion would make all of it white
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")
