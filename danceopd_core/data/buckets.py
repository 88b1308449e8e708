"""Loads the items of a bucket: from a CSV file, a list of prompts, the embedded world, conditioning, or a stream."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from ..lookup import lookup
from ..recipe.schema import Bucket
from ..shapes.language import KINDS, Caption, items
from ..shapes.render import render
from .csv_rows import CsvRow, CsvRows, Item, items_of, numbered_rows
from .encoded_bucket import read_encoded
from .roots import Roots, file_of
from .stream_items import StreamItems
from .wildcards import drawn


def load_bucket(bucket: Bucket, seed: int, width: int = 64, height: int = 64, roots: Roots = None) -> Sequence[Item]:
    """The items of a bucket, at least one; those of the embedded world are generated from `seed`.

    Their pictures are square with the longer of the two sides, for `open_picture` to crop. roots: where files have
    to lie; None: anywhere.
    """
    if bucket.shapes is not None:
        return _shapes_items(bucket.shapes, bucket.count, seed, max(width, height))
    if bucket.encoded is not None:
        return read_encoded(bucket.encoded if roots is None else file_of(bucket.encoded, Path(), roots))
    if bucket.stream is not None:
        if roots is not None:
            raise InputError("a stream is read on the command line only: give a csv")
        return StreamItems(bucket.stream, seed)
    return items_of(bucket_rows(bucket, seed, roots))


def bucket_rows(bucket: Bucket, seed: int, roots: Roots = None) -> CsvRows:
    """The rows of a bucket with csv or prompts, at least one, with their wildcards drawn from `seed`.

    Prompts are numbered from 1.
    """
    if bucket.csv is not None:
        rows = numbered_rows(bucket.csv, bucket.task, roots)
    elif bucket.prompts:
        rows = tuple(CsvRow(number, Item(prompt)) for number, prompt in enumerate(bucket.prompts, 1))
    else:
        raise InputError("the bucket is empty: give it a csv, prompts or shapes")
    return drawn(rows, bucket.wildcards, seed, bucket.wildcard_files, roots)


def _shapes_items(kind: str, count: int, seed: int, size: int) -> tuple[Item, ...]:
    categories = lookup(KINDS, kind, "kind of the embedded world")
    count = count or min(600, 200 * len(categories))  # a category has about 270 training captions
    per_category, remainder = divmod(count, len(categories))
    try:
        candidates = items(categories, per_category + bool(remainder), seed, held_out=False)
    except ValueError as error:
        raise InputError(f"{count} pictures of {kind} are too many: {error}; ask for fewer") from error
    remaining = {category: per_category + (i < remainder) for i, category in enumerate(categories)}
    chosen = []
    for item in candidates:
        remaining[item.category] -= 1
        if remaining[item.category] < 0:
            continue
        if isinstance(item, Caption):
            chosen.append(Item(item.text, task=item.category))
        else:
            source, target = render(item.source, size), render(item.target, size)
            chosen.append(Item(item.text, source, target, item.category))
    return tuple(chosen)
