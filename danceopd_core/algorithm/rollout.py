"""Rollouts: where the states come from at which the teacher is asked.

A rollout is told which step indices are wanted and spends no network call beyond them. It calls the network
under `no_grad`, but holds no torch mode across a `yield`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from .fields import Conditioning, VelocityField
from .flow import euler, interpolate, normal, sde_transition


class Start(NamedTuple):
    """Where paths begin: one row a sample; `clean` (the target's latents) only for rollouts to the data."""

    cond: Conditioning
    noise: Tensor
    clean: Tensor | None = None


@dataclass(frozen=True, eq=False)
class State:
    """States of a batch of paths, one a row: x (B, ...) at sigma (B,), about to step to sigma_next (B,).

    index: (B,) long, the step, 0 at the noise. sample: (B,) long, the row of the start.
    v, x_next: the velocity the path left with and where it went; None where the path ends on arrival, as no
    network call is spent there.
    """

    x: Tensor
    sigma: Tensor
    sigma_next: Tensor
    index: Tensor
    sample: Tensor
    v: Tensor | None = None
    x_next: Tensor | None = None


Rollout = Callable[[VelocityField, Start, Tensor, Tensor, torch.Generator | None], Iterator[State]]
"""(field, start, sigmas (N + 1,), indices (B, K) long and sorted, generator) -> K states, the k-th with every
sample's k-th index, rows in the order of the start."""

Step = Callable[[Tensor, Tensor, Tensor, Tensor, list[int]], Tensor]
"""(x, v, sigma, sigma_next, the sample of each row) -> x_next."""


def ode(
    field: VelocityField,
    start: Start,
    sigmas: Tensor,
    indices: Tensor,
    generator: torch.Generator | None = None,
) -> Iterator[State]:
    """Euler along the field from the noise. A sample's last state has no v: its path ends on arrival."""

    def step(x: Tensor, v: Tensor, sigma: Tensor, sigma_next: Tensor, samples: list[int]) -> Tensor:
        return euler(x, v, sigma, sigma_next)

    return _walk(field, start, sigmas, indices, step, leave_last=False)


@dataclass(frozen=True)
class Sde:
    """The stochastic path with the marginals of `ode`; eta scales its noise. Every state has v and x_next."""

    eta: float = 0.7

    def __call__(
        self,
        field: VelocityField,
        start: Start,
        sigmas: Tensor,
        indices: Tensor,
        generator: torch.Generator | None = None,
    ) -> Iterator[State]:
        if generator is None:
            raise ValueError("Sde draws noise at every step: pass it a torch.Generator")

        def step(x: Tensor, v: Tensor, sigma: Tensor, sigma_next: Tensor, samples: list[int]) -> Tensor:
            # Drawn for the whole start, so that no sample's noise depends on when another one leaves.
            noise = normal(start.noise, generator)[samples]
            mean, std = sde_transition(x, v, sigma, sigma_next, self.eta)
            return mean + std * noise

        return _walk(field, start, sigmas, indices, step, leave_last=True)


def straight(
    field: VelocityField,
    start: Start,
    sigmas: Tensor,
    indices: Tensor,
    generator: torch.Generator | None = None,
) -> Iterator[State]:
    """Off-policy states, on the line from the noise to the data; asks the field nothing."""
    if start.clean is None:
        raise ValueError("straight needs start.clean, the latents of a target picture for every sample")
    sigmas, indices = sigmas.to(start.noise), indices.to(start.noise.device)
    sample = torch.arange(len(indices), device=indices.device)
    for index in indices.unbind(1):
        sigma = sigmas[index]
        x = interpolate(start.clean, start.noise, sigma)
        yield State(x, sigma, sigmas[index + 1], index, sample)


def _walk(
    field: VelocityField, start: Start, sigmas: Tensor, indices: Tensor, step: Step, *, leave_last: bool
) -> Iterator[State]:
    """Step all samples together. Each leaves the batch at its last wanted index, after a network call there
    only if `leave_last`. Samples meet their k-th index at different steps: a state waits for all its rows.
    """
    wanted = indices.tolist()
    batch, k = len(wanted), 0
    waiting: list[dict[int, State]] = [{} for _ in range(indices.shape[1])]
    sigmas = sigmas.to(start.noise)
    x = list(start.noise.split(1))
    row_numbers = torch.arange(batch, device=sigmas.device).split(1)
    for i in range(int(indices.max()) + 1):
        sigma, sigma_next, index = (
            sigmas[i : i + 1],
            sigmas[i + 1 : i + 2],
            torch.tensor([i]).to(sigmas.device),
        )
        here = [State(x[b], sigma, sigma_next, index, row_numbers[b]) for b in range(batch)]

        moving = [b for b in range(batch) if i < wanted[b][-1] + leave_last]
        if moving:
            rows = _join([here[b] for b in moving])
            with torch.no_grad():
                v = field(rows.x, rows.sigma, start.cond.select(moving))
            x_next = step(rows.x, v, rows.sigma, rows.sigma_next, moving)
            for b, v_b, x_b in zip(moving, v.split(1), x_next.split(1), strict=True):
                here[b], x[b] = replace(here[b], v=v_b, x_next=x_b), x_b

        for b in range(batch):
            if i in wanted[b]:
                waiting[wanted[b].index(i)][b] = here[b]
        while k < len(waiting) and len(waiting[k]) == batch:
            yield _join([waiting[k].pop(b) for b in range(batch)])
            k += 1


def _join(rows: list[State]) -> State:
    """States of single rows as one; the optional parts are there in all rows or in none."""

    def stack(parts: list[Tensor | None]) -> Tensor | None:
        there = [part for part in parts if part is not None]
        return torch.cat(there) if there else None

    return State(
        x=torch.cat([row.x for row in rows]),
        sigma=torch.cat([row.sigma for row in rows]),
        sigma_next=torch.cat([row.sigma_next for row in rows]),
        index=torch.cat([row.index for row in rows]),
        sample=torch.cat([row.sample for row in rows]),
        v=stack([row.v for row in rows]),
        x_next=stack([row.x_next for row in rows]),
    )
