"""What a node says of its bucket: how many prompts it has, and what may be amiss with them."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..recipe.schema import Bucket
from .csv_rows import Item
from .wildcards import has_wildcards

FEW = 64
"""Prompts below which it is told how few they are: a run of 1000 updates at 4 samples each draws every one 60 times."""
LOOKED_AT = 1000
"""Prompts that are searched for wildcards."""

LARGEST = 32 * 2**20
"""Bytes of a table that is read to be counted."""


def is_counted(bucket: Bucket) -> bool:
    """Whether counting its prompts takes no time worth mentioning."""
    return bucket.csv is None or not os.path.isfile(bucket.csv) or os.path.getsize(bucket.csv) <= LARGEST


def bucket_text(bucket: Bucket, items: Sequence[Item]) -> str:
    """The number of prompts and sources, and notes, a line each."""
    given, edits = len(items) // max(1, bucket.wildcards), bool(items) and items[0].source is not None
    draws = f", {bucket.wildcards} draws of each" if bucket.wildcards else ""
    lines = [f"{given} {'edits' if edits else 'prompts'}{draws}"]
    if len(items) < FEW:
        lines.append("few: the student sees each again and again, and may learn no more than these; give some hundred")
    if not bucket.wildcards and any(has_wildcards(item.prompt) for item in items[:LOOKED_AT]):
        lines.append("{a|b} and __file__ are plain text while wildcards is 0")
    return "\n".join(lines)
