"""Scores a field on held-out items of the embedded world: per item, per category, as Markdown; with 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..algorithm.fields import Conditioning, VelocityField
from ..models.backbone import Backbone
from ..models.sampling import sample_pictures
from .judge import score_caption, score_edit, score_style
from .language import EDIT, T2I, Caption, Edit, items
from .render import render


@dataclass(frozen=True)
class MeanScore:
    """The mean of `count` scores in [0, 1] with its 95 % Wilson interval, which keeps a width at means of 0 and 1."""

    mean: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, scores: Sequence[float]) -> MeanScore:
        n, p, z = len(scores), float(np.mean(scores)), 1.96
        center, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        scale = 1 + z * z / n
        return cls(p, (center - spread) / scale, (center + spread) / scale, n)


ScoreTable = dict[str, MeanScore]
"""Mean scores by category, and by kind ("t2i", "edit") over all its items."""


@dataclass(frozen=True, eq=False)
class HeldOutSet:
    """Held-out items with their encoded prompts and sources, shared by all fields that are compared.

    seed: item i starts from the noise of seed * 100_003 + i. size: pixels a side. steps: of the sampler.
    """

    items: tuple[Caption | Edit, ...]
    samples: Conditioning
    seed: int
    size: int = 64
    steps: int = 8

    @classmethod
    def of(
        cls, backbone: Backbone, kinds: Mapping[tuple[str, ...], int], seed: int, size: int = 64, steps: int = 8
    ) -> HeldOutSet:
        """kinds: categories -> number of held-out items of each of them."""
        chosen = [item for kind, count in kinds.items() for item in items(kind, count, seed)]
        sources = [
            [torch.from_numpy(render(item.source, size)).float() / 255] if isinstance(item, Edit) else None
            for item in chosen
        ]
        samples = backbone.encode([item.text for item in chosen], sources, [""])
        return cls(tuple(chosen), samples.to("cpu"), seed, size, steps)

    def generate(
        self, backbone: Backbone, field: VelocityField, batch: int = 32, device: torch.device | str = "cpu"
    ) -> Iterator[np.ndarray]:
        """The field's image for each item, (size, size, 3) uint8, in order."""
        batches = sample_pictures(
            backbone,
            field,
            self.samples,
            [self.seed * 100_003 + row for row in range(len(self.items))],
            steps=self.steps,
            width=self.size,
            height=self.size,
            batch=batch,
            device=device,
        )
        for images in batches:
            yield from (images * 255).round().to(torch.uint8).numpy()


def item_scores(
    held_out_set: HeldOutSet, images: Sequence[np.ndarray], style: str | None = None
) -> dict[str, list[float]]:
    """Each item's score, by category; with `style`, the fraction of its objects rendered in that style instead."""
    scores: dict[str, list[float]] = {}
    for item, image in zip(held_out_set.items, images, strict=True):
        if style:
            score = score_style(style, image)
        else:
            score = score_caption(item, image) if isinstance(item, Caption) else score_edit(item, image)
        scores.setdefault(item.category, []).append(score)
    return scores


def score_table(held_out_set: HeldOutSet, images: Sequence[np.ndarray], style: str | None = None) -> ScoreTable:
    """The mean scores of the images; `style` as in `item_scores`."""
    scores = item_scores(held_out_set, images, style)
    table = {}
    for name, kind in (("t2i", T2I), ("edit", EDIT)):
        of_kind = [score for category in kind for score in scores.get(category, [])]
        if of_kind:
            table[name] = MeanScore.of(of_kind)
    return table | {category: MeanScore.of(of_category) for category, of_category in scores.items()}


def score_markdown(tables: Mapping[str, ScoreTable]) -> str:
    """The tables of several fields as one Markdown table, one row per field."""
    columns = list(dict.fromkeys(name for table in tables.values() for name in table))
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, table in tables.items():
        cells = [f"{m.mean:.3f} ({m.low:.2f}-{m.high:.2f})" if (m := table.get(column)) else "" for column in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
