"""A folder of pictures as rows: captions beside them, or sources with their targets, as people keep training data."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..errors import InputError, shown
from ..outside import read_text

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff", ".jxl", ".heic")
CAPTION = ".txt"
SOURCE, TARGET = "_source", "_target"
"""What the names of an edit's pictures end in, before their extension: cat_source.png, cat_target.png, cat.txt."""
METADATA = ("metadata.csv", "metadata.jsonl")
"""The tables of an "imagefolder" of Hugging Face's datasets."""
MOST_FILES = 200_000
CAPTION_LIMIT = 2**16
"""Bytes of a caption."""
LISTED = 3


def table_of(folder: Path) -> Path | None:
    """The table of a folder that has one, as of Hugging Face's datasets."""
    found = [folder / name for name in METADATA if (folder / name).is_file()]
    if len(found) > 1:
        raise InputError(f"{folder} has {found[0].name} and {found[1].name}: leave one of them out")
    return found[0] if found else None


def folder_rows(folder: Path) -> Iterator[Mapping[str, str]]:
    """The rows of a folder without a table, by the names of its files, with the columns of a CSV; pictures by name.

    `name.txt` is the prompt of `name.png`, its target, or of `name_source.png` with `name_target.png`. Captions
    alone are prompts. InputError for pictures without a caption and what else has no place.
    """
    captions, pictures = _files(folder)
    groups: dict[str, dict[str, str]] = {}
    for stem, file in pictures.items():
        name, column = stem, "target_image"
        for end, kind in ((SOURCE, "source_image"), (TARGET, "target_image")):
            if stem.endswith(end) and stem not in captions:
                name, column = stem.removesuffix(end), kind
        if column in groups.setdefault(name, {}):
            raise InputError(f"{folder}: {groups[name][column]} and {file} are both the {column} of {name}: keep one")
        groups[name][column] = file
    bare = [next(iter(group.values())) for name, group in groups.items() if name not in captions]
    if bare:
        raise InputError(
            f"{folder}: {_listed(bare)} without a caption: write it to a file of that name with .txt, or take the "
            "picture away. A captioner of your choice can write them"
        )
    lone = [file for name, file in captions.items() if name not in groups]
    if lone and groups:
        raise InputError(f"{folder}: {_listed(lone)} beside no picture of that name: take them away")
    for name in sorted(captions):
        prompt = " ".join(read_text(folder / captions[name], "the caption", CAPTION_LIMIT).split())
        if not prompt:
            raise InputError(f"{folder}: {_listed([captions[name]])} empty: write the caption")
        yield {"prompt": prompt, **groups.get(name, {})}


def _files(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The captions and the pictures in a folder, by name without extension; two of a name are refused."""
    captions: dict[str, str] = {}
    pictures: dict[str, str] = {}
    with os.scandir(folder) as entries:
        for number, entry in enumerate(sorted(entry.name for entry in entries if entry.is_file())):
            if number >= MOST_FILES:
                raise InputError(f"{folder} has more than {MOST_FILES} files, the most that is read: use a CSV file")
            stem, extension = os.path.splitext(entry)
            kind = captions if extension.lower() == CAPTION else pictures if extension.lower() in PICTURES else None
            if kind is None or entry.startswith("."):
                continue
            if stem in kind:
                raise InputError(f"{folder} has {kind[stem]} and {entry}, which have one name: rename one")
            kind[stem] = entry
    if not captions and not pictures:
        raise InputError(f"{folder} holds no pictures with captions (name.png and name.txt), and no metadata.csv")
    return captions, pictures


def _listed(names: list[str]) -> str:
    """The first names as a subject, with its verb."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"{', '.join(shown(name, 80) for name in sorted(names)[:LISTED])}{more} {'are' if len(names) > 1 else 'is'}"
