"""The numbers of a training run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """steps: optimizer updates. batch: samples of a micro-step. accumulate: micro-steps of a route's update.
    clip: largest gradient norm. warmup: updates. ema: decay of the averaged student, 0 for none. optimizer: a name of
    OPTIMIZERS. held_out: share of each bucket that is not trained but measured on, as `held_out.held_rows` has it."""

    steps: int
    batch: int = 1
    accumulate: int = 4
    lr: float = 2e-4
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float = 1.0
    schedule: str = "constant"
    warmup: int = 0
    ema: float = 0.0
    seed: int = 0
    optimizer: str = "adamw"
    held_out: float = 0.0
