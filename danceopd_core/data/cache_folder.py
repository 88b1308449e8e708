"""Where encoded samples are kept between runs, how much of them, and what is removed first.

FOLDER/encoded/<model>/<shard>.safetensors: the model is a digest of everything that the encoding depends on; about.json
beside the shards says which model it is. The shards that no run has used for longest are removed first.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..files import write_text
from ..outside import expanded, read_json

FOLDER = "DANCEOPD_CACHE"
"""Environment variable: the folder; "off": nothing is kept."""
SIZE = "DANCEOPD_CACHE_GIB"
"""Environment variable: the size that the shards may have together."""
DEFAULT_GIB = 32.0
OFF = "off"
ABOUT = "about.json"
CLOCKS = 10.0
"""Seconds that the clock of a network drive may be behind."""
MODEL = re.compile(r"[0-9a-f]{32}")
SHARD = re.compile(r"[0-9a-f]{32}\.safetensors")


@dataclass(frozen=True)
class CachedModel:
    """What is kept of one model. size: bytes. used: when it was last, in seconds since 1970."""

    name: str
    title: str
    shards: int
    size: int
    used: float


def cache_folder(given: str | Path | None = None, environment: Mapping[str, str] = os.environ) -> Path | None:
    """The folder: the one given, else the environment's, else the system's for caches; None: nothing is kept."""
    named = str(given) if given is not None else environment.get(FOLDER, "")
    if named.strip().lower() == OFF:
        return None
    if named.strip():
        return expanded(named).absolute()
    home = expanded("~")
    if sys.platform == "win32":
        return Path(environment.get("LOCALAPPDATA") or home / "AppData" / "Local") / "danceopd" / "cache"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "danceopd"
    return Path(environment.get("XDG_CACHE_HOME") or home / ".cache") / "danceopd"


def size_limit(environment: Mapping[str, str] = os.environ) -> int:
    """Bytes that all shards may have together; InputError if the environment names no such number."""
    text = environment.get(SIZE, "").strip()
    try:
        gib = float(text) if text else DEFAULT_GIB
    except ValueError:
        gib = -1.0
    if not 0 <= gib < 2**20:
        raise InputError(f"{SIZE}={text}: give the size of the cache in GiB, such as 100")
    return int(gib * 2**30)


def can_be_written(folder: Path, log: Callable[[str], None]) -> bool:
    """Whether a folder is there to be written, or can be made; `log` hears of it if not."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if there.is_dir() and os.access(there, os.W_OK):
        return True
    log(f"encoded prompts stay in memory: {folder} cannot be written (name another folder with {FOLDER})")
    return False


class CacheFolder:
    """The shards of all models below `root`, held to `limit` bytes. Nothing is made there before something is kept.

    Files that were used since this object was made are not removed: they are this run's own.
    """

    def __init__(self, root: Path, limit: int) -> None:
        self.root, self._limit = root / "encoded", limit
        self._began = time.time() - CLOCKS
        self._total: int | None = None

    def describe(self, folder: Path, about: Mapping[str, str]) -> None:
        """Makes the folder of a model's shards, and says in it which model it is; OSError if that fails."""
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / ABOUT).exists():
            write_text(folder / ABOUT, json.dumps(dict(about), indent=1) + "\n")

    def make_room(self, size: int) -> None:
        """Removes the shards that were not used for longest until `size` more bytes fit, or only used ones are left."""
        if self._total is None:
            self._total = sum(own for _, own, _ in self._shards())
        self._total += size
        if self._total <= self._limit:
            return
        shards = sorted(self._shards(), key=lambda shard: shard[2])
        self._total = size + sum(own for _, own, _ in shards)
        for path, own, used in shards:
            if self._total <= self._limit or used >= self._began:
                return
            with suppress(OSError):  # on Windows, one that another process reads
                path.unlink()
                self._total -= own

    def models(self) -> list[CachedModel]:
        """What is kept, the model used last first."""
        found: dict[str, list[tuple[int, float]]] = {}
        for path, size, used in self._shards():
            found.setdefault(path.parent.name, []).append((size, used))
        rows = [
            CachedModel(name, self._title(name), len(own), sum(s for s, _ in own), max(u for _, u in own))
            for name, own in found.items()
        ]
        return sorted(rows, key=lambda row: -row.used)

    def clear(self, names: Collection[str] | None = None) -> int:
        """Removes all shards, or those of these models; returns the bytes that were freed. Nothing else is touched."""
        freed = 0
        for path, size, _ in self._shards():
            if names is None or path.parent.name in names:
                with suppress(OSError):
                    path.unlink()
                    freed += size
        for folder in self._folders():
            if [path.name for path in folder.iterdir()] == [ABOUT]:
                with suppress(OSError):
                    (folder / ABOUT).unlink()
                    folder.rmdir()
        self._total = None
        return freed

    def _title(self, name: str) -> str:
        try:
            about = read_json(self.root / name / ABOUT, "the description of cached samples")
            return str(about["model"])
        except (InputError, KeyError, TypeError):
            return "?"

    def _folders(self) -> list[Path]:
        if not self.root.is_dir():
            return []
        return [path for path in self.root.iterdir() if MODEL.fullmatch(path.name) and path.is_dir()]

    def _shards(self) -> list[tuple[Path, int, float]]:
        """(file, bytes, when it was used last) of each shard."""
        found = []
        for path in (path for folder in self._folders() for path in folder.iterdir()):
            if SHARD.fullmatch(path.name):
                with suppress(OSError):
                    stat = path.stat()
                    found.append((path, stat.st_size, stat.st_mtime))
        return found
