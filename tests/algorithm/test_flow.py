"""Laws of the convention."""

import math
from itertools import pairwise

import pytest
import torch

from danceopd_core.algorithm import flow
from danceopd_core.algorithm.flow import Transition, linear_sigmas, sde_transition

X, V = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(1))


def at(sigma: float) -> torch.Tensor:
    return torch.full((3,), sigma)


def test_the_straight_line_is_walked_by_its_velocity_in_one_step():
    clean, noise = X, V
    v = noise - clean
    torch.testing.assert_close(flow.euler(noise, v, at(1.0), at(0.3)), flow.interpolate(clean, noise, at(0.3)))


def test_linear_sigmas_fall_from_one_to_zero_and_a_shift_dwells_near_the_noise():
    plain, shifted = linear_sigmas(16), linear_sigmas(16, shift=3.0)
    for sigmas in (plain, shifted):
        assert (sigmas[0], sigmas[-1], len(sigmas)) == (1, 0, 17)
        assert (sigmas.diff() < 0).all()
    torch.testing.assert_close(plain.diff(), torch.full((16,), -1 / 16))
    assert shifted[8] == pytest.approx(3 * 0.5 / 2)


@pytest.mark.parametrize(("sigma", "sigma_next"), [(1.0, 0.9), (0.8, 0.7), (0.1, 0.0)])
def test_the_transition_is_flow_opds_closed_form(sigma: float, sigma_next: float):
    eta, dt = 0.7, sigma_next - sigma
    std_dev = eta * math.sqrt(sigma / (1 - (sigma_next if sigma == 1 else sigma)))
    mean = X * (1 + std_dev**2 / (2 * sigma) * dt) + V * (1 + std_dev**2 * (1 - sigma) / (2 * sigma)) * dt
    got = sde_transition(X, V, at(sigma), at(sigma_next), eta)
    torch.testing.assert_close(got.mean, mean, atol=2e-6, rtol=1e-6)
    torch.testing.assert_close(got.std.flatten(), at(std_dev * math.sqrt(-dt)), rtol=1e-5, atol=0)


@pytest.mark.parametrize("sigma", [1.0, 0.8, 0.1])
def test_a_transition_without_noise_is_the_euler_step(sigma: float):
    step = flow.euler(X, V, at(sigma), at(sigma - 0.1))
    still = sde_transition(X, V, at(sigma), at(sigma - 0.1), eta=0.0)
    assert torch.equal(still.mean, step)
    assert not still.std.any()
    torch.testing.assert_close(sde_transition(X, V, at(sigma), at(sigma - 0.1), 1e-3).mean, step, atol=1e-5, rtol=0)


def test_the_sde_keeps_the_marginal_of_the_ode():
    """Data N(0, 0.25) has a known velocity; after a fine stochastic path the spread is the data's."""
    spread = 0.5
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20_000, 1, generator=generator)
    sigmas = linear_sigmas(100)
    for s, s_next in pairwise(sigmas):
        variance = (1 - s) ** 2 * spread**2 + s**2
        v = x * (s - (1 - s) * spread**2) / variance
        batch = (s.expand(len(x)), s_next.expand(len(x)))
        mean, std = sde_transition(x, v, *batch, eta=0.7)
        x = mean + std * flow.normal(x, generator) * (s_next > 0)
    assert x.std().item() == pytest.approx(spread, rel=0.03)


def test_log_prob_is_that_of_a_normal_averaged_over_dimensions():
    got = Transition(X, torch.full((3, 1, 1, 1), 0.3)).log_prob(V)
    torch.testing.assert_close(got, torch.distributions.Normal(X, 0.3).log_prob(V).mean((1, 2, 3)))
