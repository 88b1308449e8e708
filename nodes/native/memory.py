"""What a training needs on its device beside the weights of the MODEL, so that ComfyUI makes room for it.

The estimate starts from ComfyUI's own of one forward pass, `BaseModel.memory_required`, which is about what one block
works with. A backward pass keeps the activations of every block; with checkpointing, the inputs of every block, and all
of one. The factors are from measured peaks (`tests/native/laws/memory.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import comfy.model_management as management
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...danceopd_core.algorithm.fields import Conditioning, Sample
from .checkpointing import repeated_blocks
from .conditioning import REFERENCES

FLOAT32 = 4


@dataclass
class Room:
    """How many bytes are to stay free whenever the MODEL is loaded; shared by all that share the MODEL."""

    bytes: int = 0


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes. optimizer: gradients, Adam's two moments and the average of the student. activations: of one backward."""

    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        return self.optimizer + self.activations

    def text(self, patcher: ModelPatcher) -> str:
        """A line of progress, with a warning where less is free."""
        told = (
            f"the training needs about {_gib(self.total)} beside the MODEL's {_gib(patcher.model_size())}: "
            f"{_gib(self.optimizer)} for gradients and moments, {_gib(self.activations)} for activations"
        )
        free = management.get_free_memory(patcher.load_device)
        return told if free > self.total else f"{told}; only {_gib(free)} are free, so it may run out of memory"


def training_memory(
    patcher: ModelPatcher,
    trained: int,
    average: bool,
    batch: int,
    shape: Sequence[int],
    references: int,
    checkpointing: bool,
) -> TrainingMemory:
    """trained: weights of the student. shape: of one sample's latents. references: the most latents that the source
    pictures of a sample have."""
    area = math.prod(shape[1:]) + references
    forward = patcher.memory_required([batch, shape[0], area])
    blocks = len(repeated_blocks(patcher.model.diffusion_model))
    kept = 3 + blocks / 8 if checkpointing else 1 + blocks
    return TrainingMemory(FLOAT32 * (3 + average) * trained, int(forward * kept))


def reference_area(samples: Iterable[Conditioning]) -> int:
    """The most latents that the source pictures of one sample have."""
    return max((_area(sample) for cond in samples for sample in cond.samples), default=0)


def _area(sample: Sample) -> int:
    found = sample.values.get(REFERENCES, ())
    return sum(math.prod(part.shape[2:]) for part in found if isinstance(part, Tensor))


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"
