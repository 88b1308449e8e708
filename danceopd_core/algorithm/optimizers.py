"""The optimisers by name: AdamW, and two whose state is small beside a LoRA of high rank."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec

import torch
from torch import nn

from ..errors import InputError
from ..lookup import lookup
from .settings import Settings

Build = Callable[[Sequence[nn.Parameter], Settings], torch.optim.Optimizer]


def _adamw(parameters: Sequence[nn.Parameter], settings: Settings) -> torch.optim.Optimizer:
    # One kernel for all parameters on a GPU. On a CPU the default has the bits of earlier runs.
    fused = True if all(parameter.is_cuda for parameter in parameters) else None
    return torch.optim.AdamW(
        parameters, settings.lr, settings.betas, weight_decay=settings.weight_decay, fused=fused
    )  # fmt: skip


def _adamw8bit(parameters: Sequence[nn.Parameter], settings: Settings) -> torch.optim.Optimizer:
    from bitsandbytes.optim import AdamW8bit

    return AdamW8bit(parameters, settings.lr, settings.betas, weight_decay=settings.weight_decay)


def _adafactor(parameters: Sequence[nn.Parameter], settings: Settings) -> torch.optim.Optimizer:
    from transformers import Adafactor

    # The learning rate and its schedule are the recipe's, not those that Adafactor can choose for itself.
    return Adafactor(
        parameters, settings.lr, weight_decay=settings.weight_decay, scale_parameter=False, relative_step=False
    )  # fmt: skip


OPTIMIZERS: dict[str, Build] = {"adamw": _adamw, "adamw8bit": _adamw8bit, "adafactor": _adafactor}
"""All with decoupled weight decay. adamw: 8 bytes of state for each number that is trained; adamw8bit: 2, by
bitsandbytes; adafactor: nearly none, as it keeps the second moment by rows and columns and no first one."""
STATE_BYTES = {"adamw": 8.0, "adamw8bit": 2.0, "adafactor": 0.1}
"""Of the optimiser's state for each number that is trained."""


def build_optimizer(parameters: Sequence[nn.Parameter], settings: Settings) -> torch.optim.Optimizer:
    """InputError for an unknown name, or one whose library is absent."""
    build = lookup(OPTIMIZERS, settings.optimizer, "optimizer")
    check_optimizer(settings.optimizer)
    return build(parameters, settings)


def check_optimizer(name: str) -> None:
    """InputError if the library of an optimiser is absent."""
    if name == "adamw8bit" and find_spec("bitsandbytes") is None:
        raise InputError.at(
            "optimizer.name", "adamw8bit needs bitsandbytes: pip install bitsandbytes, or use adamw or adafactor"
        )
