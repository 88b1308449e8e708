"""What an encoding depends on beside prompt and pictures: the encoders' files, the libraries, type and device."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..files.stored_samples import key_of

ENCODING = 1
"""Counts the changes of this project's own code that change an encoding."""
LIBRARIES = ("torch", "diffusers", "transformers")
SMALL = 2**20
"""Files up to this many bytes count by their contents, larger ones by size and modification time."""
NETWORK = "transformer"


def namespace(identity: str, dtype: str, device: str) -> str:
    """32 hexadecimal digits that differ where encodings may."""
    return key_of(ENCODING, [_version(name) for name in LIBRARIES], identity, dtype, device)


def folder_identity(folder: Path, components: Mapping[str, Path]) -> str:
    """That of a diffusers folder's encoders: all its files but the transformer's weights, and the single files that
    replace parts of it."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and not _is_weight(file, folder)]
    parts = [(file.relative_to(folder).as_posix(), *_content(file)) for file in files]
    single = [(part, *_content(file)) for part, file in sorted(components.items()) if part != NETWORK]
    return hashlib.sha256(repr((parts, single)).encode()).hexdigest()


def _is_weight(file: Path, folder: Path) -> bool:
    """Whether it holds weights that encode nothing: those of the network and of LoRAs and checkpoints beside it."""
    part = file.relative_to(folder).parts[0]
    return file.stat().st_size > SMALL and not part.startswith(("text_encoder", "vae", "tokenizer", "processor"))


def _content(file: Path) -> tuple[int, int | str]:
    stat = os.stat(file)
    if stat.st_size > SMALL:
        return stat.st_size, stat.st_mtime_ns
    return stat.st_size, hashlib.sha256(file.read_bytes()).hexdigest()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
