"""The floor of an update: the forwards that its method needs, times what the bare network takes for one."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ...algorithm.attention import sound_attention
from ...algorithm.query import Beta
from ...algorithm.trainer import Trainer
from ...models.backbone import Backbone


def expected_rollout(steps: int) -> float:
    """Forwards of a rollout to one state of the default query, on average: its index."""
    return float((Beta().probabilities(steps) * torch.arange(steps)).sum())


def bare_calls(backbone: Backbone, trainer: Trainer) -> tuple[Callable[[], None], Callable[[], None]]:
    """One forward of the network without LoRAs at batch 1, and one forward and backward to its input.

    To the input, as a LoRA's backward passes through every frozen layer but needs no gradient of its weights.
    """
    network, cond = backbone.network, trainer.routes[0].samples.select([0]).to(trainer.device)
    x = torch.randn(1, *trainer.shape, device=trainer.device)
    sigma = torch.full((1,), 0.5, device=trainer.device)
    hooks = {module: dict(module._forward_hooks) for module in network.modules() if module._forward_hooks}

    def without_lora(call: Callable[[], None]) -> None:
        for module in hooks:
            module._forward_hooks.clear()
        try:
            call()
        finally:
            for module, own in hooks.items():
                module._forward_hooks.update(own)

    def forward() -> None:
        with torch.no_grad():
            backbone.velocity(x, sigma, cond)

    def both() -> None:
        state = x.clone().requires_grad_(True)
        with sound_attention():  # as the trainer
            torch.autograd.grad(backbone.velocity(state, sigma, cond).square().mean(), state)

    return lambda: without_lora(forward), lambda: without_lora(both)
