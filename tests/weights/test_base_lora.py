"""A fresh student over a frozen LoRA: it starts there, moves alone, and is saved as one file that needs neither."""

import copy

import pytest
import torch

from danceopd_core.weights.adapters import STUDENT, Adapters
from danceopd_core.weights.lora import fresh_lora, stacked
from danceopd_core.weights.lora_io import read_lora, write_lora

from ..loras import merged, query, random_lora


@pytest.fixture
def world(zimage, tmp_path):
    """(adapters, the LoRA under the student, a teacher's name); the two LoRAs share some of their layers."""
    adapters = Adapters(zimage.network)
    teacher = adapters.add_teacher(random_lora(adapters.shapes, 4, seed=1))
    write_lora(
        tmp_path / "base_lora.safetensors", random_lora(adapters.shapes, 3, seed=2, targets=("to_q", "w2"), scale=2)
    )
    base_lora = read_lora(tmp_path / "base_lora.safetensors", adapters.shapes)
    fresh = fresh_lora(adapters.shapes, 2, 6.0, ("to_q", "to_v"), torch.Generator().manual_seed(0))
    adapters.start_student(fresh, base_lora)
    return adapters, base_lora, teacher


def trained(adapters, backbone):
    x, sigma, cond = query(backbone)
    optimizer = torch.optim.SGD(adapters.parameters(), lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        backbone.velocity(x, sigma, cond).square().mean().backward()
        optimizer.step()


def test_it_starts_at_that_loras_field(world, zimage, opened_zimage):
    adapters, base_lora, _ = world
    other = Adapters(copy.deepcopy(opened_zimage.network))
    alone = other.field(zimage.with_network(other.network).velocity, other.add_teacher(base_lora))
    x, sigma, cond = query(zimage)
    v = adapters.field(zimage.velocity, STUDENT)(x, sigma, cond)
    assert v.equal(alone(x, sigma, cond))
    assert (v - adapters.field(zimage.velocity, None)(x, sigma, cond)).abs().max() > 0.1


@pytest.mark.parametrize("checkpointing", [False, True])
def test_only_the_student_moves_and_the_file_is_the_field_trained_with(
    world, zimage, opened_zimage, tmp_path, checkpointing
):
    adapters, base_lora, teacher = world
    x, sigma, cond = query(zimage)
    others = [adapters.field(zimage.velocity, name) for name in (None, teacher)]
    before = [field(x, sigma, cond) for field in others]
    start, digest = zimage.velocity(x, sigma, cond).detach(), adapters.base_lora_digest()
    if checkpointing:
        zimage.network.enable_gradient_checkpointing()
    trained(adapters, zimage)
    assert not any(weight.requires_grad for weight in zimage.network.parameters())
    assert all(field(x, sigma, cond).equal(v) for field, v in zip(others, before, strict=True))
    assert adapters.base_lora_digest() == digest

    write_lora(tmp_path / "student.safetensors", adapters.student())
    both = read_lora(tmp_path / "student.safetensors", adapters.shapes)
    assert all(both.down[module][:3].equal(down) for module, down in base_lora.down.items())
    assert all(both.up[module][:, :3].equal(up) for module, up in base_lora.up.items())
    assert {len(down) for down in both.down.values()} == {2, 3, 5}
    assert both.rank == 5

    bare = Adapters(copy.deepcopy(opened_zimage.network))
    field = bare.field(zimage.with_network(bare.network).velocity, bare.add_teacher(both))
    v = zimage.velocity(x, sigma, cond).detach()
    torch.testing.assert_close(field(x, sigma, cond), v, rtol=0, atol=1e-5)
    assert (v - start).abs().max() > 0.01


def test_the_state_is_of_the_student_alone_and_the_digest_of_the_other(world, zimage, opened_zimage):
    adapters, base_lora, _ = world
    trained(adapters, zimage)
    state = {key: factor.clone() for key, factor in adapters.state_dict().items()}
    assert len(state) == len(adapters.parameters())
    again, plain = (Adapters(copy.deepcopy(opened_zimage.network)) for _ in range(2))
    fresh = fresh_lora(again.shapes, 2, 6.0, ("to_q", "to_v"), torch.Generator())
    again.start_student(fresh, base_lora)
    again.load_state_dict(state)
    x, sigma, cond = query(zimage)
    assert zimage.with_network(again.network).velocity(x, sigma, cond).equal(zimage.velocity(x, sigma, cond))
    plain.start_student(fresh)
    assert plain.base_lora_digest() == ""
    assert again.base_lora_digest() == adapters.base_lora_digest()


def test_stacked_is_the_sum_of_both_changes(opened_zimage):
    shapes = Adapters(copy.deepcopy(opened_zimage.network)).shapes
    one = random_lora(shapes, 4, seed=1, scale=0.5)
    two = random_lora(shapes, 2, seed=2, targets=("to_q", "w1"), scale=3.0)
    network = opened_zimage.network
    expected = merged(merged(network, one), two).state_dict()
    for name, weight in merged(network, stacked(one, two)).state_dict().items():
        torch.testing.assert_close(weight, expected[name], rtol=0, atol=1e-5)
