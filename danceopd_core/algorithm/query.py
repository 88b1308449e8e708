"""Which states of a path are asked about: samplers of step indices, without replacement within a sample.

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
    """k states at floor(u N) with u ~ Beta(a, b): a > b leans to the clean end (DanceOPD, 5 and 2)."""

    a: float = 5.0
    b: float = 2.0
    k: int = 1

    def __call__(self, sigmas: Tensor, batch: int, generator: torch.Generator) -> Tensor:
        return _draw(self.probabilities(len(sigmas) - 1), self.k, batch, generator)

    def probabilities(self, states: int) -> Tensor:
        """The exact probability of every index, (states,) in float64."""
        from scipy.special import betainc

        edges = torch.linspace(0, 1, states + 1, dtype=torch.float64)
        return torch.from_numpy(betainc(self.a, self.b, edges.numpy())).diff()


@dataclass(frozen=True)
class BySigma:
    """k states with sigma uniform in [low, high], each draw rounded to the nearest state within the range.

    Means the same on every family's grid, which an index does not.
    """

    low: float
    high: float
    k: int = 1

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise InputError(f"a range of sigma from {self.low:g} to {self.high:g} is empty: give low < high")

    def __call__(self, sigmas: Tensor, batch: int, generator: torch.Generator) -> Tensor:
        states = sigmas[:-1].double().cpu()
        inside = ((states >= self.low - 1e-6) & (states <= self.high + 1e-6)).nonzero().flatten()
        if not len(inside):
            raise InputError(
                f"no state of the path has sigma in [{self.low:g}, {self.high:g}]; it has "
                f"{', '.join(f'{sigma:.3g}' for sigma in states)}: widen the range or take more steps"
            )
        # A state stands for the part of the range that is nearer to it than to any other.
        between = states[inside].unfold(0, 2, 1).mean(1) if len(inside) > 1 else states[:0]
        edges = torch.cat([states.new_tensor([self.high]), between, states.new_tensor([self.low])])
        return inside[_draw(-edges.diff(), self.k, batch, generator)]


class QueryBin(NamedTuple):
    """A part of the path: its sigma, and its share of the questions."""

    sigma: float
    share: float


def query_distribution(query: QuerySampler, sigmas: Tensor, most: int = 16) -> list[QueryBin]:
    """Where on the path of these sigmas (N + 1,) the teacher is asked, from noise to clean.

    The shares are those of many draws, right to some tenths of a percent; parts below 0.5 % are left out. Of more
    than `most` states neighbours are told together, at the mean of their sigmas.
    """
    states = len(sigmas) - 1
    drawn = query(sigmas, max(1, min(2**16, 2**22 // states)), torch.Generator().manual_seed(0)).flatten()
    counts = torch.bincount(drawn, minlength=states).double()
    together = -(-states // most)
    parts = zip(sigmas[:-1].double().cpu().split(together), (counts / counts.sum()).split(together), strict=True)
    return [QueryBin(float((s * p).sum() / p.sum()), float(p.sum())) for s, p in parts if p.sum() >= 0.005]


def query_text(parts: Sequence[QueryBin]) -> str:
    """ "asks at sigma 0.98 4 %, 0.93 9 %": those parts in words."""
    return "asks at sigma " + ", ".join(f"{part.sigma:.2g} {100 * part.share:.0f} %" for part in parts)


def _draw(weights: Tensor, k: int, batch: int, generator: torch.Generator) -> Tensor:
    """Rows of k distinct indices, sorted. Each is drawn by weight among those left, the law of redrawing
    until k differ; `multinomial` does it at once, by a race of exponentials."""
    _check_count(k, len(weights))
    rows = weights.to(generator.device, torch.float64).expand(batch, -1)
    return torch.multinomial(rows, k, generator=generator).sort(1).values.cpu()


def _check_count(k: int, states: int) -> None:
    if not 1 <= k <= states:
        raise InputError(f"{k} states asked of {states}: ask for fewer, or take more steps")


QUERIES: dict[str, QuerySampler] = {
    "low": Beta(5, 2),
    "mid": Beta(5, 5),
    "high": Beta(2, 5),
    "uniform": Uniform(),
    "every": every,
}
"""The paper's query biases by the sigma that they lean to: low leans to the clean end."""
