"""Rollouts: ODE, SDE and off-policy paths that provide the states at which the teacher is queried.

A rollout receives the queried step indices and makes no network call beyond the last of them. It calls the network
under `no_grad`, but holds no torch mode across a `yield`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from .fields import Conditioning, VelocityField
from .flow import euler, interpolate, normal, rows_of, sde_transition, sent


class Start(NamedTuple):
    """Where paths begin, one row per sample; `clean` (the target's latents) only for rollouts to the data.

    part, batch: which rows of a batch of how many samples these are; None: the whole batch.
    """

    cond: Conditioning
    noise: Tensor
    clean: Tensor | None = None
    part: range | None = None
    batch: int = 0

    def rows(self, part: range) -> Start:
        """Some neighbouring rows of the whole batch."""
        rows = slice(part.start, part.stop)
        clean = None if self.clean is None else self.clean[rows]
        return Start(self.cond.select(part), self.noise[rows], clean, part, len(self.noise))

    def drawn(self, generator: torch.Generator) -> Tensor:
        """Standard normal noise for each row, drawn for the whole batch."""
        if self.part is None:
            return normal(self.noise, generator)
        whole = normal(self.noise.new_empty(self.batch, *self.noise.shape[1:]), generator)
        return whole[self.part.start : self.part.stop]


@dataclass(frozen=True, eq=False)
class State:
    """States of a batch of paths, one per row: x (B, ...) at sigma (B,), whose next step goes to sigma_next (B,).

    index: (B,) long, the step, 0 at the noise. sample: (B,) long, the row of the start.
    v, x_next: the velocity at x and the state after the step; None where the path ends, since no network call is
    made there.
    """

    x: Tensor
    sigma: Tensor
    sigma_next: Tensor
    index: Tensor
    sample: Tensor
    v: Tensor | None = None
    x_next: Tensor | None = None


Rollout = Callable[[VelocityField, Start, Tensor, Tensor, torch.Generator | None], Iterator[State]]
"""(field, start, sigmas (N + 1,), indices (B, K) long and sorted, generator) -> K states, the k-th at each sample's
k-th index, rows in the order of the start."""

Step = Callable[[Tensor, Tensor, Tensor, Tensor, list[int]], Tensor]
"""(x, v, sigma, sigma_next, sample index of each row) -> x_next."""


def ode(
    field: VelocityField,
    start: Start,
    sigmas: Tensor,
    indices: Tensor,
    generator: torch.Generator | None = None,
) -> Iterator[State]:
    """Euler steps along the field from the noise. A sample's last queried state has no v: its path ends there."""

    def step(x: Tensor, v: Tensor, sigma: Tensor, sigma_next: Tensor, samples: list[int]) -> Tensor:
        return euler(x, v, sigma, sigma_next)

    return _walk(field, start, sigmas, indices, step, step_last=False)


@dataclass(frozen=True)
class Sde:
    """The stochastic path with the same marginals as `ode`; eta scales its noise. Every state has v and x_next."""

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
            # Drawn for the whole batch, so that no sample's noise depends on when another one finishes.
            noise = rows_of(start.drawn(generator), samples)
            mean, std = sde_transition(x, v, sigma, sigma_next, self.eta)
            return mean + std * noise

        return _walk(field, start, sigmas, indices, step, step_last=True)


def straight(
    field: VelocityField,
    start: Start,
    sigmas: Tensor,
    indices: Tensor,
    generator: torch.Generator | None = None,
) -> Iterator[State]:
    """Off-policy states on the straight line from the noise to the data; the field is never called."""
    if start.clean is None:
        raise ValueError("straight needs start.clean, the latents of a target picture for every sample")
    sigmas, indices = sigmas.to(start.noise), sent(indices, start.noise)
    sample = torch.arange(len(indices), device=indices.device)
    for index in indices.unbind(1):
        sigma = sigmas[index]
        x = interpolate(start.clean, start.noise, sigma)
        yield State(x, sigma, sigmas[index + 1], index, sample)


def _walk(
    field: VelocityField, start: Start, sigmas: Tensor, indices: Tensor, step: Step, *, step_last: bool
) -> Iterator[State]:
    """Steps all samples together; each leaves the batch at its last queried index, with a network call there only if
    `step_last`. Samples reach their k-th index at different steps, so a state is yielded once all its rows are there.
    """
    queried = indices.tolist()
    batch, k = len(queried), 0
    pending: list[dict[int, State]] = [{} for _ in range(indices.shape[1])]
    sigmas = sigmas.to(start.noise)
    x = list(start.noise.split(1))
    row_numbers = torch.arange(batch, device=sigmas.device).split(1)
    step_numbers = torch.arange(len(sigmas), device=sigmas.device)  # once: every copy to a GPU is waited for
    for i in range(int(indices.max()) + 1):
        sigma, sigma_next, index = sigmas[i : i + 1], sigmas[i + 1 : i + 2], step_numbers[i : i + 1]
        states = [State(x[b], sigma, sigma_next, index, row_numbers[b]) for b in range(batch)]

        moving = [b for b in range(batch) if i < queried[b][-1] + step_last]
        if moving:
            rows = _join([states[b] for b in moving])
            with torch.no_grad():
                v = field(rows.x, rows.sigma, start.cond.select(moving))
            x_next = step(rows.x, v, rows.sigma, rows.sigma_next, moving)
            for b, v_b, x_b in zip(moving, v.split(1), x_next.split(1), strict=True):
                states[b], x[b] = replace(states[b], v=v_b, x_next=x_b), x_b

        for b in range(batch):
            if i in queried[b]:
                pending[queried[b].index(i)][b] = states[b]
        while k < len(pending) and len(pending[k]) == batch:
            yield _join([pending[k].pop(b) for b in range(batch)])
            k += 1


def _join(rows: list[State]) -> State:
    """Batches states of single rows; v and x_next are present in all rows or in none."""

    def stack(parts: list[Tensor | None]) -> Tensor | None:
        present = [part for part in parts if part is not None]
        return torch.cat(present) if present else None

    return State(
        x=torch.cat([row.x for row in rows]),
        sigma=torch.cat([row.sigma for row in rows]),
        sigma_next=torch.cat([row.sigma_next for row in rows]),
        index=torch.cat([row.index for row in rows]),
        sample=torch.cat([row.sample for row in rows]),
        v=stack([row.v for row in rows]),
        x_next=stack([row.x_next for row in rows]),
    )
