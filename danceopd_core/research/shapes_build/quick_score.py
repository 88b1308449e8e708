"""Scores a network on held-out items through the batched forward, for the build's log."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch

from ...shapes.judge import score_caption, score_edit, score_style
from ...shapes.language import Caption, items
from ...shapes.render import render
from ..shapes_build import architecture, batched
from .build_context import BuildContext, encode_images


@torch.no_grad()
def quick_score(
    context: BuildContext, network: Any, categories: tuple[str, ...], scale: float, steps: int, style: str = ""
) -> dict[str, float]:
    """Category -> mean score, and "mean" over them. scale: of guidance; categories: all of captions or all of edits."""
    held_out_items = items(categories, context.plan.evaluated_items, seed=99)
    edit = not isinstance(held_out_items[0], Caption)
    texts, null = context.texts(network, [item.text for item in held_out_items], edit)
    rows = torch.arange(len(held_out_items), device=context.device)
    batch = texts[rows]
    null_batch = null[torch.zeros_like(rows)]
    source = None
    if edit:
        images = np.stack([render(item.source, architecture.SIDE) for item in held_out_items])  # type: ignore[union-attr]
        source = encode_images(context.project, images, context.device)
    generator = torch.Generator(context.device).manual_seed(5)
    side = architecture.SIDE // 4
    shape = (len(held_out_items), architecture.CHANNELS, side, side)
    x = torch.randn(shape, generator=generator, device=context.device)
    t = torch.linspace(1, 0, steps + 1, device=context.device)
    sigmas = architecture.SHIFT * t / (1 + (architecture.SHIFT - 1) * t)
    for now, then in pairwise(sigmas):
        sigma = now.expand(len(held_out_items))
        v = batched.velocity(network, x, sigma, batch, source)
        if scale != 1:
            v_null = batched.velocity(network, x, sigma, null_batch, source)
            v = v_null + scale * (v - v_null)
        x = x + (then - now) * v
    decoded = ((context.decode(x).clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    scores: dict[str, list[float]] = {category: [] for category in categories}
    for item, image in zip(held_out_items, decoded, strict=True):
        score = score_caption(item, image) if isinstance(item, Caption) else score_edit(item, image)
        scores[item.category].append(score_style(style, image) if style else score)
    table = {category: float(np.mean(of_category)) for category, of_category in scores.items()}
    return table | {"mean": float(np.mean(list(table.values())))}
