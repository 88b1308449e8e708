"""Updates of the student's parameters: clipped gradients, an optimiser, its schedule, and the moving average."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .optimizers import build_optimizer
from .settings import Settings


class Diverged(RuntimeError):
    """The loss or the gradient is not finite; the weights are those of the last good update."""


class Updater:
    """Updates `parameters` from their gradients. update: how many updates they have had.

    average: the exponential moving average of the parameters, in their order; empty if `settings.ema` is 0.
    torn: an update failed while it was applied, so that no whole update is there to save.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], settings: Settings) -> None:
        from diffusers.optimization import get_scheduler

        self.update, self.torn = 0, False
        self.average = [p.detach().clone() for p in parameters] if settings.ema else []
        self._parameters, self._settings = list(parameters), settings
        self._optimizer = build_optimizer(self._parameters, settings)
        self._schedule = get_scheduler(
            settings.schedule,
            self._optimizer,
            num_warmup_steps=settings.warmup,
            num_training_steps=settings.steps,
        )

    def gradients(self) -> list[Tensor]:
        return [p.grad for p in self._parameters if p.grad is not None]

    def clear_gradients(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)

    def clip(self) -> Tensor:
        """Scales the gradients to the largest norm allowed; gives their norm before, on its device."""
        return nn.utils.clip_grad_norm_(self._parameters, self._settings.clip)

    def reserve(self) -> None:
        """Takes the memory that `apply` will need on a GPU, and gives it back: failures come before a change."""
        if self._parameters[0].is_cuda:
            copies = 1 if self._optimizer.state else 3  # the square roots of a step, and moments before the first
            _ = [[torch.empty_like(p) for p in self._parameters] for _ in range(copies)]

    def apply(self, losses: Mapping[str, float], norm: float) -> float:
        """Updates the parameters by the clipped gradients, and clears these; gives the learning rate of the update.

        Diverged, with the parameters unchanged, if a loss or the gradient norm is not finite.
        """
        if not math.isfinite(norm) or not all(map(math.isfinite, losses.values())):
            self.clear_gradients()
            raise Diverged(
                f"update {self.update + 1} has loss {dict(losses)} and gradient norm {norm}: lower the learning rate "
                "or check the teachers; the weights of the last good update are kept"
            )
        lr, before = float(self._optimizer.param_groups[0]["lr"]), self.update
        try:
            self._optimizer.step()
            self.clear_gradients()
            self._schedule.step()
            self.update += 1
            if self.average:
                # The decay rises from 0.18, so that the first weights do not hold the average back.
                decay = min(self._settings.ema, (1 + self.update) / (10 + self.update))
                torch._foreach_lerp_(self.average, [p.detach() for p in self._parameters], 1 - decay)
        except BaseException:
            # A step of a parameter is counted before anything of it is changed. Looked at here only: on a GPU the
            # counts are there, and each one that is read is waited for.
            self.torn = any(float(state["step"]) > before for state in self._optimizer.state.values())
            raise
        return lr

    def state_dict(self) -> dict[str, Any]:
        return {
            "update": self.update,
            "average": list(self.average),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.update = state["update"]
        for average, saved in zip(self.average, state["average"], strict=True):
            average.copy_(saved)
        # A saved state also says whether the optimiser was fused, which is a matter of the device that it runs on now.
        own = [{key: group[key] for key in ("fused",) if key in group} for group in self._optimizer.param_groups]
        groups = [{**saved, **now} for saved, now in zip(state["optimizer"]["param_groups"], own, strict=True)]
        self._optimizer.load_state_dict({**state["optimizer"], "param_groups": groups})
        self._schedule.load_state_dict(state["schedule"])
