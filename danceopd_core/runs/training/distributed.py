"""Several processes as one ProcessGroup, through accelerate: `accelerate launch -m danceopd_core train RECIPE`.

Routes are drawn from the shared seed, so every process trains the same one, on its own samples and noise. The
gradients are averaged once per update, after its last micro-step, so that all weights stay identical.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor

from ...algorithm.trainer import ProcessGroup
from ...errors import InputError

Result = TypeVar("Result")
STALLED = 60.0
"""Seconds after which a process says for which other one it waits."""


class ProcessLost(RuntimeError):
    """Another process of the run ended or cannot be reached."""


def join_process_group(
    device: str = "auto", stalled: float = STALLED, tell: Callable[[str], None] = lambda text: None
) -> tuple[ProcessGroup, torch.device | None]:
    """The processes that accelerate launched and the device of this one; ProcessGroup() and None if it is alone.

    stalled: seconds of waiting for another process after which `tell` hears of it, again and again.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
        return ProcessGroup(), None
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    from .stall import Meetings, launchers_store

    state = PartialState(cpu=device == "cpu")
    store = launchers_store()
    meetings = Meetings(store, state.process_index, state.num_processes, stalled, tell) if store else None

    def meeting() -> AbstractContextManager[None]:
        return meetings.meeting() if meetings else nullcontext()

    def mean(tensors: Sequence[Tensor]) -> None:
        # One message instead of one a layer: a LoRA has hundreds of small factors.
        flat = torch.cat([tensor.flatten() for tensor in tensors]).to(state.device)
        try:
            with meeting():
                torch.distributed.all_reduce(flat)
                if flat.is_cuda:  # there the call returns at once, and what comes next would wait
                    torch.cuda.synchronize(flat.device)
        except RuntimeError as error:
            raise ProcessLost(
                "another process of the run ended or cannot be reached: look at what it said, and resume "
                f"({str(error).splitlines()[0]})"
            ) from error
        flat /= state.num_processes
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def share(value: Any) -> Any:
        return broadcast_object_list([value])[0]

    return ProcessGroup(state.process_index, state.num_processes, mean, share), state.device


def by_main(processes: ProcessGroup, work: Callable[[], Result]) -> Result:
    """What `work` returns in the main process, in every process; it is called in the main one alone.

    InputError there is raised there and ends the others without a word.
    """
    result, fault = None, None
    if processes.rank == 0:
        try:
            result = work()
        except InputError as error:
            fault = error
    failed, result = processes.share((fault is not None, result))
    if fault is not None:
        raise fault
    if failed:
        raise SystemExit(2)
    return result  # type: ignore[return-value]
