"""Buckets of prompts and pictures."""

from __future__ import annotations

from ..errors import InputError
from ..lookup import lookup
from ..recipe.schema import Bucket
from ..shapes.language import KINDS, Caption, items
from ..shapes.render import render
from .csv_rows import Item, read_csv


def load_bucket(bucket: Bucket, seed: int, width: int = 64, height: int = 64) -> tuple[Item, ...]:
    """The items of a bucket, at least one; those of the embedded world are drawn from `seed`.

    Their pictures are square and as wide as the longer side, for `open_picture` to crop.
    """
    if bucket.csv is not None:
        return read_csv(bucket.csv, bucket.task)
    if bucket.shapes is not None:
        return _embedded(bucket.shapes, bucket.count, seed, max(width, height))
    if not bucket.prompts:
        raise InputError("the bucket is empty: give it a csv, prompts or shapes")
    return tuple(Item(prompt) for prompt in bucket.prompts)


def _embedded(kind: str, count: int, seed: int, size: int) -> tuple[Item, ...]:
    categories = lookup(KINDS, kind, "kind of the embedded world")
    count = count or min(600, 200 * len(categories))  # a category has some 270 captions to train on
    share, more = divmod(count, len(categories))
    try:
        found = items(categories, share + bool(more), seed, held_out=False)
    except ValueError as error:
        raise InputError(f"{count} pictures of {kind} are too many: {error}; ask for fewer") from error
    left = {category: share + (i < more) for i, category in enumerate(categories)}
    chosen = []
    for item in found:
        left[item.category] -= 1
        if left[item.category] < 0:
            continue
        if isinstance(item, Caption):
            chosen.append(Item(item.text, task=item.category))
        else:
            source, target = render(item.source, size), render(item.target, size)
            chosen.append(Item(item.text, source, target, item.category))
    return tuple(chosen)
