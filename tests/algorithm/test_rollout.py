"""Laws of rollouts: what early stopping may not change, and what it must save."""

from itertools import pairwise

import pytest
import torch

from danceopd_core.algorithm.flow import interpolate, linear_sigmas
from danceopd_core.algorithm.rollout import Sde, State, ode, straight

N = 8
SIGMAS = linear_sigmas(N, shift=2.0)
STOCHASTIC = Sde(0.7)


def fresh() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def walk(rollout, field, start, indices) -> list[State]:
    return list(rollout(field, start, SIGMAS, torch.tensor(indices), fresh()))


@pytest.mark.parametrize("rollout", [ode, STOCHASTIC])
@pytest.mark.parametrize("index", range(N))
def test_early_stop_is_bitwise_the_full_rollout_of_one_sample(rollout, index, linear, start):
    begin = start(1)
    full = walk(rollout, linear(), begin, [list(range(N))])[index]
    (early,) = walk(rollout, linear(), begin, [[index]])
    assert torch.equal(early.x, full.x)
    assert early.index.tolist() == [index]
    assert early.sigma == SIGMAS[index]
    assert early.sigma_next == SIGMAS[index + 1]


@pytest.mark.parametrize("rollout", [ode, STOCHASTIC])
def test_early_stop_in_a_batch_is_the_full_rollout_to_rounding(rollout, linear, start):
    begin, wanted = start(3), [[1, 3], [0, 7], [5, 6]]
    full = walk(rollout, linear(), begin, [list(range(N))] * 3)
    early = walk(rollout, linear(), begin, wanted)
    assert len(early) == 2
    for k, state in enumerate(early):
        assert state.sample.tolist() == [0, 1, 2]
        assert state.index.tolist() == [row[k] for row in wanted]
        torch.testing.assert_close(state.sigma, SIGMAS[state.index])
        torch.testing.assert_close(state.sigma_next, SIGMAS[state.index + 1])
        for b, i in enumerate(state.index.tolist()):
            torch.testing.assert_close(state.x[b], full[i].x[b], atol=1e-6, rtol=1e-6)


def test_no_forward_is_spent_beyond_the_last_wanted_state(linear, start):
    indices = [[1, 3], [0, 7], [5, 6]]
    field = linear()
    walk(ode, field, start(3), indices)
    assert sum(field.calls) == 3 + 7 + 6
    assert field.calls == [3, 3, 3, 2, 2, 2, 1]
    field.calls.clear()
    walk(STOCHASTIC, field, start(3), indices)
    assert sum(field.calls) == 4 + 8 + 7
    field.calls.clear()
    walk(ode, field, start(1), [[0]])
    assert field.calls == []


def test_the_forwards_of_a_batch_of_one_are_counted_per_yield(linear, start):
    field = linear()
    states = ode(field, start(1), SIGMAS, torch.tensor([[2, 5]]))
    next(states)
    assert len(field.calls) == 3, "the path left its first wanted state, so that state has its v"
    next(states)
    assert len(field.calls) == 5


def test_ode_solves_a_linear_field(linear, start):
    """x' = Ax has the solution exp(A t): a fine grid reaches it."""
    field, begin = linear(), start(2)
    field.b.zero_()
    sigmas = linear_sigmas(2000)
    (state,) = ode(field, begin, sigmas, torch.tensor([[1999], [1999]]))
    exact = begin.noise @ torch.matrix_exp(field.a * (sigmas[1999] - 1)).T
    torch.testing.assert_close(state.x, exact, atol=2e-3, rtol=1e-3)


def test_a_state_holds_the_step_it_left_by(linear, start):
    states = walk(ode, linear(), start(2), [list(range(N))] * 2)
    for here, after in pairwise(states):
        assert torch.equal(here.x_next, after.x)
        torch.testing.assert_close(here.x + (here.sigma_next - here.sigma)[:, None] * here.v, after.x)
    assert states[-1].v is None
    assert states[-1].x_next is None
    assert all(state.v is not None for state in walk(STOCHASTIC, linear(), start(2), [[1, N - 1]] * 2))


def test_sde_without_noise_is_the_ode(linear, start):
    begin = start(2)
    (still,) = walk(Sde(0.0), linear(), begin, [[6], [4]])
    (plain,) = walk(ode, linear(), begin, [[6], [4]])
    assert torch.equal(still.x, plain.x)


def test_sde_requires_a_generator(linear, start):
    with pytest.raises(ValueError, match="Sde draws noise"):
        Sde()(linear(), start(1), SIGMAS, torch.tensor([[1]]), None)


def test_straight_is_the_line_to_the_data_and_never_calls_the_field(linear, start):
    field, begin, indices = linear(), start(2), [[0, 3], [2, 7]]
    for k, state in enumerate(walk(straight, field, begin, indices)):
        assert state.index.tolist() == [row[k] for row in indices]
        assert state.sigma.equal(SIGMAS[state.index])
        assert state.sigma_next.equal(SIGMAS[state.index + 1])
        torch.testing.assert_close(state.x, interpolate(begin.clean, begin.noise, SIGMAS[state.index]))
    assert field.calls == []
    with pytest.raises(ValueError, match=r"straight needs start\.clean"):
        walk(straight, field, begin._replace(clean=None), indices)


@pytest.mark.parametrize("rollout", [ode, STOCHASTIC, straight])
def test_no_torch_mode_leaks_to_the_consumer_and_no_graph_is_kept(rollout, student, start):
    def modes() -> tuple[bool, bool]:
        return torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    during = []

    def field(x, sigma, cond, /):
        during.append(torch.is_grad_enabled())
        return student(x, sigma, cond)

    for state in rollout(field, start(2), SIGMAS, torch.tensor([[1, 3, 5]] * 2), fresh()):
        assert modes() == (True, False)
        tensors = [state.x] if state.v is None else [state.x, state.v, state.x_next]
        assert not any(t.requires_grad or t.is_inference() for t in tensors)
    assert modes() == (True, False)
    assert not any(during)
