"""Rendered training data, made in parallel from a seed: captions or edits with their pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np

from ...shapes.language import EDIT, T2I, held_out, sample_caption, sample_edit
from ...shapes.render import render

CHUNK = 1000


class Pool(NamedTuple):
    """texts (n), pictures (n, S, S, 3) uint8, sources the same or None for captions."""

    texts: list[str]
    pictures: np.ndarray
    sources: np.ndarray | None


def _chunk(number: int, categories: tuple[str, ...], seed: int, style: str, size: int, loose: bool) -> Pool:
    rng = np.random.default_rng((seed, number))
    texts: list[str] = []
    pictures, sources = [], []
    while len(texts) < CHUNK:
        category = categories[len(texts) % len(categories)]
        item = sample_caption(rng, category) if category in T2I else sample_edit(rng, category)
        if held_out(item):
            continue
        texts.append(item.text)
        if category in EDIT:
            sources.append(render(item.source, size))  # type: ignore[union-attr]
            pictures.append(render(item.target, size))  # type: ignore[union-attr]
        else:
            pictures.append(render(item.scene(rng, style, loose), size))  # type: ignore[union-attr]
    return Pool(texts, np.stack(pictures), np.stack(sources) if sources else None)


def pool(
    categories: Sequence[str], count: int, seed: int, style: str = "flat", size: int = 64, loose: bool = False
) -> Pool:
    """At least `count` training items (none held out) spread evenly over the categories, repeatable from the seed."""
    work = partial(_chunk, categories=tuple(categories), seed=seed, style=style, size=size, loose=loose)
    chunks = range(-(-count // CHUNK))
    if len(chunks) == 1:
        return work(0)
    with ProcessPoolExecutor(os.cpu_count()) as workers:
        parts = list(workers.map(work, chunks))
    sources = [p.sources for p in parts if p.sources is not None]
    return Pool(
        [text for part in parts for text in part.texts],
        np.concatenate([part.pictures for part in parts]),
        np.concatenate(sources) if sources else None,
    )
