"""Opens a data set as a stream of rows through the library `datasets`. No code of a data set ever runs."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import InputError, shown
from ..lookup import did_you_mean
from ..models.hub import is_hub_id, split_id
from ..recipe.schema import Stream
from .csv_text import look_alikes

KINDS = {".parquet": "parquet", ".jsonl": "json", ".arrow": "arrow", ".tar": "webdataset"}
"""The readers of `datasets` for local files. JSON files of other names are settings of something else."""
READERS = (*KINDS.values(), "csv", "text", "imagefolder")
"""Those that a data set with an id may ask for; others execute queries, or read pickles or archives of other kinds."""


@dataclass(frozen=True, eq=False)
class OpenStream:
    """A data set whose first rows were read. columns: all of them. folder: of local files; None: it has an id."""

    rows: Iterable[Mapping[str, Any]]
    columns: tuple[str, ...]
    folder: Path | None

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        with told():
            yield from self.rows


@contextmanager
def told() -> Iterator[None]:
    """A context in which every failure of the library is an InputError."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # of pyarrow, of readers of every format, of the network
        reason = shown(" ".join(str(error).split()), 300) or type(error).__name__
        raise InputError(f"it cannot be read: {reason}") from error


def open_stream(stream: Stream) -> OpenStream:
    """Opens a data set and reads its first row; InputError, as a predicate, for one that cannot be a stream of these
    columns."""
    if find_spec("datasets") is None:
        raise InputError("a stream needs the library datasets: pip install danceopd[stream]")
    with told():
        builder, folder = _builder(stream)
        kind = type(builder).__module__.removeprefix("datasets.packaged_modules.").partition(".")[0]
        if kind not in READERS:
            raise InputError(f"it is read by {shown(kind)}, not one of {', '.join(READERS)}: save it as parquet")
        if builder.info.splits and stream.split not in builder.info.splits:
            near = did_you_mean(stream.split, builder.info.splits)
            raise InputError(f"it has no split {stream.split!r}{near}: there are {', '.join(builder.info.splits)}")
        rows = builder.as_streaming_dataset(split=stream.split)
        if rows.features is not None:  # files of pictures, for this project's own checks, instead of pixels
            rows = rows.decode(False)
        first = next(iter(rows), None)
        if first is None:
            raise InputError(f"its split {stream.split!r} has no rows")
        columns = tuple(rows.column_names or first)
        used = [_column(stream, setting, columns) for setting in ("prompt", "source_image", "target_image")]
        rows = rows.select_columns(list(dict.fromkeys(filter(None, used))))
    return OpenStream(rows, columns, folder)


def _builder(stream: Stream) -> tuple[Any, Path | None]:
    import datasets

    if is_hub_id(stream.source):
        repository, revision = split_id(stream.source)
        return datasets.load_dataset_builder(repository, stream.config, revision=revision), None
    files, kind = local_files(stream)
    path = Path(stream.source)
    chosen = {stream.split: [glob.escape(str(file)) for file in files]}
    return datasets.load_dataset_builder(kind, data_files=chosen), path if path.is_dir() else path.parent


def local_files(stream: Stream) -> tuple[list[Path], str]:
    """The files of a local stream's split, in order, and their reader; InputError, as a predicate, without."""
    path = Path(stream.source)
    if stream.config is not None:
        raise InputError("only a data set with an id has a config: leave it out")
    if os.path.isfile(path):
        kind = KINDS.get(path.suffix.lower(), "json" if path.suffix.lower() == ".json" else None)
        if kind is None:
            raise InputError(f"it is no {', '.join(KINDS)} file")
        return [path], kind
    if not os.path.isdir(path):
        raise InputError("it is neither a file or folder here nor the owner/name of a Hugging Face data set")
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in KINDS and file.is_file())
    named = [file for file in found if stream.split.lower() in _words(file.relative_to(path))]
    if found and not named and stream.split != "train":
        raise InputError(f"no file in it has the split {stream.split!r} in its name")
    files = named or found
    kinds = sorted({KINDS[file.suffix.lower()] for file in files})
    if len(kinds) != 1:
        what = f"files of {' and '.join(kinds)}: name one folder for each" if kinds else f"no {', '.join(KINDS)} file"
        raise InputError(f"the folder holds {what}")
    return files, kinds[0]


def _words(path: Path) -> list[str]:
    return re.split(r"[^a-z0-9]+", str(path).lower())


def _column(stream: Stream, setting: str, columns: tuple[str, ...]) -> str:
    """The data set's column that a setting names; "" where it names none."""
    named: str | None = getattr(stream, setting)
    if named is None:
        return ""
    found = next((column for column in (named, named.partition(".")[0]) if column in columns), None)
    if found is None:
        like = next((column for column, known in look_alikes(columns, (setting,)).items() if known == setting), None)
        near = f" (did you mean {shown(like, 60)!r}?)" if like else did_you_mean(named, columns)
        names = shown(", ".join(columns), 300)
        raise InputError(f"it has no column {named!r}{near}: there are {names}; name one with stream.{setting}")
    return found
