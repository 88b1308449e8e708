"""The judge's table for any field of the embedded world, with seeds and 95 % intervals."""

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
class Mark:
    """A mean of `count` scores in [0, 1] with its 95 % interval (Wilson's, which no score at 0 or 1 collapses)."""

    mean: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, scores: Sequence[float]) -> Mark:
        n, p, z = len(scores), float(np.mean(scores)), 1.96
        middle, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        scale = 1 + z * z / n
        return cls(p, (middle - spread) / scale, (middle + spread) / scale, n)


Table = dict[str, Mark]
"""Marks by category, and by kind ("t2i", "edit") over all of its items."""


@dataclass(frozen=True, eq=False)
class Exam:
    """Held-out items, encoded once for every field that is to be compared, each with a noise of its own."""

    items: tuple[Caption | Edit, ...]
    samples: Conditioning
    seed: int
    size: int = 64
    steps: int = 8

    @classmethod
    def of(
        cls, backbone: Backbone, kinds: Mapping[tuple[str, ...], int], seed: int, size: int = 64, steps: int = 8
    ) -> Exam:
        """kinds: categories, and how many held-out items of each."""
        found = [item for kind, each in kinds.items() for item in items(kind, each, seed)]
        sources = [
            [torch.from_numpy(render(item.source, size)).float() / 255] if isinstance(item, Edit) else None
            for item in found
        ]
        samples = backbone.encode([item.text for item in found], sources, [""])
        return cls(tuple(found), samples.to("cpu"), seed, size, steps)

    def shots(
        self, backbone: Backbone, field: VelocityField, batch: int = 32, device: torch.device | str = "cpu"
    ) -> Iterator[np.ndarray]:
        """The field's picture of each item, (size, size, 3) uint8, in order."""
        made = sample_pictures(
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
        for group in made:
            yield from (group * 255).round().to(torch.uint8).numpy()


def scored(exam: Exam, shots: Sequence[np.ndarray], style: str | None = None) -> dict[str, list[float]]:
    """Each item's score, by category; with `style`, the share of things lit in that style instead."""
    scores: dict[str, list[float]] = {}
    for item, shot in zip(exam.items, shots, strict=True):
        if style:
            score = score_style(style, shot)
        else:
            score = score_caption(item, shot) if isinstance(item, Caption) else score_edit(item, shot)
        scores.setdefault(item.category, []).append(score)
    return scores


def judge(exam: Exam, shots: Sequence[np.ndarray], style: str | None = None) -> Table:
    """Each category's mark; with `style`, the share of things lit in that style instead."""
    scores = scored(exam, shots, style)
    table = {}
    for name, kind in (("t2i", T2I), ("edit", EDIT)):
        every = [score for category in kind for score in scores.get(category, [])]
        if every:
            table[name] = Mark.of(every)
    return table | {category: Mark.of(marks) for category, marks in scores.items()}


def as_text(tables: dict[str, Table]) -> str:
    """The tables as Markdown, one row a field."""
    columns = list(dict.fromkeys(name for table in tables.values() for name in table))
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, table in tables.items():
        cells = [f"{m.mean:.3f} ({m.low:.2f}-{m.high:.2f})" if (m := table.get(column)) else "" for column in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
