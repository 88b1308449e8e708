"""Laws of the objectives."""

from dataclasses import replace

import pytest
import torch

from danceopd_core.algorithm.flow import linear_sigmas
from danceopd_core.algorithm.losses import ClippedPolicy, OdeKl, Prediction, velocity_mse
from danceopd_core.algorithm.rollout import Sde, State

ETA, N = 0.7, 8
DRAW = torch.Generator().manual_seed(0)
X, V_OLD, V_TEACHER, EPS = torch.randn(4, 3, 4, 2, 2, generator=DRAW)
SIGMA, SIGMA_NEXT = torch.tensor([1.0, 0.8, 0.1]), torch.tensor([0.9, 0.7, 0.0])


def official_step(v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean, std and diffusion of Flow-OPD's step as its formula is printed."""
    s, dt = SIGMA[:, None, None, None], (SIGMA_NEXT - SIGMA)[:, None, None, None]
    diffusion = ETA * (s / (1 - torch.where(s == 1, SIGMA_NEXT[:, None, None, None], s))).sqrt()
    mean = X * (1 + diffusion**2 / (2 * s) * dt) + v * (1 + diffusion**2 * (1 - s) / (2 * s)) * dt
    return mean, diffusion * (-dt).sqrt(), diffusion


def state() -> State:
    mean, std, _ = official_step(V_OLD)
    rows = torch.arange(3)
    return State(X, SIGMA, SIGMA_NEXT, rows, rows, v=V_OLD, x_next=mean + std * EPS)


def prediction(student: torch.Tensor, **changes) -> Prediction:
    return Prediction(student, V_TEACHER, state(), N)._replace(**changes)


@pytest.mark.parametrize(
    "objective",
    [velocity_mse, OdeKl(), OdeKl("uniform"), ClippedPolicy(ETA)],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_the_student_at_its_teacher_has_no_loss(objective):
    assert objective(prediction(V_TEACHER)).tolist() == [0, 0, 0]


def test_velocity_mse_is_the_mean_over_everything_but_the_batch():
    torch.testing.assert_close(velocity_mse(prediction(V_OLD)), ((V_OLD - V_TEACHER) ** 2).mean((1, 2, 3)))


def test_ode_kl_weighs_by_half_the_squared_step():
    mse = ((V_OLD - V_TEACHER) ** 2).mean((1, 2, 3))
    torch.testing.assert_close(OdeKl()(prediction(V_OLD)), (SIGMA_NEXT - SIGMA) ** 2 / 2 * mse)
    torch.testing.assert_close(OdeKl("uniform")(prediction(V_OLD)), 0.5 / N**2 * mse)


def test_both_ode_kl_weights_agree_on_a_uniform_grid():
    sigmas = linear_sigmas(N)
    uniform = replace(state(), sigma=sigmas[:3], sigma_next=sigmas[1:4])
    one, other = (OdeKl(weight)(prediction(V_OLD, state=uniform)) for weight in ("dt2", "uniform"))
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("clip", [1e-4, 0.2])
@pytest.mark.parametrize("shift", [0.0, 0.05, -0.3, 10.0])
def test_the_clipped_policy_is_the_published_formula(clip: float, shift: float):
    """With the largest shift, some KLs exceed the clip of the advantage."""
    v = V_OLD + shift * EPS
    x_next = state().x_next
    mean, std, diffusion = official_step(v)
    mean_old, _, _ = official_step(V_OLD)
    mean_teacher, _, _ = official_step(V_TEACHER)
    gaussian = torch.distributions.Normal
    log_ratio = gaussian(mean, std).log_prob(x_next) - gaussian(mean_old, std).log_prob(x_next)
    ratio = log_ratio.mean((1, 2, 3)).exp()
    kl = ((mean - mean_teacher) ** 2 / (2 * diffusion**2)).mean((1, 2, 3))
    assert (kl.max() > 5) == (shift == 10)
    advantage = (-kl).clamp(-5, 5)
    expected = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - clip, 1 + clip))
    torch.testing.assert_close(ClippedPolicy(ETA, clip)(prediction(v)), expected, rtol=1e-4, atol=1e-7)


def gradient(objective: ClippedPolicy, draws: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard error over steps drawn from one state of the loss's gradient by the velocity."""
    big = torch.arange(3).repeat_interleave(draws)
    at = State(X[big], SIGMA[big], SIGMA_NEXT[big], big, big)
    eps = torch.randn(X[big].shape, generator=torch.Generator().manual_seed(1))
    mean, std, _ = official_step(V_OLD)
    at = replace(at, v=V_OLD[big], x_next=mean[big] + std[big] * eps)
    v = V_OLD[big].clone().requires_grad_()
    objective(Prediction(v, V_TEACHER[big], at, N)).sum().backward()
    each = v.grad.view(3, draws, -1)
    return each.mean(1), each.std(1) / draws**0.5


def test_a_detached_reward_has_no_expected_gradient_and_the_kl_has_the_whole():
    """On policy E[KL grad log p] = 0; what is left is the KL's own gradient, along student - teacher."""
    noise, error = gradient(ClippedPolicy(ETA, detach_reward=True), 4000)
    assert (noise.abs() < 5 * error).all()
    signal, _ = gradient(ClippedPolicy(ETA), 4000)
    torch.testing.assert_close(
        torch.cosine_similarity(signal, (V_OLD - V_TEACHER).flatten(1)), torch.ones(3), atol=0.02, rtol=0
    )


def test_outside_the_clip_an_unlikelier_step_is_pushed_no_further():
    """With an advantage below 0, PPO keeps a likelier step's gradient and drops an unlikelier one's."""
    objective = ClippedPolicy(ETA, clip=1e-4, detach_reward=True)
    toward, away = ((V_OLD - sign * 0.1 * EPS).requires_grad_() for sign in (1, -1))
    for v in (toward, away):
        objective(prediction(v)).sum().backward()
    assert all(row.any() for row in toward.grad)
    assert not away.grad.any()


def test_the_anchor_adds_its_weighted_kl():
    plain = ClippedPolicy(ETA)(prediction(V_TEACHER))
    anchored = ClippedPolicy(ETA, anchor=0.5)(prediction(V_TEACHER, anchor=V_OLD))
    mean, _, diffusion = official_step(V_TEACHER)
    kl = ((mean - official_step(V_OLD)[0]) ** 2 / (2 * diffusion**2)).mean((1, 2, 3))
    torch.testing.assert_close(anchored - plain, 0.5 * kl, rtol=1e-4, atol=1e-7)
    with pytest.raises(ValueError, match="no anchor field"):
        ClippedPolicy(ETA, anchor=0.5)(prediction(V_OLD))


def test_the_policy_refuses_states_that_no_noise_left():
    with pytest.raises(ValueError, match="roll out with Sde"):
        ClippedPolicy(ETA)(prediction(V_OLD, state=replace(state(), v=None, x_next=None)))
    with pytest.raises(ValueError, match="eta > 0"):
        ClippedPolicy(0.0)


def test_on_policy_the_ratio_is_one(linear, start, generator):
    begin, field = start(2), linear()
    for at in Sde(ETA)(field, begin, linear_sigmas(N), torch.tensor([[0, 4, 7]] * 2), generator):
        v = field(at.x, at.sigma, begin.cond)
        plain = ClippedPolicy(ETA)(Prediction(v, v + 1, at, N))
        kl = ClippedPolicy(ETA, anchor=1.0)(Prediction(v, v, at, N, anchor=v + 1))
        torch.testing.assert_close(plain, kl, rtol=1e-5, atol=0)
