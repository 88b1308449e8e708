"""Saves prompts and pictures of a ComfyUI graph as a CSV bucket, so that the run can be repeated without the graph."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import write_text
from ..recipe.graph import PromptSpec
from ..recipe.schema import Bucket


def lines_of(text: str) -> tuple[str, ...]:
    """The prompts of a text, one per line; empty lines and lines that begin with # are skipped."""
    return tuple(line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))


def text_bucket(
    root: Path, prompts: Sequence[str], sources: Sequence[np.ndarray], targets: Sequence[np.ndarray]
) -> PromptSpec:
    """Prompts as a bucket; with pictures as a CSV with its pictures in a folder below `root`."""
    if not prompts:
        raise InputError("prompts: the bucket is empty: write at least one line")
    if not sources and not targets:
        return PromptSpec(Bucket(prompts=tuple(prompts)), "prompts")
    table = write_bucket(root, prompts, sources, targets)
    return PromptSpec(Bucket(csv=str(table)), "edits" if sources else "prompts")


def write_bucket(
    root: Path, prompts: Sequence[str], sources: Sequence[np.ndarray], targets: Sequence[np.ndarray]
) -> Path:
    """Writes a CSV with its pictures to a folder in `root` named by its content hash, and returns the CSV's path.

    A single picture is used for all prompts, a single prompt for all pictures.
    """
    if not prompts:
        raise InputError("prompts: none are given: write at least one line")
    count = max(len(prompts), len(sources), len(targets))
    columns: dict[str, Sequence[np.ndarray]] = {"source_image": sources, "target_image": targets}
    for name, pictures in columns.items():
        if pictures and (len(pictures) not in (1, count) or len(prompts) not in (1, count)):
            raise InputError(
                f"{name}s: {len(pictures)} pictures for {len(prompts)} prompts: give one for all, or one for each"
            )
    digest = hashlib.sha256(repr(tuple(prompts)).encode())
    for pictures in columns.values():
        for picture in pictures:
            digest.update(repr(picture.shape).encode() + picture.tobytes())
        digest.update(b"|")
    folder = root / digest.hexdigest()[:16]
    table = folder / "bucket.csv"
    if table.exists():
        return table
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"prompt": prompts[i % len(prompts)]} for i in range(count)]
    for name, pictures in columns.items():
        files = [_write_picture(folder / f"{name}-{i:04d}.png", picture) for i, picture in enumerate(pictures)]
        for i, row in enumerate(rows if files else []):
            row[name] = files[i % len(files)]
    text = io.StringIO()
    writer = csv.DictWriter(text, ["prompt", "source_image", "target_image"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(table, text.getvalue())  # last, so that a folder with a CSV is complete
    return table


def _write_picture(file: Path, picture: np.ndarray) -> str:
    from PIL import Image

    Image.fromarray(picture).save(file)
    return file.name
