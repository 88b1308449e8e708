"""Each optimiser learns, and goes on from its saved state as if it had not been interrupted."""

import sys

import pytest
import torch
from torch import nn

from danceopd_core.algorithm.optimizers import OPTIMIZERS, STATE_BYTES, check_optimizer
from danceopd_core.algorithm.settings import Settings
from danceopd_core.algorithm.updates import Updater
from danceopd_core.errors import InputError
from danceopd_core.runs.files.train_state import load_state, save_state

TARGET = torch.randn(64, 128, generator=torch.Generator().manual_seed(0))


def available(name):
    try:
        check_optimizer(name)
    except InputError:
        pytest.skip("bitsandbytes is not installed")


def run(updater, parameter, updates):
    losses = []
    for _ in range(updates):
        loss = (parameter - TARGET).square().mean()
        loss.backward()
        losses.append(float(loss.detach()))
        updater.apply({"all": losses[-1]}, float(updater.clip()))
    return losses


def fresh(name):
    parameter = nn.Parameter(torch.zeros(64, 128))
    return Updater([parameter], Settings(40, lr=0.05, schedule="cosine", clip=1e9, optimizer=name)), parameter


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_learns_and_is_resumed_to_the_bit(name, tmp_path):
    available(name)
    whole, parameter = fresh(name)
    losses = run(whole, parameter, 40)
    assert losses[-1] < 0.2 * losses[0]

    first, parameter = fresh(name)
    run(first, parameter, 15)
    save_state(tmp_path / "state.safetensors", first.state_dict())
    second, other = fresh(name)
    other.data.copy_(parameter)
    second.load_state_dict(load_state(tmp_path / "state.safetensors"))
    assert run(second, other, 25) == losses[15:]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_its_state_has_the_size_that_is_reckoned_with(name):
    available(name)
    parameter = nn.Parameter(torch.randn(512, 512))
    updater = Updater([parameter], Settings(1, optimizer=name))
    run(updater, parameter, 0)
    parameter.square().sum().backward()
    updater.apply({"all": 0.0}, 1.0)
    state = updater._optimizer.state[parameter]
    taken = sum(value.numel() * value.element_size() for value in state.values() if isinstance(value, torch.Tensor))
    assert taken / parameter.numel() == pytest.approx(STATE_BYTES[name], abs=0.15)


def test_an_absent_library_is_told_with_the_way_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(InputError, match=r"optimizer\.name: adamw8bit needs bitsandbytes: pip install"):
        Updater([nn.Parameter(torch.zeros(1))], Settings(1, optimizer="adamw8bit"))
