"""Reads the rows of a benchmark's table one at a time, because all their images do not fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ..data.metadata_rows import READERS, metadata_rows
from ..errors import InputError
from ..models.hub import is_hub_id, split_id
from ..outside import expanded


class Rows(Protocol):
    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Mapping[str, Any]: ...


class Table(NamedTuple):
    """texts: the rows without their images. rows: the whole rows. places: where each row is, for error messages.

    folder: the base of relative image paths. faults: one line for each row that cannot be read.
    """

    texts: Sequence[Mapping[str, Any]]
    rows: Rows
    places: Sequence[str]
    folder: Path
    faults: Sequence[str] = ()


def open_table(source: str, split: str = "train") -> Table:
    """A .csv, .json, .jsonl or .parquet file, a folder of parquet files or one that `datasets` saved with
    save_to_disk, or the owner/name of a Hugging Face dataset, which is downloaded; InputError for anything else.
    """
    path = expanded(source)
    if path.suffix.lower() in READERS:
        return _file(path)
    if path.suffix.lower() == ".parquet" and path.is_file():
        return _parquet([path])
    if path.is_dir():
        files = sorted(path.glob("*.parquet"))
        return _parquet(files) if files else _saved(path, split)
    if is_hub_id(source):
        datasets = _library("datasets", f"{source} is not a file; to download it as a Hugging Face dataset")
        name, revision = split_id(source)
        opened = partial(datasets.load_dataset, name, split=split, trust_remote_code=False, revision=revision)
        return _dataset(opened, Path(), source)
    raise InputError(
        f"{source} is not a table: give a {', '.join(READERS)} or .parquet file, a folder, or the owner/name of a "
        "Hugging Face dataset"
    )


def _file(path: Path) -> Table:
    entries = list(metadata_rows(str(path)))
    what = "row" if path.suffix.lower() == ".json" else "line"
    faults = [f"{what} {row.number}: {row.fault}" for row in entries if row.fault]
    valid = [row for row in entries if not row.fault]
    rows = [row.values for row in valid]
    return Table(rows, rows, [f"{what} {row.number}" for row in valid], path.resolve().parent, faults)


def _parquet(files: list[Path]) -> Table:
    arrow = _library("pyarrow", f"{files[0]} is a parquet file; to read it")
    from pyarrow import parquet

    try:
        table = arrow.concat_tables([parquet.read_table(file, memory_map=True) for file in files])
    except (OSError, ValueError) as error:
        raise InputError(f"{files[0]} cannot be read: {error}") from error
    image_types = (arrow.types.is_struct, arrow.types.is_binary, arrow.types.is_large_binary)
    plain = [field.name for field in table.schema if not any(kind(field.type) for kind in image_types)]
    return _numbered(table.select(plain).to_pylist(), _Arrow(table), files[0].resolve().parent)


class _Arrow:
    def __init__(self, table: Any) -> None:
        self._table = table

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        return dict(self._table.slice(index, 1).to_pylist()[0])


def _saved(path: Path, split: str) -> Table:
    datasets = _library("datasets", f"{path} is a folder without parquet files; to read it as a saved dataset")

    def opened() -> Any:
        saved = datasets.load_from_disk(str(path))
        return saved[split] if isinstance(saved, dict) else saved

    return _dataset(opened, path.resolve(), str(path))


def _dataset(opened: Callable[[], Any], folder: Path, name: str) -> Table:
    import datasets

    try:
        dataset = opened()
        images = [column for column, kind in dataset.features.items() if isinstance(kind, datasets.Image)]
        for column in images:  # the encoded file instead of decoded pixels
            dataset = dataset.cast_column(column, datasets.Image(decode=False))
        texts = dataset.remove_columns(images).to_list()
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise InputError(f"the dataset {name} cannot be read: {' '.join(str(error).split())}") from error
    return _numbered(texts, dataset, folder)


def _numbered(texts: Sequence[Mapping[str, Any]], rows: Rows, folder: Path) -> Table:
    return Table(texts, rows, [f"row {index + 1}" for index in range(len(texts))], folder)


def _library(name: str, why: str) -> Any:
    if find_spec(name) is None:
        raise InputError(f"{why}, pip install {name}")
    return import_module(name)
