"""Sizes of about one area for pictures of different aspect ratios, so that sources keep theirs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..outside import PICTURE_LIMIT, read_bytes
from .csv_rows import Item
from .images import Picture, upright_size
from .indexed_csv import Mapped

Size = tuple[int, int]
"""Width and height in pixels."""
RATIOS = ((1, 2), (9, 16), (2, 3), (3, 4), (4, 5), (1, 1), (5, 4), (4, 3), (3, 2), (16, 9), (2, 1))
"""Width to height. A picture of another ratio is cropped to the nearest; one beyond 1:2 loses the most."""


def sizes_of(width: int, height: int, multiple: int) -> tuple[Size, ...]:
    """The run's own size, then one for each of `RATIOS` at its area, of sides that `multiple` divides."""
    area, found = width * height, [(width, height)]
    for across, down in RATIOS:
        side = math.sqrt(area / (across * down))
        found.append((_side(side * across, multiple), _side(side * down, multiple)))
    return tuple(dict.fromkeys(found))


def _side(length: float, multiple: int) -> int:
    return max(1, round(length / multiple)) * multiple


def nearest(sizes: Sequence[Size], size: Size) -> int:
    """The index of the first of the sizes whose aspect ratio is nearest to that of `size`."""
    own = math.log(size[0] / size[1])
    return min(range(len(sizes)), key=lambda number: abs(math.log(sizes[number][0] / sizes[number][1]) - own))


def picture_size(picture: Picture) -> Size:
    """Of the upright picture, from its header; InputError for a file that is none."""
    if isinstance(picture, np.ndarray):
        return picture.shape[1], picture.shape[0]
    data = picture if isinstance(picture, bytes) else read_bytes(picture, "the picture", PICTURE_LIMIT)
    return upright_size(data)


def item_sizes(items: Sequence[Item], sizes: Sequence[Size]) -> list[int]:
    """For each item the index of the size of its source picture; 0, the run's own, without one."""
    known: dict[Picture, int] = {}

    def size(item: Item) -> int:
        if item.source is None:
            return 0
        if isinstance(item.source, np.ndarray):
            return nearest(sizes, picture_size(item.source))
        if item.source not in known:
            known[item.source] = nearest(sizes, picture_size(item.source))
        return known[item.source]

    return [size(item) for item in items]


def sized(items: Sequence[Item], numbers: Sequence[int], sizes: Sequence[Size]) -> Sequence[Item]:
    """The items, each with its size by `item_sizes`."""
    return Mapped(range(len(items)), lambda row: replace(items[row], size=sizes[numbers[row]]))
