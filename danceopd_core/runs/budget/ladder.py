"""`memory: auto`: which settings of a run are chosen by the free memory of its device.

The ladder, from its top: gradient checkpointing; full checkpoints offloaded to host memory; the batch in passes of half
as many samples, down to one; the base quantised in int8, then in nf4. The first rung whose peak fits is taken. All but
the last leave the results as they are, to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch

from ...errors import InputError, shown
from ...models.quantise import QUANTISATIONS, check_quantise
from ...recipe.schema import Recipe
from .memory import GIB, Estimate, Memory, checkpoints_by_default

KEPT_FREE = 0.05
"""Of the free memory, for what is not counted: longer prompts, workspaces of kernels, memory in pieces."""
LADDER_KINDS: tuple[Literal["int8", "nf4"], ...] = ("int8", "nf4")


@dataclass(frozen=True)
class Choice:
    """How a run is fitted into memory. recipe: with every setting decided. micro_batch: samples of a pass.

    encode_on_device: whether text encoders and VAE fit there. memory: the estimate, None where none was made. free:
    bytes. note: why none could be made.
    """

    recipe: Recipe
    micro_batch: int
    encode_on_device: bool = True
    memory: Memory | None = None
    free: int = 0
    note: str = ""

    @property
    def fits(self) -> bool:
        return self.memory is None or self.memory.update <= _usable(self.free)

    def text(self) -> str:
        """One line of progress; empty where nothing was estimated."""
        if self.memory is None:
            return self.note and f"memory: not estimated ({self.note}); gradient checkpointing is " + (
                "on" if self.recipe.gradient_checkpointing else "off"
            )
        recipe, parts = self.recipe, []
        if recipe.gradient_checkpointing:
            parts.append("gradient checkpointing")
        if recipe.offload:
            parts.append("full checkpoints in host memory")
        if self.micro_batch < recipe.batch:
            parts.append(f"{self.micro_batch} of the batch of {recipe.batch} at a time")
        if recipe.quantise:
            parts.append(f"the base in {recipe.quantise}")
            if QUANTISATIONS[recipe.quantise].keeps_weights and not recipe.gradient_checkpointing:
                parts.append("a 16-bit copy of every layer, for want of gradient checkpointing")
        if not self.encode_on_device:
            parts.append("prompts encoded on the CPU")
        told = (
            f"memory: {_gib(self.memory.update)} at the peak, {_gib(self.free)} free: {', '.join(parts) or 'as it is'}"
        )
        if self.fits:
            return told
        return f"{told}; it may run out of memory: lower width and height, student.rank or batch"


def choose(estimate: Estimate, free: int, kinds: Collection[str]) -> Choice:
    """The first rung that fits in `free` bytes, or the last one. kinds: the quantisations that can be loaded."""
    found = None
    for recipe, batch in _rungs(estimate.recipe, estimate, kinds):
        memory = estimate.memory(recipe, bool(recipe.gradient_checkpointing), batch)
        found = Choice(recipe, batch, memory.opening <= _usable(free), memory, free)
        if found.fits:
            break
    if found is None:
        raise ValueError("the ladder has no rung")
    return found


def settle(
    recipe: Recipe,
    device: torch.device,
    estimated: Callable[[], Estimate | None],
    free: Callable[[torch.device], int | None] | None = None,
    quantise: bool = True,
) -> Choice:
    """The choice for a run on this device: on a CPU, or with `memory: manual`, what the recipe says.

    estimated: makes the estimate where it is needed; None, or an error, chooses checkpointing alone.
    free: bytes that are free on a device, None where that is unknown. quantise: whether the base may be quantised.
    """
    decided = replace(recipe, gradient_checkpointing=checkpoints_by_default(recipe, device.type))
    available = None if recipe.memory == "manual" else (free or free_bytes)(device)
    if available is None:
        return Choice(decided, recipe.batch)
    try:
        kinds = [kind for kind in LADDER_KINDS if quantise and loads(kind, device)]
        found = estimated()
        return (
            Choice(decided, recipe.batch) if found is None else choose(replace(found, recipe=decided), available, kinds)
        )
    except (InputError, RuntimeError, NotImplementedError, TypeError) as error:  # a run needs no estimate
        return Choice(decided, recipe.batch, note=shown(str(error), 120))


def free_bytes(device: torch.device) -> int | None:
    """Bytes that are free on a GPU; None for a CPU, which has no memory of its own."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return max(0, torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return None


def _rungs(recipe: Recipe, estimate: Estimate, kinds: Collection[str]) -> Iterator[tuple[Recipe, int]]:
    """Settings and samples of a pass, each with no more memory than the one before."""
    batch = recipe.batch
    if recipe.gradient_checkpointing is None:
        recipe = replace(recipe, gradient_checkpointing=True)
    yield recipe, batch
    if estimate.copies and not recipe.offload:
        recipe = replace(recipe, offload=True)
        yield recipe, batch
    while batch > 1:
        batch = -(-batch // 2)
        yield recipe, batch
    if recipe.quantise is None and not estimate.copies and "transformer" not in recipe.components:
        for kind in LADDER_KINDS:
            if kind in kinds:  # int8 keeps what it dequantised unless gradients are checkpointed
                yield replace(recipe, quantise=kind, gradient_checkpointing=True), batch


def loads(kind: str, device: torch.device) -> bool:
    """Whether this quantisation can be loaded there."""
    try:
        check_quantise(kind, device)
    except InputError:
        return False
    return True


def _usable(free: int) -> float:
    return (1 - KEPT_FREE) * free


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"
