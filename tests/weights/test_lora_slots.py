"""Adapters as data give what hooks that look their adapters up give, for whatever is active."""

import copy
from dataclasses import replace

import pytest
import torch

from danceopd_core.weights.adapters import STUDENT, Adapters
from danceopd_core.weights.lora_slots import LEAST_RANK

from ..loras import query, random_lora


def fields(zimage, as_data, dtype=torch.float32):
    """The adapters, frozen fields of two LoRAs and the bare base, and the student's over a base LoRA."""
    network = copy.deepcopy(zimage.network).to(dtype)
    backbone = replace(zimage, network=network, dtype=dtype)
    adapters = Adapters(network)
    loras = random_lora(adapters.shapes, 1, 1), random_lora(adapters.shapes, 3, 2, ("to_q", "w1"), 0.5)
    names = [adapters.add_teacher(lora) for lora in loras]
    adapters.start_student(
        random_lora(adapters.shapes, 4, 3, scale=0.25), random_lora(adapters.shapes, 2, 4, ("to_k",))
    )
    if as_data:
        adapters.as_data(dtype, "cpu")
    frozen = [adapters.field(backbone.velocity, names[0], 0.7), adapters.field(backbone.velocity, names[1])]
    return adapters, [*frozen, adapters.field(backbone.velocity, None)], adapters.field(backbone.velocity, STUDENT)


def answers(found, asked):
    adapters, frozen, student = found
    with torch.no_grad():
        velocities = [field(*asked) for field in (*frozen, student)]
    for factor in adapters.parameters():
        factor.grad = None
    student(*asked).square().mean().backward()
    gradients = [factor.grad.flatten() for factor in adapters.parameters() if factor.grad is not None]
    return torch.stack(velocities).flatten(), torch.cat(gradients)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_data_is_what_is_active(zimage, dtype, tolerance):
    looked_up, data = fields(zimage, False, dtype), fields(zimage, True, dtype)
    asked = query(zimage)
    for _ in range(2):
        for one, other in zip(answers(data, asked), answers(looked_up, asked), strict=True):
            assert (one - other).norm() / other.norm() < tolerance
        with torch.no_grad():  # an update: what was made of the student before it is not used again
            for adapters, *_ in (looked_up, data):
                for factor in adapters.parameters():
                    factor.mul_(1.5)


def test_one_pair_of_factors_without_gradients_and_none_shared(zimage):
    """Compiled code is made for one number of LoRAs, ranks above one, and tensors that layers do not share."""
    adapters, frozen, student = fields(zimage, True)
    layers, asked = list(adapters._layers.values()), query(zimage)
    with torch.no_grad():
        for field in (*frozen, student):
            field(*asked)
            slots = [layer.slots for layer in layers]
            assert {len(each) for each in slots} == {1}
            assert all(len(slot.down) == slot.up.shape[1] >= LEAST_RANK for (slot,) in slots)
            tensors = [tensor for (slot,) in slots for tensor in slot]
            assert len(set(map(id, tensors))) == len(tensors)
            assert not any(tensor.requires_grad for tensor in tensors)


def test_what_is_kept_is_made_once_an_update_and_goes_with_gradients(zimage):
    adapters, _, student = fields(zimage, True, torch.bfloat16)
    layer = next(layer for layer in adapters._layers.values() if STUDENT in layer.down)
    asked = query(zimage)

    def slot():
        with torch.no_grad():
            student(*asked)
        return layer.slots[0]

    first = slot()
    assert slot() is first
    with torch.no_grad():
        layer.up[STUDENT].add_(1)
    second = slot()
    assert second is not first
    student(*asked)
    assert slot() is not second


def test_without_adapters_the_network_is_as_it_was(zimage):
    before, asked = copy.deepcopy(zimage.network), query(zimage)
    adapters = Adapters(zimage.network)
    adapters.as_data(torch.float32, "cpu")
    adapters.start_student(random_lora(adapters.shapes, 2, 1))
    adapters.remove()
    with torch.no_grad():
        assert zimage.velocity(*asked).equal(zimage.with_network(before).velocity(*asked))
