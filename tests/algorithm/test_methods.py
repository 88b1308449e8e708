"""Laws of the algorithm, of every row of METHODS."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch

from danceopd_core.algorithm.flow import linear_sigmas
from danceopd_core.algorithm.losses import ClippedPolicy, velocity_mse
from danceopd_core.algorithm.methods import METHODS, Method, method, state_losses
from danceopd_core.algorithm.query import Uniform, every
from danceopd_core.algorithm.rollout import Sde, ode

N = 8
SIGMAS = linear_sigmas(N)
SHORT = linear_sigmas(4)
CHEAP = {"flowopd": {"group": 2}}


def row(name: str) -> Method:
    return method(name, **CHEAP.get(name, {}))


def distance(student: torch.nn.Module, teacher: Callable, start) -> float:
    """The relative velocity error at states that no method saw."""
    begin = start(64)
    sigma = torch.linspace(0.05, 0.95, 64)
    with torch.no_grad():
        v, v_teacher = (field(begin.noise, sigma, begin.cond) for field in (student, teacher))
    return ((v - v_teacher).norm() / v_teacher.norm()).item()


def train(which: Method, student, teacher, start, generator, updates: int) -> list[float]:
    """Every term's mean error, update by update."""
    optimizer = torch.optim.Adam(student.parameters(), lr=0.05)
    errors = []
    for _ in range(updates):
        optimizer.zero_grad()
        for term in state_losses(which, student, teacher, start(8), SHORT, generator):
            term.loss.backward()
            errors.append(term.error.mean().item())
        optimizer.step()
    return errors


@pytest.mark.parametrize("name", METHODS)
def test_every_method_brings_the_student_to_its_teacher(name, student, linear, start, generator):
    """Flow-OPD with its published eta, clip and advantage clip; only its group is 2 instead of 16."""
    teacher = linear()
    assert distance(student, teacher, start) == 1
    errors = train(row(name), student, teacher, start, generator, updates=200)
    assert errors[-1] < 0.01
    assert distance(student, teacher, start) < 0.01


def test_with_a_detached_reward_flow_opd_does_not_converge(student, linear, start, generator):
    """The official DanceOPD code's reading of Flow-OPD has an expected gradient of zero: it walks at random,
    while the test above converges with everything else the same."""
    detached = method("flowopd", group=2, objective=ClippedPolicy(detach_reward=True))
    train(detached, student, linear(), start, generator, updates=200)
    assert distance(student, linear(), start) > 0.8


@pytest.mark.parametrize("name", METHODS)
def test_the_student_at_its_teacher_has_no_loss(name, student, linear, start, generator):
    field = linear()
    for term in state_losses(row(name), student.copy(field), field, start(3), SIGMAS, generator):
        assert term.loss.item() == pytest.approx(0, abs=1e-12)
        assert term.error.max() < 1e-6


@pytest.mark.parametrize("name", METHODS)
def test_the_error_is_relative_to_the_teacher(name, linear, start, generator):
    """A student that predicts three times the teacher's velocity has a relative error of 2."""
    teacher = linear()

    def student(x, sigma, cond, /):
        return (3 * teacher(x, sigma, cond)).requires_grad_()

    for term in state_losses(row(name), student, teacher, start(3), SIGMAS, generator):
        torch.testing.assert_close(term.error, torch.full((3,), 2.0))


@pytest.mark.parametrize("name", METHODS)
def test_the_teacher_gets_no_gradient_and_is_evaluated_first(name, student, start, generator):
    teacher = type(student)()
    calls = []

    def student_field(x, sigma, cond, /):
        if torch.is_grad_enabled():
            calls.append("student")
        return student(x, sigma, cond)

    def teacher_field(x, sigma, cond, /):
        calls.append("teacher")
        assert not torch.is_grad_enabled()
        return teacher(x, sigma, cond) + 1

    for term in state_losses(row(name), student_field, teacher_field, start(2), SIGMAS, generator):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
        term.loss.backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert all(p.grad is not None and p.grad.any() for p in student.parameters() if p.ndim == 1)
    assert set(pairwise(calls)) <= {("teacher", "student"), ("student", "teacher")}
    assert calls[0] == "teacher"


def test_danceopd_costs_the_queried_index_and_two_calls(linear, student, start, generator):
    teacher, field = linear(), linear(1)
    (term,) = state_losses(method("danceopd"), field, teacher, start(1), SIGMAS, generator)
    assert len(field.calls) == term.index.item() + 1
    assert len(teacher.calls) == 1


@pytest.mark.parametrize(("over_states", "scale"), [("mean", 1 / 3), ("sum", 1.0)])
@pytest.mark.parametrize("group", [1, 4])
def test_the_terms_sum_to_the_loss_of_the_start(over_states, scale, group, linear, start, generator):
    which = Method(ode, Uniform(3), lambda p: torch.arange(1.0, 3.0), over_states, group)
    terms = list(state_losses(which, linear(), linear(1), start(2), SIGMAS, generator))
    assert len(terms) == 3 * group
    assert sum(term.loss for term in terms).item() == pytest.approx(1.5 * 3 * scale)


def test_a_group_walks_paths_of_its_own_noise_and_the_first_keeps_the_start(linear, start, generator):
    begin, seen = start(2), []

    def keep(p):
        seen.append(p.state.x)
        return velocity_mse(p)

    which = Method(ode, lambda sigmas, batch, _: torch.zeros(batch, 1).long(), keep, group=3)
    list(state_losses(which, linear(), linear(1), begin, SIGMAS, generator))
    assert torch.equal(seen[0], begin.noise)
    assert len({x.sum().item() for x in seen}) == 3


@pytest.mark.parametrize("name", METHODS)
def test_the_same_generator_gives_the_same_terms(name, linear, start):
    begin = start(2)
    one, two = (
        [term.loss.item() for term in state_losses(row(name), linear(), linear(1), begin, SIGMAS, seeded)]
        for seeded in (torch.Generator().manual_seed(5), torch.Generator().manual_seed(5))
    )
    assert one == two


def test_the_anchor_field_reaches_the_objective(linear, start, generator):
    which = method("flowopd", group=1, objective=ClippedPolicy(anchor=1.0))
    field, begin = linear(), start(2)
    anchored = sum(t.loss for t in state_losses(which, field, field, begin, SIGMAS, generator, anchor=linear(1)))
    assert anchored > 0
    with pytest.raises(ValueError, match="no anchor field"):
        next(state_losses(which, field, field, begin, SIGMAS, generator))


def test_an_unknown_method_is_an_error_with_the_nearest_name_and_the_table():
    with pytest.raises(ValueError, match=r"'danceop' \(did you mean 'danceopd'\?\): there are danceopd, diffusionopd"):
        method("danceop")
    with pytest.raises(ValueError, match="did you mean 'flowopd'"):
        method("Flow-OPD")


def test_overrides_make_another_method_and_leave_the_table_alone(linear, start, generator):
    before = dict(METHODS)
    terms = list(state_losses(method("danceopd", query=every), linear(), linear(1), start(1), SIGMAS, generator))
    assert [term.index.item() for term in terms] == list(range(N))
    assert before == METHODS


def test_a_policy_is_refused_states_that_it_has_no_likelihood_of():
    with pytest.raises(ValueError, match="give both the same eta"):
        method("flowopd", states=Sde(0.3))
    with pytest.raises(ValueError, match="give both the same eta"):
        method("flowopd", states=ode)
