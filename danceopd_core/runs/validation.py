"""Validation during a training: the error on fixed samples, and pictures of fixed prompts from fixed noise."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..algorithm.fields import Conditioning
from ..data.csv_rows import Item
from ..data.images import upright
from ..errors import InputError
from ..listening import one_more, work
from ..models.sampling import sample_pictures
from ..weights.adapters import STUDENT
from .planning import RunPlan
from .session import TrainingSession


@dataclass(frozen=True, eq=False)
class Validation:
    """What is validated, and when.

    prompts: of the pictures; none: the first item of each route. sources: pictures that the prompts edit, one for all
    or one each. every: updates between two validations; 0: only at the end.
    """

    prompts: tuple[str, ...] = ()
    sources: tuple[np.ndarray, ...] = ()
    every: int = 0

    def __post_init__(self) -> None:
        if self.sources and not self.prompts:
            raise InputError(
                "validation_sources: they are edited by validation_prompts, and there are none: write one for all, or "
                "one each"
            )
        if self.sources and len(self.sources) not in (1, len(self.prompts)):
            raise InputError(
                f"validation_sources: {len(self.sources)} pictures for {len(self.prompts)} validation_prompts: "
                "give one picture for all of them, or one each"
            )

    def items(self, plan: RunPlan) -> list[Item]:
        if not self.prompts:
            return [plan.items(route.bucket)[0] for route in plan.recipe.routes]
        sources = self.sources * len(self.prompts) if len(self.sources) == 1 else self.sources
        return [Item(prompt, sources[i] if sources else None) for i, prompt in enumerate(self.prompts)]

    def digest(self) -> str:
        """SHA-256 of the prompts and sources."""
        content = (self.prompts, [(source.shape, source.tobytes()) for source in self.sources])
        return hashlib.sha256(repr(content).encode()).hexdigest()


def validation_pictures(session: TrainingSession, samples: Conditioning) -> list[np.ndarray]:
    """The student's picture of each sample, (H, W, 3) uint8; the noise depends on the recipe's seed and the row."""
    recipe, batch = session.recipe, session.trainer.micro_batch
    batches = sample_pictures(
        session.backbone,
        session.fields[STUDENT],
        samples,
        [recipe.seed + row for row in range(len(samples))],
        steps=recipe.path_steps,
        width=recipe.width,
        height=recipe.height,
        batch=batch,
        device=session.device,
        sigmas=session.trainer.sigmas,
        step=lambda index, x: one_more(),
    )
    with work("making the validation pictures", recipe.path_steps * -(-len(samples) // batch)):
        return [(image.clamp(0, 1) * 255).round().to(torch.uint8).numpy() for images in batches for image in images]


def read_pictures(files: Sequence[Path]) -> torch.Tensor:
    """(n, H, W, 3) in [0, 1], as ComfyUI's IMAGE is."""
    return torch.stack([torch.from_numpy(np.array(upright(file))).float() / 255 for file in files])
