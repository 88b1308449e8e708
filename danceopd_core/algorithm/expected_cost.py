"""What a path costs, in forwards of the transformer for one sample; a backward counts as two."""

from __future__ import annotations

import torch
from torch import Tensor

from .methods import Method
from .query import every
from .rollout import Sde, straight

STUDENT_COST = 3  # a forward and a backward


def expected_forwards(method: Method, sigmas: Tensor, teacher_calls: float) -> float:
    """The mean forwards of one path: the rollout to its last queried state, then teacher and student at each of them.

    teacher_calls: 2 for a guided teacher; for a mix of teachers, the sum over them.
    """
    # Paths draw their indices independently, so the mean of a large batch is the expectation.
    indices = method.query(sigmas, 1 if method.query is every else 20_000, torch.Generator().manual_seed(0))
    if method.states is straight:
        rollout = 0.0
    else:
        rollout = indices[:, -1].double().mean().item() + isinstance(method.states, Sde)
    return rollout + indices.shape[1] * (teacher_calls + STUDENT_COST)
