"""Gradients through a network in float16: they neither vanish nor overflow."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from danceopd_core.algorithm.fields import Conditioning, Sample
from danceopd_core.algorithm.flow import linear_sigmas
from danceopd_core.algorithm.methods import method
from danceopd_core.algorithm.routers import RoundRobin
from danceopd_core.algorithm.trainer import Diverged, RouteData, Settings, Trainer
from danceopd_core.runs.files.train_state import load_state, save_state


class Half:
    """A student with one float32 weight, over a network that computes v = gain (w - 1) x in float16."""

    def __init__(self, gain: float, dtype: torch.dtype = torch.float16) -> None:
        self.weight, self.gain, self.dtype = nn.Parameter(torch.tensor(1.0)), gain, dtype
        self.calls = 0

    def velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor:
        self.calls += torch.is_grad_enabled()
        inside = (x.to(self.dtype) * (self.weight - 1).to(self.dtype)) * torch.tensor(self.gain, dtype=self.dtype)
        return inside.float()

    def parameters(self) -> list[nn.Parameter]:
        return [self.weight]

    def state_dict(self) -> dict[str, Tensor]:
        return {"weight": self.weight.detach()}

    def load_state_dict(self, state) -> None:
        with torch.no_grad():
            self.weight.copy_(state["weight"])


def trainer(student: Half, scale: float, target: float = 1e-3) -> Trainer:
    samples = Conditioning((Sample({}),) * 2)
    return Trainer(
        student,
        student.velocity,
        [RouteData("a", lambda x, sigma, cond: target * x, samples)],
        RoundRobin(1),
        method("danceopd"),
        linear_sigmas(4),
        (64,),
        Settings(3, batch=2, accumulate=1, clip=1e9),
        loss_scale=scale,
    )


def gradient(gain: float, scale: float, dtype: torch.dtype = torch.float16) -> float:
    return next(iter(trainer(Half(gain, dtype), scale))).grad_norm


def test_small_gradients_do_not_vanish():
    exact = gradient(1e-4, 1.0, torch.float32)
    assert exact > 0
    assert gradient(1e-4, 1.0) != pytest.approx(exact, rel=0.5)
    assert gradient(1e-4, 2.0**16) == pytest.approx(exact, rel=0.01)


def test_an_overflow_lowers_the_scale_and_repeats_the_same_update(tmp_path):
    student = Half(100.0)
    scaled = trainer(student, 2.0**22, target=30.0)
    found = [next(iter(scaled)) for _ in range(2)]
    assert scaled.update == 2
    assert scaled.loss_scale < 2.0**22
    assert student.calls > 2
    plain = Half(100.0)
    expected = [next(iter(one)) for one in [trainer(plain, 1.0, target=30.0)] for _ in range(2)]
    assert [one.losses for one in found] == [pytest.approx(one.losses, rel=1e-3) for one in expected]
    torch.testing.assert_close(student.weight, plain.weight, rtol=1e-4, atol=1e-6)
    save_state(tmp_path / "state.safetensors", scaled.state_dict())
    again = trainer(Half(100.0), 2.0**22, target=30.0)
    again.load_state_dict(load_state(tmp_path / "state.safetensors"))
    assert again.loss_scale == scaled.loss_scale
    assert next(iter(again)).grad_norm == next(iter(scaled)).grad_norm


def test_what_is_not_finite_at_any_scale_diverges():
    with pytest.raises(Diverged):
        gradient(math.inf, 2.0**16)


def test_without_a_scale_the_state_is_as_it_was():
    assert "loss_scale" not in trainer(Half(1.0), 1.0).state_dict()
