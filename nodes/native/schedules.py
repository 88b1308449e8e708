"""The sigmas of a rollout, from the MODEL's own sampling and one of ComfyUI's schedulers."""

from __future__ import annotations

from comfy.samplers import SCHEDULER_NAMES, calculate_sigmas
from comfy_extras.nodes_flux import Flux2Scheduler
from torch import Tensor

from ...danceopd_core.errors import InputError

FLUX2 = "flux2"
SCHEDULERS = (*SCHEDULER_NAMES, FLUX2)
"""ComfyUI's schedulers, and that of the node Flux2Scheduler, which shifts by the size of the picture."""
DEFAULT = "simple"


def model_sigmas(sampling: object, scheduler: str, steps: int, width: int, height: int) -> Tensor:
    """(steps + 1,) float32 from 1 to 0; InputError if the scheduler gives another number, or starts elsewhere."""
    if scheduler not in SCHEDULERS:
        raise InputError(f"there is no scheduler {scheduler!r}: choose one of {', '.join(SCHEDULERS)}")
    if scheduler == FLUX2:
        sigmas = Flux2Scheduler.execute(steps, width, height).args[0]
    else:
        sigmas = calculate_sigmas(sampling, scheduler, steps)
    sigmas = sigmas.clone().float()
    if len(sigmas) != steps + 1 or abs(sigmas[0] - 1) > 1e-4 or sigmas[-1] != 0 or (sigmas.diff() >= 0).any():
        raise InputError(
            f"the scheduler {scheduler!r} gives no {steps} falling steps from 1 to 0 for this MODEL, but "
            f"{len(sigmas) - 1} from {sigmas[0]:.4g} to {sigmas[-1]:.4g}: choose {DEFAULT!r}"
        )
    sigmas[0] = 1.0
    return sigmas
