"""Where the cache lies, how large it grows, and what goes first."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from danceopd_core.data.cache_folder import CacheFolder, cache_folder, size_limit
from danceopd_core.errors import InputError

MODEL, OTHER = "a" * 32, "b" * 32


def add(root: Path, model: str, number: int, size: int, used: float) -> Path:
    file = root / "encoded" / model / f"{number:032x}.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x" * size)
    os.utime(file, (used, used))
    return file


def test_the_folder_is_the_one_given_then_the_environments_then_the_systems(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder("/given", {"DANCEOPD_CACHE": "/named"}) == Path("/given").absolute()
    assert cache_folder(None, {"DANCEOPD_CACHE": "/named"}) == Path("/named").absolute()
    assert cache_folder("~/given") == tmp_path / "given"
    assert cache_folder("OFF") is None
    assert cache_folder(None, {"DANCEOPD_CACHE": "off"}) is None
    monkeypatch.setattr("sys.platform", "linux")
    assert cache_folder(None, {}) == tmp_path / ".cache" / "danceopd"
    assert cache_folder(None, {"XDG_CACHE_HOME": "/var/caches"}) == Path("/var/caches/danceopd")
    monkeypatch.setattr("sys.platform", "darwin")
    assert cache_folder(None, {}) == tmp_path / "Library" / "Caches" / "danceopd"
    monkeypatch.setattr("sys.platform", "win32")
    assert cache_folder(None, {"LOCALAPPDATA": "/local"}) == Path("/local/danceopd/cache")


def test_the_size_is_a_number_of_gib():
    assert size_limit({"DANCEOPD_CACHE_GIB": "1.5"}) == 3 * 2**29
    assert size_limit({}) == 32 * 2**30
    for wrong in ("much", "-1", "nan", "inf"):
        with pytest.raises(InputError, match="DANCEOPD_CACHE_GIB"):
            size_limit({"DANCEOPD_CACHE_GIB": wrong})


def test_what_was_used_longest_ago_goes_first(tmp_path):
    files = [add(tmp_path, (MODEL, OTHER)[n % 2], n, 100, 1000.0 + (7 * n) % 10) for n in range(10)]
    by_use = sorted(files, key=lambda file: file.stat().st_mtime)
    CacheFolder(tmp_path, 1000).make_room(250)
    assert [file.exists() for file in by_use] == [False] * 3 + [True] * 7


def test_what_the_run_uses_itself_stays(tmp_path):
    cache = CacheFolder(tmp_path, 100)
    old, own = add(tmp_path, MODEL, 0, 90, 1000.0), add(tmp_path, MODEL, 1, 90, 1001.0)
    os.utime(own)
    cache.make_room(200)
    assert not old.exists()
    assert own.exists()


def test_the_size_is_counted_on_over_the_writes_of_a_run(tmp_path):
    cache = CacheFolder(tmp_path, 250)
    oldest = add(tmp_path, MODEL, 0, 100, 1000.0)
    cache.make_room(100)
    add(tmp_path, MODEL, 1, 100, 1e12)
    assert oldest.exists()
    cache.make_room(100)
    assert not oldest.exists()


def test_clearing_removes_the_shards_and_nothing_else(tmp_path):
    cache = CacheFolder(tmp_path, 10**6)
    add(tmp_path, MODEL, 0, 100, 1000.0), add(tmp_path, OTHER, 0, 50, 2000.0)
    cache.describe(tmp_path / "encoded" / MODEL, {"model": "/models/one"})
    own = tmp_path / "encoded" / OTHER / "notes.txt"
    own.write_text("mine")
    (tmp_path / "encoded" / "photos").mkdir()
    (tmp_path / "encoded" / "photos" / f"{0:032x}.safetensors").write_text("not of a model")
    assert [(row.name, row.title, row.shards, row.size) for row in cache.models()] == [
        (OTHER, "?", 1, 50),
        (MODEL, "/models/one", 1, 100),
    ]
    assert cache.clear([MODEL]) == 100
    assert not (tmp_path / "encoded" / MODEL).exists()
    assert cache.clear() == 50
    assert own.exists()
    assert len(list((tmp_path / "encoded" / "photos").iterdir())) == 1
    assert cache.models() == []
