"""Sizes of one area for pictures of different aspect ratios."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from danceopd_core.data.aspects import item_sizes, nearest, picture_size, sized, sizes_of
from danceopd_core.data.csv_rows import Item


@pytest.mark.parametrize(("width", "height", "multiple"), [(1024, 1024, 16), (768, 1152, 16), (64, 64, 8)])
def test_sizes_keep_area_and_multiple_and_begin_with_the_runs_own(width, height, multiple):
    sizes = sizes_of(width, height, multiple)
    assert sizes[0] == (width, height)
    assert len(set(sizes)) == len(sizes) >= 7
    for across, down in sizes:
        assert across % multiple == down % multiple == 0
        assert abs(math.log(across * down / (width * height))) < 2.5 * multiple / min(across, down)


def test_a_picture_takes_the_nearest_ratio():
    sizes = sizes_of(1024, 1024, 16)
    assert sizes[nearest(sizes, (500, 500))] == (1024, 1024)
    assert sizes[nearest(sizes, (3000, 2000))] == (1248, 832)
    assert sizes[nearest(sizes, (2000, 3000))] == (832, 1248)
    assert sizes[nearest(sizes, (9000, 1000))] == (1456, 720)


def test_the_upright_picture_counts(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg", exif=exif)
    assert picture_size(tmp_path / "a.jpg") == (20, 30)
    assert picture_size(np.zeros((20, 30, 3), np.uint8)) == (30, 20)


def test_items_get_the_size_of_their_source(tmp_path):
    for name, size in {"a": (30, 20), "b": (20, 30)}.items():
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    items = [Item("x", tmp_path / "a.png"), Item("y"), Item("z", np.zeros((30, 20, 3), np.uint8))]
    sizes = sizes_of(96, 96, 8)
    numbers = item_sizes(items, sizes)
    found = sized(items, numbers, sizes)
    assert [item.size for item in found] == [(120, 80), (96, 96), (80, 120)]
    assert [item.prompt for item in found[1:]] == ["y", "z"]
