"""A base model that is shared among processes (FSDP2): each keeps a part of every layer's weights.

Only the frozen network is sharded. LoRA factors lie beside its modules, so every process has all of them, and the
gradients of the student are averaged as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ...algorithm.trainer import ProcessGroup
from ...errors import Fault, refuse
from ...recipe.file_names import is_live
from ...recipe.schema import Recipe


def check_shardable(recipe: Recipe, processes: ProcessGroup) -> None:
    """InputError, with every fault, for a run whose base cannot be shared among its processes."""
    refuse("the run", list(_faults(recipe, processes)))


def _faults(recipe: Recipe, processes: ProcessGroup) -> Iterator[Fault]:
    if processes.size < 2:
        yield Fault("", "--fsdp shares the base model among processes, and there is one: start it with torchrun")
    if is_live(recipe.model):
        yield Fault("model", "--fsdp shares diffusers models, and this one is ComfyUI's: leave it out")
    if recipe.quantise is not None:
        yield Fault("quantise", "--fsdp and quantised weights exclude each other: leave one out")
    if recipe.compile:
        yield Fault("compile", "--fsdp gathers weights around every block, which is not compiled: leave one out")
    for name, teacher in recipe.teachers.items():
        for setting in ("checkpoint", "model"):
            if getattr(teacher, setting):
                yield Fault(
                    f"teachers.{name}.{setting}",
                    "--fsdp shares the weights of the run's own model only: use a LoRA as the teacher",
                )


def shard(network: nn.Module, device: torch.device, processes: int) -> None:
    """Shares a network's weights among all processes, in place; each part is on `device` from then on.

    A block at a time is moved there and whole, as later in every forward and backward pass.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (processes,))
    for child in network.children():
        for block in child if isinstance(child, nn.ModuleList) else ():
            if any(True for _ in block.parameters()):
                fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)


def most(device: torch.device) -> Callable[[int], int]:
    """The largest of the processes' numbers."""

    def largest(number: int) -> int:
        held: Tensor = torch.tensor([number], device=device)
        torch.distributed.all_reduce(held, torch.distributed.ReduceOp.MAX)
        return int(held)

    return largest
