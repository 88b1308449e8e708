"""Many LoRA fields on one network are many networks, and only the student learns."""

import copy
from contextlib import suppress

import pytest
import torch

from danceopd_core.errors import InputError
from danceopd_core.weights.adapters import STUDENT, Adapters
from danceopd_core.weights.full_checkpoints import load_full_checkpoint
from danceopd_core.weights.linear_like import linear_shapes
from danceopd_core.weights.lora import fresh_lora
from danceopd_core.weights.lora_io import read_lora, write_lora

from ..loras import merged, query, random_lora
from ..tiny import randomize


def teacher_and_student(zimage):
    adapters = Adapters(zimage.network)
    teacher = adapters.add_teacher(random_lora(adapters.shapes, 4, seed=1))
    adapters.start_student(random_lora(adapters.shapes, 4, seed=2))
    return adapters, teacher


def gradients(adapters, loss):
    for factor in adapters.parameters():
        factor.grad = None
    loss.backward()
    return [factor.grad for factor in adapters.parameters()]


def test_fields_on_one_network_are_separately_merged_networks(zimage):
    base = copy.deepcopy(zimage.network)
    adapters = Adapters(zimage.network)
    shapes = adapters.shapes
    wide = random_lora(shapes, 8, seed=1, scale=0.25)
    other = random_lora(shapes, 2, seed=2, targets=("w1", "w2", "to_q"), scale=2.0)
    student = random_lora(shapes, 4, seed=3, targets=("w2", "to_k", "to_out.0"), scale=0.5)
    first = adapters.add_teacher(wide)
    adapters.start_student(student)
    second = adapters.add_teacher(other)
    x, sigma, cond = query(zimage)
    for name, strength, network in [
        (first, 1.0, merged(base, wide)),
        (second, 1.0, merged(base, other)),
        (STUDENT, 1.0, merged(base, student)),
        (second, 0.3, merged(base, other, 0.3)),
        (second, 1.0, merged(base, other)),
        (first, -1.0, merged(base, wide, -1.0)),
        (first, 0.0, base),
    ]:
        with torch.no_grad():
            shared = adapters.field(zimage.velocity, name, strength)(x, sigma, cond)
            alone = zimage.with_network(network).velocity(x, sigma, cond)
            bare = zimage.with_network(base).velocity(x, sigma, cond)
        torch.testing.assert_close(shared, alone, rtol=0, atol=2e-5)
        assert strength == 0 or (shared - bare).abs().max() > 0.05


def test_the_base_field_is_bitwise_the_base(zimage):
    x, sigma, cond = query(zimage)
    with torch.no_grad():
        before = zimage.velocity(x, sigma, cond)
    adapters, _ = teacher_and_student(zimage)
    assert adapters.field(zimage.velocity, None)(x, sigma, cond).equal(before)


def test_without_a_student_the_network_at_rest_is_the_base(zimage):
    x, sigma, cond = query(zimage)
    with torch.no_grad():
        before = zimage.velocity(x, sigma, cond)
        adapters = Adapters(zimage.network)
        name = adapters.add_teacher(random_lora(adapters.shapes, 4, seed=1))
        assert not adapters.field(zimage.velocity, name)(x, sigma, cond).equal(before)
        assert zimage.velocity(x, sigma, cond).equal(before)
    assert adapters.parameters() == []


def test_only_the_student_learns(zimage):
    adapters, teacher = teacher_and_student(zimage)
    x, sigma, cond = query(zimage)
    before = {name: p.detach().clone() for name, p in zimage.network.named_parameters()}
    target = adapters.field(zimage.velocity, teacher)(x.clone().requires_grad_(), sigma, cond)
    assert not target.requires_grad
    v = adapters.field(zimage.velocity, STUDENT)(x, sigma, cond)
    (v - target).square().mean().backward()
    own = {id(factor) for factor in adapters.parameters()}
    assert own
    for name, p in zimage.network.named_parameters():
        assert p.requires_grad == (id(p) in own) == (f".{STUDENT}." in name)
        assert (p.grad is not None and bool(p.grad.any())) == (id(p) in own), name
    torch.optim.AdamW(adapters.parameters(), lr=1e-2).step()
    for name, p in zimage.network.named_parameters():
        assert p.equal(before[name]) == (id(p) not in own), name


@pytest.mark.parametrize("between", [False, True])
def test_checkpointing_and_teachers_do_not_change_the_students_gradients(zimage, between):
    adapters, teacher = teacher_and_student(zimage)
    x, sigma, cond = query(zimage)
    teacher_field = adapters.field(zimage.velocity, teacher)
    plain = gradients(adapters, zimage.velocity(x, sigma, cond).square().mean())
    zimage.network.enable_gradient_checkpointing()
    teacher_field(x, sigma, cond)
    loss = zimage.velocity(x, sigma, cond).square().mean()
    if between:
        teacher_field(x, sigma, cond)
    for saved, again in zip(plain, gradients(adapters, loss), strict=True):
        assert saved.equal(again)


def test_a_teacher_that_fails_leaves_the_student_at_rest(zimage):
    adapters, teacher = teacher_and_student(zimage)
    x, sigma, cond = query(zimage)
    with torch.no_grad():
        before = zimage.velocity(x, sigma, cond)

    def interrupted(x, sigma, cond, /):
        raise KeyboardInterrupt

    for name in (teacher, None):
        with pytest.raises(KeyboardInterrupt):
            adapters.field(interrupted, name)(x, sigma, cond)
    assert torch.is_grad_enabled()
    assert zimage.velocity(x, sigma, cond).equal(before)


def test_a_fresh_student_is_repeatable_changes_nothing_and_leaves_the_global_generator_alone(zimage):
    x, sigma, cond = query(zimage)
    state = torch.get_rng_state()
    with torch.no_grad():
        before = zimage.velocity(x, sigma, cond)
    shapes = linear_shapes(zimage.network)
    one, two = (fresh_lora(shapes, 8, 16, zimage.default_targets, torch.Generator().manual_seed(5)) for _ in range(2))
    assert one.scale == 2
    assert len(one.down) == 7 * 4  # three attention inputs, an output and three of the feed-forward, in four blocks
    for module, down in one.down.items():
        assert down.equal(two.down[module])
        assert 0 < down.abs().max() <= shapes[module][1] ** -0.5
    Adapters(zimage.network).start_student(one)
    assert zimage.velocity(x, sigma, cond).equal(before)
    assert torch.get_rng_state().equal(state)


def test_a_float32_student_and_teachers_of_the_base_dtype_share_a_half_precision_network(zimage):
    lora = random_lora(linear_shapes(zimage.network), 4, seed=1)
    exact = zimage.with_network(merged(zimage.network, lora))
    x, sigma, cond = query(zimage)
    with torch.no_grad():
        target = exact.velocity(x, sigma, cond)
        bare = zimage.velocity(x, sigma, cond)
    half = zimage.with_network(copy.deepcopy(zimage.network).bfloat16())
    object.__setattr__(half, "dtype", torch.bfloat16)
    adapters = Adapters(half.network)
    teacher = adapters.add_teacher(lora)
    adapters.start_student(lora)
    assert {p.dtype for p in adapters.parameters()} == {torch.float32}
    teacher_field = adapters.field(half.velocity, teacher)(x, sigma, cond)
    v = half.velocity(x, sigma, cond)
    assert v.dtype == torch.float32
    assert v.equal(teacher_field)
    assert (v - target).norm() < 0.2 * (bare - target).norm()
    assert {g.dtype for g in gradients(adapters, v.square().mean())} == {torch.float32}


def test_a_student_that_continues_a_file_starts_at_the_files_field(zimage, tmp_path):
    adapters = Adapters(zimage.network)
    write_lora(tmp_path / "a.safetensors", random_lora(adapters.shapes, 4, seed=1, scale=0.5))
    lora = read_lora(tmp_path / "a.safetensors", adapters.shapes)
    teacher = adapters.add_teacher(lora)
    adapters.start_student(lora)
    x, sigma, cond = query(zimage)
    v = zimage.velocity(x, sigma, cond)
    assert v.equal(adapters.field(zimage.velocity, teacher)(x, sigma, cond))
    v.square().mean().backward()
    torch.optim.SGD(adapters.parameters(), lr=1e-2).step()
    again = read_lora(tmp_path / "a.safetensors", adapters.shapes)
    assert all(up.equal(again.up[module]) for module, up in lora.up.items())  # training moves a copy


def test_a_lora_on_a_full_checkpoint_is_their_merge(zimage, tmp_path):
    full = randomize(copy.deepcopy(zimage.network), seed=9)
    full.save_pretrained(tmp_path)
    teacher = load_full_checkpoint(zimage.network, tmp_path)
    adapters = Adapters(teacher)
    lora = random_lora(adapters.shapes, 4, seed=1)
    name = adapters.add_teacher(lora)
    x, sigma, cond = query(zimage)
    field = adapters.field(zimage.with_network(teacher).velocity, name)
    with torch.no_grad():
        expected = zimage.with_network(merged(full, lora)).velocity(x, sigma, cond)
    torch.testing.assert_close(field(x, sigma, cond), expected, rtol=0, atol=2e-5)


def test_a_saved_student_is_restored_exactly(zimage, opened_zimage):
    adapters, _ = teacher_and_student(zimage)
    state = {key: factor.clone() for key, factor in adapters.state_dict().items()}
    other = Adapters(copy.deepcopy(opened_zimage.network))
    other.start_student(random_lora(other.shapes, 4, seed=8))
    other.load_state_dict(state)
    x, sigma, cond = query(zimage)
    assert zimage.with_network(other.network).velocity(x, sigma, cond).equal(zimage.velocity(x, sigma, cond))
    assert all(factor.requires_grad for factor in other.parameters())


def test_a_temporarily_held_state_is_replaced_by_the_students_own(zimage, opened_zimage):
    adapters, _ = teacher_and_student(zimage)
    x, sigma, cond = query(zimage)
    before = zimage.velocity(x, sigma, cond)
    other = Adapters(copy.deepcopy(opened_zimage.network))
    other.start_student(random_lora(other.shapes, 4, seed=8))
    there = zimage.with_network(other.network).velocity(x, sigma, cond)
    with suppress(KeyboardInterrupt), adapters.holding(other.state_dict()):
        held = zimage.velocity(x, sigma, cond)
        raise KeyboardInterrupt
    assert held.equal(there)
    assert zimage.velocity(x, sigma, cond).equal(before)
    assert not there.equal(before)


def test_the_state_of_another_student_is_refused(zimage, opened_zimage):
    adapters, _ = teacher_and_student(zimage)
    other = Adapters(copy.deepcopy(opened_zimage.network))
    other.start_student(random_lora(other.shapes, 8, seed=8))
    with pytest.raises(InputError, match=r"another LoRA.*rank and targets"):
        other.load_state_dict(adapters.state_dict())


def test_bad_fresh_students_are_refused(zimage):
    shapes = linear_shapes(zimage.network)
    generator = torch.Generator()
    with pytest.raises(InputError, match=r"to_x.*attention\.to_q"):
        fresh_lora(shapes, 4, 4, ["to_q", "to_x"], generator)
    with pytest.raises(InputError, match=r"no targets"):
        fresh_lora(shapes, 4, 4, [], generator)
    with pytest.raises(InputError, match=r"rank 0"):
        fresh_lora(shapes, 0, 4, ["to_q"], generator)


def test_misuse_is_refused(zimage):
    adapters, _ = teacher_and_student(zimage)
    with pytest.raises(ValueError, match=r"no adapter 'teacher_7'.*student.*teacher_0"):
        adapters.field(zimage.velocity, "teacher_7")
    with pytest.raises(ValueError, match=r"strength"):
        adapters.field(zimage.velocity, STUDENT, 0.5)
    with pytest.raises(ValueError, match=r"already has the adapter 'student'"):
        adapters.start_student(random_lora(adapters.shapes, 4, seed=1))
    with pytest.raises(ValueError, match=r"already has adapters"):
        Adapters(zimage.network)
