"""The part of the schema that says how an update is made: optimizer, query and the shift of the path's sigmas.
The text below a field is its documentation, as in `schema`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .limits import Count, Fraction, NotNegative, Positive, Sigma, Whole

Schedule = Literal["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"]
"""The schedules of diffusers that need only the run's length and its warmup."""


@dataclass(frozen=True)
class Optimizer:
    """The optimiser and its learning-rate schedule."""

    lr: Positive = 2e-4
    """Learning rate, the highest of the schedule."""
    weight_decay: NotNegative = 0.0
    """Decoupled weight decay."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Decay rates of the first and the second moment."""
    clip: Positive = 1.0
    """Largest norm of the gradient; larger gradients are scaled down to it."""
    schedule: Schedule = "constant"
    """Learning rate over the run."""
    warmup: Whole = 0
    """Updates over which the learning rate rises from 0; needs a schedule other than `constant`."""
    ema: Fraction = 0.0
    """Decay per update of a moving average of the weights, which is then what is saved; 0: no average."""
    name: Literal["adamw", "adamw8bit", "adafactor"] = "adamw"
    """For a LoRA of high rank: `adamw8bit` has a quarter of AdamW's state (needs bitsandbytes), `adafactor` nearly
    none (without `betas`)."""


@dataclass(frozen=True)
class Query:
    """The states of a path at which the teacher is queried. Only for methods that do not query every state."""

    bias: str = "low"
    """Distribution over the path's steps: `low` (toward the clean end), `mid`, `high` (toward the noise), `uniform`,
    or `every` for all states."""
    k: Count = 1
    """Number of queried states per path; at most `rollout_steps`."""
    sigma: tuple[Sigma, Sigma] | None = None
    """[low, high]: query uniformly in this range of sigma; 0 is clean, 1 noise. null: by `bias`."""


@dataclass(frozen=True)
class Shift:
    """A sigma schedule: evenly spaced sigmas, shifted."""

    shift: Positive
    """1: evenly spaced. Above 1: more of the steps near the noise; below 1: more near the clean end."""
