"""A device without float64, as MPS is: nothing on it is ever made of that type."""

from __future__ import annotations

import pytest
import torch

from danceopd_core.algorithm.fields import Conditioning, Sample
from danceopd_core.algorithm.methods import METHODS, method, state_losses
from danceopd_core.algorithm.query import QUERIES, BySigma, query_distribution
from danceopd_core.algorithm.reading_ahead import pinned
from danceopd_core.algorithm.rollout import Start


class WithoutFloat64(torch.Tensor):
    """A tensor on a pretended device: `cpu` leaves it, and whatever is float64 on it is refused as MPS does."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.Tensor.cpu or (func is torch.Tensor.to and args[1:2] in (("cpu",), (torch.device("cpu"),))):
            return args[0].as_subclass(torch.Tensor)
        out = super().__torch_function__(func, types, args, kwargs)
        for one in out if isinstance(out, tuple | list) else [out]:
            if isinstance(one, WithoutFloat64) and one.dtype == torch.float64:
                raise TypeError(
                    "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64"
                )
        return out


def there(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.as_subclass(WithoutFloat64)


SIGMAS = torch.linspace(1, 0, 9)


def test_the_pretended_device_refuses_float64():
    with pytest.raises(TypeError, match="float64"):
        there(SIGMAS).double()
    assert type(there(SIGMAS).cpu().double()) is torch.Tensor


@pytest.mark.parametrize("query", [*QUERIES.values(), BySigma(0.2, 0.8)], ids=[*QUERIES, "by sigma"])
def test_queries(query):
    def drawn(sigmas):
        return query(sigmas, 5, torch.Generator().manual_seed(0))

    assert drawn(there(SIGMAS)).equal(drawn(SIGMAS))
    assert query_distribution(query, there(SIGMAS)) == query_distribution(query, SIGMAS)


@pytest.mark.parametrize("name", METHODS)
def test_updates_of_every_method(name):
    found = []
    for place in (there, lambda tensor: tensor):
        factor = torch.nn.Parameter(torch.tensor(0.5))
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(2, 4, 4, 4, generator=generator)
        start = Start(Conditioning((Sample({}), Sample({}))), place(noise), place(noise.flip(0)))
        losses = state_losses(
            method(name, group=1),
            lambda x, sigma, cond, factor=factor: factor * x,
            lambda x, sigma, cond: 0.9 * x,
            start,
            place(SIGMAS),
            generator,
        )
        total = 0.0
        for term in losses:
            term.loss.backward()
            total += term.loss.item()
        found.append((total, factor.grad.item()))
    assert found[0] == found[1]


def test_only_memory_of_the_host_is_pinned():
    """What other nodes give may be on the device: pinning that raises."""
    assert pinned(torch.empty(2, device="meta")).device.type == "meta"
