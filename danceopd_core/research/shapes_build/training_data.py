"""Renders training items, captions or edits, in parallel and repeatably from a seed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np

from ...shapes.language import EDIT, T2I, is_held_out, sample_caption, sample_edit
from ...shapes.render import render

CHUNK = 1000
"""Items per random stream and task of a worker process; another size gives other items."""


class TrainingItems(NamedTuple):
    """texts (n), images (n, S, S, 3) uint8, sources like images, or None for captions."""

    texts: list[str]
    images: np.ndarray
    sources: np.ndarray | None


def sample_items(
    categories: Sequence[str], count: int, seed: int, style: str = "flat", size: int = 64, free_layout: bool = False
) -> TrainingItems:
    """At least `count` items, none of them held out, spread evenly over the categories and repeatable from the seed."""
    task = partial(_chunk, categories=tuple(categories), seed=seed, style=style, size=size, free_layout=free_layout)
    chunks = range(-(-count // CHUNK))
    if len(chunks) == 1:
        return task(0)
    with ProcessPoolExecutor(os.cpu_count()) as workers:
        parts = list(workers.map(task, chunks))
    sources = [part.sources for part in parts if part.sources is not None]
    return TrainingItems(
        [text for part in parts for text in part.texts],
        np.concatenate([part.images for part in parts]),
        np.concatenate(sources) if sources else None,
    )


def _chunk(
    number: int, categories: tuple[str, ...], seed: int, style: str, size: int, free_layout: bool
) -> TrainingItems:
    rng = np.random.default_rng((seed, number))
    texts: list[str] = []
    images, sources = [], []
    while len(texts) < CHUNK:
        category = categories[len(texts) % len(categories)]
        item = sample_caption(rng, category) if category in T2I else sample_edit(rng, category)
        if is_held_out(item):
            continue
        texts.append(item.text)
        if category in EDIT:
            sources.append(render(item.source, size))  # type: ignore[union-attr]
            images.append(render(item.target, size))  # type: ignore[union-attr]
        else:
            images.append(render(item.scene(rng, style, free_layout), size))  # type: ignore[union-attr]
    return TrainingItems(texts, np.stack(images), np.stack(sources) if sources else None)
