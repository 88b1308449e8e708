"""What a LoRA changes in a model's answers: against the same model at strength 0, at three times of its own path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..algorithm.fields import Conditioning, VelocityField
from ..models.sampling import integrate

TIMES = (0.9, 0.5, 0.1)
"""Sigmas: most of the picture undecided, its parts, its details."""
WEAK = 1e-3
"""A change of this part of the answer at all times is less than what rounding to bfloat16 changes (2 ** -9)."""
STRONG = 1.0
"""A change as large as the answer itself."""


class Effect(NamedTuple):
    """sigma: of a state on the base model's path, near one of `TIMES`. change: norm of the difference of the answers,
    as part of the base model's answer."""

    sigma: float
    change: float


def measured_effect(
    base: VelocityField,
    changed: VelocityField,
    samples: Conditioning,
    noise: Tensor,
    sigmas: Tensor,
    step: Callable[[], None] = lambda: None,
) -> list[Effect]:
    """The effect at the states of the base's path that are nearest to `TIMES`, the mean over the samples.

    noise: (B, ...), where the path starts; sigmas: (N + 1,) from 1 to 0. step: is called after every step of the path.
    """
    states = {0: noise}

    def keep(index: int, x: Tensor) -> None:
        states[index + 1] = x
        step()

    integrate(base, noise, sigmas, samples, keep)
    found = []
    with torch.no_grad():
        for index in sorted({int((sigmas[:-1] - time).abs().argmin()) for time in TIMES}):
            sigma = sigmas[index].to(noise.device).expand(len(noise))
            answer = base(states[index], sigma, samples).double().flatten(1)
            other = changed(states[index], sigma, samples).double().flatten(1)
            change = (other - answer).norm(dim=1) / answer.norm(dim=1)
            found.append(Effect(float(sigmas[index]), float(change.mean())))
            step()
    return found


def effect_text(effects: Sequence[Effect]) -> str:
    """The effect in words."""
    shown = ", ".join(f"{effect.change:.2%} at sigma {effect.sigma:.2f}" for effect in effects)
    changes = [effect.change for effect in effects]
    if any(change != change for change in changes):
        return f"its answers hold NaN ({shown})"
    if max(changes) == 0:
        return f"no effect: the model answers as without it ({shown})"
    if max(changes) < WEAK:
        return f"hardly an effect: less than a change of precision makes ({shown})"
    if max(changes) > STRONG:
        return f"it changes more than the whole answer: a lower strength may do ({shown})"
    return f"it changes the model's answer by {shown}"
