"""Several processes as one ProcessGroup, through accelerate: `accelerate launch -m danceopd_core train RECIPE`.

Routes are drawn from the shared seed, so every process trains the same one, on its own samples and noise. The
gradients are averaged once per update, after its last micro-step, so that all weights stay identical.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor

from ..algorithm.trainer import ProcessGroup


def join_process_group(device: str = "auto") -> tuple[ProcessGroup, torch.device | None]:
    """The processes that accelerate launched and the device of this one; ProcessGroup() and None if it is alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
        return ProcessGroup(), None
    from accelerate import PartialState

    state = PartialState(cpu=device == "cpu")

    def mean(tensors: Sequence[Tensor]) -> None:
        # One message instead of one a layer: a LoRA has hundreds of small factors.
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        torch.distributed.all_reduce(flat)
        flat /= state.num_processes
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    return ProcessGroup(state.process_index, state.num_processes, mean), state.device
