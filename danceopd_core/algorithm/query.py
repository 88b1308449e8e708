"""Query samplers: at which states of a path the teacher is evaluated. Indices are distinct within a sample.

Index 0 is the noise end, index N - 1 the last state before the clean end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InputError

QuerySampler = Callable[[Tensor, int, torch.Generator], Tensor]
"""(sigmas (N + 1,), batch B, generator) -> indices (B, K), long, sorted, distinct in each row, on the CPU."""


def every(sigmas: Tensor, batch: int, generator: torch.Generator) -> Tensor:
    """All N states of every path."""
    return torch.arange(len(sigmas) - 1).repeat(batch, 1)


@dataclass(frozen=True)
class Uniform:
    """k states, all equally likely."""

    k: int = 1

    def __call__(self, sigmas: Tensor, batch: int, generator: torch.Generator) -> Tensor:
        return _draw(torch.ones(len(sigmas) - 1), self.k, batch, generator)


@dataclass(frozen=True)
class Beta:
    """k states at floor(u N) with u ~ Beta(a, b): a > b is biased to the clean end (DanceOPD: 5 and 2)."""

    a: float = 5.0
    b: float = 2.0
    k: int = 1

    def __call__(self, sigmas: Tensor, batch: int, generator: torch.Generator) -> Tensor:
        return _draw(self.probabilities(len(sigmas) - 1), self.k, batch, generator)

    def probabilities(self, states: int) -> Tensor:
        """The exact probability of each index, (states,) in float64."""
        from scipy.special import betainc

        edges = torch.linspace(0, 1, states + 1, dtype=torch.float64)
        return torch.from_numpy(betainc(self.a, self.b, edges.numpy())).diff()


@dataclass(frozen=True)
class BySigma:
    """k states with sigma uniform in [low, high], each rounded to the nearest state within the range.

    Unlike an index, a range of sigma means the same on every model's schedule.
    """

    low: float
    high: float
    k: int = 1

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise InputError(f"a range of sigma from {self.low:g} to {self.high:g} is empty: give low < high")

    def __call__(self, sigmas: Tensor, batch: int, generator: torch.Generator) -> Tensor:
        states = sigmas[:-1].cpu().double()  # float64 is not on every device
        inside = ((states >= self.low - 1e-6) & (states <= self.high + 1e-6)).nonzero().flatten()
        if not len(inside):
            raise InputError(
                f"no state of the path has sigma in [{self.low:g}, {self.high:g}]; it has "
                f"{', '.join(f'{sigma:.3g}' for sigma in states)}: widen the range or use more steps"
            )
        # The probability of a state is the part of the range that is nearer to it than to any other state.
        between = states[inside].unfold(0, 2, 1).mean(1) if len(inside) > 1 else states[:0]
        edges = torch.cat([states.new_tensor([self.high]), between, states.new_tensor([self.low])])
        return inside[_draw(-edges.diff(), self.k, batch, generator)]


class QueryBin(NamedTuple):
    """A part of the path: its mean sigma, and its share of the queries."""

    sigma: float
    share: float


def query_distribution(query: QuerySampler, sigmas: Tensor, max_bins: int = 16) -> list[QueryBin]:
    """The distribution of queries over the path of these sigmas (N + 1,), from noise to clean.

    Shares are Monte Carlo estimates, accurate to some tenths of a percent; bins below 0.5 % are left out. With more
    than `max_bins` states, neighbouring states share a bin at their mean sigma.
    """
    states = len(sigmas) - 1
    drawn = query(sigmas, max(1, min(2**16, 2**22 // states)), torch.Generator().manual_seed(0)).flatten()
    counts = torch.bincount(drawn, minlength=states).cpu().double()
    bin_size = -(-states // max_bins)
    parts = zip(sigmas[:-1].cpu().double().split(bin_size), (counts / counts.sum()).split(bin_size), strict=True)
    return [QueryBin(float((s * p).sum() / p.sum()), float(p.sum())) for s, p in parts if p.sum() >= 0.005]


def query_text(bins: Sequence[QueryBin]) -> str:
    """The distribution as a line of text, "queries at sigma 0.98 4 %, 0.93 9 %"."""
    return "queries at sigma " + ", ".join(f"{part.sigma:.2g} {100 * part.share:.0f} %" for part in bins)


def _draw(weights: Tensor, k: int, batch: int, generator: torch.Generator) -> Tensor:
    """(batch, k) sorted indices, sampled by weight without replacement: the law of redrawing until all k differ."""
    _check_count(k, len(weights))
    rows = weights.to(generator.device, torch.float64).expand(batch, -1)
    return torch.multinomial(rows, k, generator=generator).sort(1).values.cpu()


def _check_count(k: int, states: int) -> None:
    if not 1 <= k <= states:
        raise InputError(f"{k} queries per path of {states} states: lower k, or use more steps")


QUERIES: dict[str, QuerySampler] = {
    "low": Beta(5, 2),
    "mid": Beta(5, 5),
    "high": Beta(2, 5),
    "uniform": Uniform(),
    "every": every,
}
"""The paper's query biases, named after the sigma that they favour: low is biased to the clean end."""
