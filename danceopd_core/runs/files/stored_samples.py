"""The encoded items of a bucket, by row: encoded before they are drawn, kept in a store, read when they are used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from ...algorithm.fields import Conditioning, Sample
from ...data.csv_rows import Item
from ...data.images import Picture
from ...data.sample_store import MemoryStore, ShardStore, Store, size_of
from ...outside import PICTURE_LIMIT, read_bytes

CHUNK = 64
"""Items that are encoded in one call: they share what they have in common, such as negative prompts."""
SMALL = 16 * 2**20
"""Bytes up to which the samples of a bucket stay in memory and are written nowhere."""
LATENTS = "latents"
Encode = Callable[[Sequence[Item]], Sequence[Sample]]


@dataclass(frozen=True)
class Share:
    """What this process encodes of the items that all processes need. wait: until the others have done theirs."""

    rank: int = 0
    size: int = 1
    wait: Callable[[], None] = lambda: None

    def holds(self, key: str) -> bool:
        return int(key, 16) % self.size == self.rank


@dataclass(eq=False)
class StoredSamples:
    """Items as one encoder gives them. key: of an item, by everything that its encoding depends on.

    lasting: where samples outlive the run, None: nowhere. Few small ones are kept in memory all the same.
    """

    items: Sequence[Item]
    encode: Encode
    key: Callable[[Item], str]
    lasting: ShardStore | None = None
    store: Store = field(default_factory=MemoryStore)
    _keys: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def in_memory(self) -> bool:
        return self.store is not self.lasting

    def prepare(self, rows: Sequence[int], share: Share, tell: Callable[[int], None]) -> None:
        """Encodes these rows where they are not kept yet, each process its share. tell: hears how many are done."""
        if not self._choose(rows, share):
            share = Share()  # each process has a memory of its own
        if self.lasting is self.store:
            self.lasting.touch(self._key(row) for row in rows)
        try:
            # Every process goes through the same rounds, whatever it has to encode in them.
            for first in range(0, len(rows), CHUNK * share.size):
                part = rows[first : first + CHUNK * share.size]
                self._encode([row for row in part if share.holds(self._key(row))])
                if share.size > 1:
                    share.wait()
                tell(first + len(part))
        finally:
            self.store.flush()
        if share.size > 1:
            share.wait()
            self.store.refresh()
            self._encode(rows)  # what is on another machine's disk, or was lost
            self.store.flush()

    def samples(self, rows: Sequence[int]) -> list[Sample]:
        """Those of these rows; what is not kept is encoded now."""
        found = [self.store.get(self._key(row)) for row in rows]
        if missing := [row for row, sample in zip(rows, found, strict=True) if sample is None]:
            fresh = dict(zip(missing, self._fresh(missing), strict=True))
            found = [sample or fresh[row] for row, sample in zip(rows, found, strict=True)]
        return [sample for sample in found if sample is not None]

    def stored(self, rows: Sequence[int]) -> list[Sample] | None:
        """Those of these rows, if nothing has to be encoded for them; else None."""
        if not all(row in self._keys and self._keys[row] in self.store for row in rows):
            return None
        found = [sample for row in rows if (sample := self.store.get(self._keys[row])) is not None]
        return found if len(found) == len(rows) else None

    def _choose(self, rows: Sequence[int], share: Share) -> bool:
        """Picks where the samples are kept, by the size of the first; whether that is the lasting place."""
        if self.lasting is None or not rows:
            return False
        key = self._key(rows[0])
        sample = self.lasting.get(key)
        if sample is None:
            (sample,) = self._fresh(rows[:1])
        if size_of(sample) * len(rows) <= SMALL:
            self.store.add(key, sample)
            return False
        self.store = self.lasting
        if key not in self.store and share.holds(key):
            self.store.add(key, sample)
        return True

    def _encode(self, rows: Sequence[int]) -> None:
        missing = {key: row for row in rows if (key := self._key(row)) not in self.store}
        for first in range(0, len(missing), CHUNK):
            part = list(missing.values())[first : first + CHUNK]
            self._fresh(part)

    def _fresh(self, rows: Sequence[int]) -> Sequence[Sample]:
        samples = self.encode([self.items[row] for row in rows])
        for row, sample in zip(rows, samples, strict=True):
            self.store.add(self._key(row), sample)
        return samples

    def _key(self, row: int) -> str:
        if row not in self._keys:
            self._keys[row] = self.key(self.items[row])
        return self._keys[row]


@dataclass(frozen=True, eq=False)
class StoredConditioning:
    """The samples of a bucket, with the views of teachers' own models."""

    own: StoredSamples
    views: Mapping[str, StoredSamples] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.own)

    def select(self, rows: Sequence[int]) -> Conditioning:
        return _joined(self.own.samples(rows), {model: part.samples(rows) for model, part in self.views.items()})

    def stored(self, rows: Sequence[int]) -> Conditioning | None:
        """As `select`, if nothing has to be encoded for these rows; else None."""
        own, views = self.own.stored(rows), {model: part.stored(rows) for model, part in self.views.items()}
        found = {model: samples for model, samples in views.items() if samples is not None}
        return _joined(own, found) if own is not None and len(found) == len(views) else None

    def parts(self) -> Iterator[StoredSamples]:
        yield self.own
        yield from self.views.values()


@dataclass(frozen=True, eq=False)
class StoredLatents:
    """The clean latents of a bucket's targets, (n, ...) by rows."""

    targets: StoredSamples

    def __getitem__(self, rows: list[int]) -> Tensor:
        return torch.stack([_latents(sample) for sample in self.targets.samples(rows)])

    def stored(self, rows: list[int]) -> Tensor | None:
        """As by `[]`, if nothing has to be encoded for these rows; else None."""
        found = self.targets.stored(rows)
        return None if found is None else torch.stack(list(map(_latents, found)))


def _joined(own: Sequence[Sample], views: Mapping[str, Sequence[Sample]]) -> Conditioning:
    return Conditioning(
        tuple(
            replace(sample, views={model: found[number] for model, found in views.items()}) if views else sample
            for number, sample in enumerate(own)
        )
    )


def _latents(sample: Sample) -> Tensor:
    value = sample.values[LATENTS]
    if not isinstance(value, Tensor):
        raise TypeError("latents are one tensor")
    return value


def key_of(*parts: object) -> str:
    """32 hexadecimal digits by plain values."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def picture_digest(picture: Picture | None) -> str:
    """SHA-256 of a picture file's bytes, or of an array; empty without one. InputError if the file cannot be read."""
    if picture is None:
        return ""
    if isinstance(picture, np.ndarray):
        return hashlib.sha256(repr((picture.dtype, picture.shape)).encode() + picture.tobytes()).hexdigest()
    data = picture if isinstance(picture, bytes) else read_bytes(picture, "the picture", PICTURE_LIMIT)
    return hashlib.sha256(data).hexdigest()
