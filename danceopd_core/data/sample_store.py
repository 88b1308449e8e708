"""Encoded samples by key: in memory, or in safetensors files that are read where they lie.

A file (a shard) holds a few hundred samples. Its header has their keys, and for every tensor a checksum: what is torn
or not of this format is as good as absent. Files get a new name each and are never changed, so that any number of
processes can write and read the same folder.
"""

from __future__ import annotations

import json
import os
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from threading import RLock
from typing import Any, Protocol
from uuid import uuid4

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ..algorithm.fields import Sample, Value
from ..errors import InputError
from ..files import atomic
from ..outside import parse_json
from ..weights.safetensors_io import checked_safetensors

FORMAT = "danceopd encoded samples 1"
HEADER = "danceopd_encoded"
SHARD_BYTES = 32 * 2**20
SHARD_SAMPLES = 256
OPEN_SHARDS = 8
"""Files that are held open: a pass through a bucket in the order of its first pass reads one after the other."""


class Store(Protocol):
    """Encoded samples by key. What was added can be read at once, and by other processes after `flush`."""

    def __contains__(self, key: str) -> bool: ...
    def get(self, key: str) -> Sample | None:
        """The sample; None if it is not there, or no longer."""

    def add(self, key: str, sample: Sample) -> None: ...
    def flush(self) -> None: ...
    def refresh(self) -> None:
        """Finds what other processes have written."""


class MemoryStore(dict[str, Sample]):
    """Samples of this process alone."""

    def add(self, key: str, sample: Sample) -> None:
        self[key] = sample

    def flush(self) -> None: ...
    def refresh(self) -> None: ...


class ShardStore:
    """The samples in a folder, which need not exist yet.

    before: is called with the bytes that are about to be written. InputError from `flush` if a file cannot be written.
    """

    def __init__(self, folder: Path, before: Callable[[int], None] = lambda size: None) -> None:
        self._folder, self._before = folder, before
        self._places: dict[str, Path] = {}
        self._known: set[Path] = set()
        self._open: OrderedDict[Path, _Shard] = OrderedDict()
        self._waiting: dict[str, Sample] = {}
        self._size = 0
        self._lock = RLock()  # samples are read ahead in another thread
        self.refresh()

    def __contains__(self, key: str) -> bool:
        return key in self._waiting or key in self._places

    def get(self, key: str) -> Sample | None:
        with self._lock:
            if key in self._waiting:
                return self._waiting[key]
            path = self._places.get(key)
            if path is None:
                return None
            try:
                return self._shard(path).sample(key)
            except (InputError, SafetensorError, OSError, KeyError, TypeError, ValueError):
                self._forget(path)
                return None

    def add(self, key: str, sample: Sample) -> None:
        with self._lock:
            self._waiting[key] = sample
            self._size += size_of(sample)
            if self._size >= SHARD_BYTES or len(self._waiting) >= SHARD_SAMPLES:
                self.flush()

    def flush(self) -> None:
        with self._lock:
            if self._waiting:
                self._write()

    def _write(self) -> None:
        path = self._folder / f"{uuid4().hex}.safetensors"
        try:
            self._before(self._size)
            write_shard(path, self._waiting)
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"the cache of encoded prompts cannot be written to {self._folder} ({error}): free some space "
                "(`danceopd cache --clear`), or name another folder with DANCEOPD_CACHE"
            ) from error
        self._known.add(path)
        self._places |= dict.fromkeys(self._waiting, path)
        self._waiting, self._size = {}, 0

    def refresh(self) -> None:
        for path in sorted(set(self._folder.glob("*.safetensors")) - self._known):
            self._known.add(path)
            with suppress(InputError, SafetensorError, OSError):
                self._places |= dict.fromkeys(_Shard(path).entries, path)

    def touch(self, keys: Iterator[str]) -> None:
        """Marks the files that hold these keys as used now, so that they are the last to be removed."""
        for path in {self._places[key] for key in keys if key in self._places}:
            with suppress(OSError):
                os.utime(path)

    def _shard(self, path: Path) -> _Shard:
        if path not in self._open:
            self._open[path] = _Shard(path)
            if len(self._open) > OPEN_SHARDS:
                self._open.popitem(last=False)
        self._open.move_to_end(path)
        return self._open[path]

    def _forget(self, path: Path) -> None:
        self._open.pop(path, None)
        self._places = {key: place for key, place in self._places.items() if place != path}


class _Shard:
    """An open file; InputError if it is not one of these, or not whole."""

    def __init__(self, path: Path) -> None:
        self._file = checked_safetensors(path)
        text = (self._file.metadata() or {}).get(HEADER, "")
        header = parse_json(text, str(path)) if text else None
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise InputError(f"{path} holds no encoded samples of this version")
        entries, sums = header.get("entries"), header.get("sums")
        if not isinstance(entries, dict) or not isinstance(sums, dict):
            raise InputError(f"{path} names no samples")
        self.entries: Mapping[str, Any] = entries
        self._sums: Mapping[str, Any] = sums

    def sample(self, key: str) -> Sample:
        # Tensors of inference mode could not be trained on.
        with torch.inference_mode(False):
            return self._built(self.entries[key], {})

    def _built(self, tree: Mapping[str, Any], read: dict[str, Tensor]) -> Sample:
        def value(part: Any) -> Value:
            return (
                tuple(self._tensor(name, read) for name in part) if isinstance(part, list) else self._tensor(part, read)
            )

        nulls = {negative: self._built(below, read) for negative, below in tree["nulls"].items()}
        return Sample({name: value(part) for name, part in tree["values"].items()}, nulls)

    def _tensor(self, name: str, read: dict[str, Tensor]) -> Tensor:
        if name not in read:
            read[name] = self._file.get_tensor(name)
            if _checksum(read[name]) != self._sums[name]:
                raise InputError(f"{name} is damaged")
        return read[name]


def write_shard(path: Path, samples: Mapping[str, Sample]) -> None:
    """Writes samples, without views, as one file, atomically; a tensor that several share is written once."""
    tensors: dict[str, Tensor] = {}
    names: dict[Any, str] = {}

    def named(tensor: Tensor) -> str:
        same = tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()
        if same not in names or not tensor.numel():
            names[same] = str(len(tensors))
            tensors[names[same]] = tensor.detach().to("cpu", copy=True).contiguous()
        return names[same]

    def tree(sample: Sample) -> dict[str, Any]:
        if sample.views:
            raise ValueError("views are stored by the models that they are of")
        values = {
            name: named(value) if isinstance(value, Tensor) else [named(part) for part in value]
            for name, value in sample.values.items()
        }
        return {"values": values, "nulls": {negative: tree(null) for negative, null in sample.nulls.items()}}

    entries = {key: tree(sample) for key, sample in samples.items()}
    sums = {name: _checksum(tensor) for name, tensor in tensors.items()}
    with atomic(path) as temporary:
        save_file(tensors, temporary, {HEADER: json.dumps({"format": FORMAT, "entries": entries, "sums": sums})})


def size_of(sample: Sample) -> int:
    """Bytes of a sample's tensors, each once."""
    found: dict[int, int] = {}

    def visit(part: Sample) -> None:
        for value in part.values.values():
            for tensor in (value,) if isinstance(value, Tensor) else value:
                found[tensor.data_ptr()] = tensor.nbytes
        for inner in (*part.nulls.values(), *part.views.values()):
            visit(inner)

    visit(sample)
    return sum(found.values())


def _checksum(tensor: Tensor) -> int:
    data: Any = tensor.reshape(-1).view(torch.uint8).numpy() if tensor.numel() else b""
    return zlib.crc32(data, zlib.crc32(repr((tensor.dtype, tuple(tensor.shape))).encode()))
