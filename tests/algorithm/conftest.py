"""Fixtures of the algorithm's tests: fields that are linear in x, so that every result is known."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from danceopd_core.algorithm.fields import Conditioning, Sample
from danceopd_core.algorithm.rollout import Start

DIM = 4


class Linear:
    """v = x A' + b c, with c from the conditioning; counts the rows of its calls."""

    def __init__(self, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.a = torch.randn(DIM, DIM, generator=generator) / 2
        self.b = torch.randn(DIM, generator=generator)
        self.calls: list[int] = []

    def __call__(self, x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor:
        self.calls.append(len(x))
        assert len(x) == len(sigma) == len(cond)
        gain = torch.stack([torch.as_tensor(sample.values["gain"]) for sample in cond.samples])
        return x @ self.a.T + self.b * gain[:, None]


class Student(nn.Module):
    """The same family of fields with weights to learn, all zero at first."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(DIM, DIM))
        self.b = nn.Parameter(torch.zeros(DIM))

    def forward(self, x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor:
        gain = torch.stack([torch.as_tensor(sample.values["gain"]) for sample in cond.samples])
        return x @ self.a.T + self.b * gain[:, None]

    def copy(self, field: Linear) -> "Student":
        with torch.no_grad():
            self.a.copy_(field.a)
            self.b.copy_(field.b)
        return self


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def linear() -> type[Linear]:
    return Linear


@pytest.fixture
def student() -> Student:
    return Student()


@pytest.fixture
def start(generator: torch.Generator) -> Callable[[int], Start]:
    """A batch of starts, each sample with a gain and a null whose gain is 0."""

    def make(batch: int) -> Start:
        null = Sample({"gain": torch.tensor(0.0)})
        samples = (Sample({"gain": torch.tensor(1.0 + b)}, {"": null}) for b in range(batch))
        noise, clean = torch.randn(2, batch, DIM, generator=generator)
        return Start(Conditioning(tuple(samples)), noise, clean)

    return make
