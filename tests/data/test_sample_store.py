"""Encoded samples in files: read back to the bit; what is torn, foreign or damaged is as good as absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from danceopd_core.algorithm.fields import Sample
from danceopd_core.data import sample_store
from danceopd_core.data.sample_store import ShardStore, size_of, write_shard
from danceopd_core.errors import InputError


def sample(seed: int, null: torch.Tensor | None = None) -> Sample:
    generator = torch.Generator().manual_seed(seed)
    text = torch.randn(3 + seed % 4, 8, generator=generator).to(torch.bfloat16)
    sources = tuple(torch.randn(4, 2, 2, generator=generator) for _ in range(seed % 3))
    nulls = {} if null is None else {"ugly": Sample({"text": null, "sources": sources})}
    return Sample({"text": text, "sources": sources, "one": torch.tensor(seed), "none": torch.zeros(0, 3)}, nulls)


def equal(a: Sample, b: Sample) -> bool:
    def parts(value):
        return value if isinstance(value, tuple) else (value,)

    same = a.values.keys() == b.values.keys() and a.nulls.keys() == b.nulls.keys()
    return (
        same
        and all(equal(a.nulls[key], b.nulls[key]) for key in a.nulls)
        and all(
            len(parts(a.values[name])) == len(parts(b.values[name]))
            and all(
                x.dtype == y.dtype and torch.equal(x, y)
                for x, y in zip(parts(a.values[name]), parts(b.values[name]), strict=True)
            )
            for name in a.values
        )
    )


def key(number: int) -> str:
    return f"{number:032x}"


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    store = ShardStore(tmp_path)
    for number in range(3):
        store.add(key(number), sample(number))
    store.flush()
    (path,) = tmp_path.glob("*.safetensors")
    return path


def test_samples_come_back_to_the_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(sample_store, "SHARD_SAMPLES", 3)
    null = torch.randn(5, 8)
    store = ShardStore(tmp_path)
    for number in range(10):
        store.add(key(number), sample(number, null))
        assert key(number) in store
    assert equal(store.get(key(9)), sample(9, null))  # not written yet
    store.flush()
    assert len(list(tmp_path.iterdir())) == 4
    again = ShardStore(tmp_path)
    for number in reversed(range(10)):
        assert equal(again.get(key(number)), sample(number, null))
        assert again.get(key(number)).values["text"].requires_grad is False
    assert key(10) not in again
    assert again.get(key(10)) is None


def test_what_samples_share_is_written_once(tmp_path):
    null = torch.randn(1000, 64)
    write_shard(tmp_path / "a.safetensors", {key(n): sample(n, null) for n in range(20)})
    assert (tmp_path / "a.safetensors").stat().st_size < 1.3 * null.nbytes
    assert size_of(sample(1, null)) < 1.01 * null.nbytes + 1000


def test_another_process_finds_what_was_written(tmp_path):
    one, other = ShardStore(tmp_path), ShardStore(tmp_path)
    one.add(key(1), sample(1))
    one.flush()
    assert key(1) not in other
    other.refresh()
    assert equal(other.get(key(1)), sample(1))


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(500))


def another_version(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data.replace(sample_store.FORMAT.encode(), sample_store.FORMAT.encode()[:-1] + b"0"))


def of_something_else(path: Path) -> None:
    save_file({key(1): torch.zeros(3)}, path)


def a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)


def another_shape(path: Path) -> None:
    data = path.read_bytes()
    assert b'"shape":[4,8]' in data
    path.write_bytes(data.replace(b'"shape":[4,8]', b'"shape":[8,4]'))


@pytest.mark.parametrize("change", [torn, empty, garbage, another_version, of_something_else, a_bit, another_shape])
def test_a_file_that_is_not_whole_is_not_trusted(shard, change):
    change(shard)
    found = [ShardStore(shard.parent).get(key(number)) for number in range(3)]
    assert None in found
    assert all(one is None or equal(one, sample(number)) for number, one in enumerate(found))


def test_a_file_that_is_removed_meanwhile_is_absent(shard):
    store = ShardStore(shard.parent)
    shard.unlink()
    assert store.get(key(0)) is None
    assert key(1) not in store  # what it had is encoded again


def test_a_folder_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    store = ShardStore(tmp_path / "file" / "below")
    store.add(key(0), sample(0))
    with pytest.raises(InputError, match="DANCEOPD_CACHE"):
        store.flush()


def test_few_files_are_open_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(sample_store, "SHARD_SAMPLES", 1)
    store = ShardStore(tmp_path)
    for number in range(20):
        store.add(key(number), sample(number))
    for number in range(20):
        store.get(key(number))
    assert len(store._open) <= sample_store.OPEN_SHARDS
