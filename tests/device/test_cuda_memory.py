"""Memory of a real card: an update that runs out of it is made again, and teachers take turns without a race."""

from __future__ import annotations

import copy
import gc

import pytest
import torch

from danceopd_core.algorithm.relief import OutOfMemory, empty_caches
from danceopd_core.models.offload import TeacherOffloader
from danceopd_core.models.registry import open_backbone

from ..loras import query
from ..tiny import randomize
from .card import CARD, DEVICE, needs_card, only_on_card, repeatable, told, worst
from .cases import Family, Watcher, train

pytestmark = [needs_card, pytest.mark.slow, pytest.mark.usefixtures("on_card")]

MIB = 2**20


def leave(room: float) -> None:
    """From now on this process has what is on the card, and this share of what an update took more at its peak."""
    torch.cuda.synchronize()
    more = torch.cuda.max_memory_allocated() - torch.cuda.memory_allocated()
    empty_caches()
    kept = torch.cuda.memory_reserved()
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    told("memory", update_mib=more / MIB, kept_mib=kept / MIB, room=room)
    torch.cuda.set_per_process_memory_fraction((kept + room * more) / total)


def leave_all() -> None:
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.reset_peak_memory_stats()


@pytest.fixture
def large(tmp_path):
    """A recipe maker: an update takes some hundred MiB."""
    family = Family("zimage", tmp_path)
    routes = [{"name": "lora", "teacher": "lora", "bucket": {"prompts": ["a cat", "a dog", "a tree", "a house"]}}]
    size = {"width": 1024, "height": 1024, "batch": 4, "steps": 3, "rollout_steps": 2}
    more = {"routes": routes, "teachers": {"lora": {"lora": str(family.lora)}}, "gradient_checkpointing": False}

    def recipe(name: str, **settings: object):
        return family.recipe("out of memory", DEVICE, out=str(tmp_path / name), **size, **more, **settings)

    yield recipe
    if CARD:
        leave_all()


@only_on_card
def test_an_update_that_ran_out_of_memory_is_made_again_one_rung_down(large):
    plain, lines = Watcher(), []
    whole = train(large("plain", memory="manual"), plain)
    reference = whole.trainer.state_dict()["student"]
    del whole
    gc.collect()
    leave_all()
    watcher = Watcher(first=lambda: leave(0.5))
    session = train(large("short"), watcher, told=lines)
    downs = [line for line in lines if line.startswith("out of memory")]
    told("out of memory", told=downs, apart=worst(watcher.losses, plain.losses))
    assert downs[0] == "out of memory in update 2: gradient checkpointing from now on, and the update is made again"
    assert session.trainer.update == len(watcher.losses) == 3
    assert worst(watcher.losses, plain.losses) < 1e-3
    for name, factor in session.trainer.state_dict()["student"].items():
        torch.testing.assert_close(factor, reference[name], rtol=1e-2, atol=1e-4)


@only_on_card
def test_below_the_last_rung_the_run_stops_saved_and_resumes(large):
    plain, lines = Watcher(), []
    with repeatable():
        train(large("plain", memory="manual"), plain)
        gc.collect()
        leave_all()
        short = Watcher(first=lambda: leave(0.0))
        with pytest.raises(OutOfMemory, match=r"^out of memory in update 2, and nothing is left to turn down: lower"):
            train(large("short"), short, told=lines)
        assert len(short.losses) == 1
        assert [line.split(": ")[1].split(",")[0] for line in lines if line.startswith("out of memory")] == [
            "gradient checkpointing from now on",
            "2 of the batch of 4 at a time from now on",
            "1 of the batch of 4 at a time from now on",
        ]
        leave_all()
        rest = Watcher()
        session = train(large("short"), rest, resume=True)
    assert session.trainer.update == 3
    told("resumed after that", apart=worst(short.losses + rest.losses, plain.losses))
    assert short.losses + rest.losses == plain.losses


def network(seed: int):
    """A Z-Image network of 75 MB, of a tenth on a CPU: its copies take longer than what is queued behind them."""
    from diffusers import ZImageTransformer2DModel

    dim = 512 if CARD else 64
    made = ZImageTransformer2DModel(
        dim=dim,
        n_layers=4,
        n_refiner_layers=1,
        n_heads=dim // 16,
        n_kv_heads=dim // 16,
        cap_feat_dim=32,
        axes_dims=[4, 6, 6],
        axes_lens=[1024, 64, 64],
    )
    return randomize(made, seed).eval().requires_grad_(False).to(DEVICE)


def allocated() -> int:
    gc.collect()
    return torch.cuda.memory_allocated() if CARD else 0


def test_teachers_that_take_turns_answer_to_the_bit_and_one_is_on_the_card(zimage_folder):
    backbone = open_backbone(zimage_folder, torch.float32, DEVICE)
    base, teachers = network(1), [network(2), network(3)]
    x, sigma, cond = query(backbone, batch=1)
    x, sigma, cond = x.to(DEVICE), sigma.to(DEVICE), cond.to(DEVICE)
    velocities = [backbone.with_network(teacher).velocity for teacher in teachers]
    with torch.no_grad():
        expected = [velocity(x, sigma, cond).clone() for velocity in velocities]
    before = copy.deepcopy([{k: v.cpu() for k, v in teacher.state_dict().items()} for teacher in teachers])
    offloader = TeacherOffloader(DEVICE)
    for teacher in teachers:
        offloader.offload(teacher, base)
    waiting = [offloader._waiting[teacher] for teacher in teachers]
    assert all(one.buffer.is_pinned() for one in waiting) == CARD
    size, without = waiting[0].buffer.numel(), allocated()
    assert size > (60 if CARD else 1) * MIB
    if CARD:
        torch.cuda.reset_peak_memory_stats()
    fields = [offloader.field(teacher, velocity) for teacher, velocity in zip(teachers, velocities, strict=True)]
    with torch.no_grad():  # nothing waits for the card in between
        found = [fields[turn % 2](x, sigma, cond) for turn in range(20)]
    assert all(one.equal(expected[turn % 2]) for turn, one in enumerate(found))
    assert not expected[0].equal(expected[1])
    if CARD:
        there, peak = allocated() - without, torch.cuda.max_memory_allocated() - without
        told("offload", teacher_mib=size / MIB, on_card_mib=there / MIB, peak_mib=peak / MIB)
        assert size <= there < 1.1 * size
        assert peak < 1.5 * size
    for kept, teacher in zip(before, teachers, strict=True):  # copies never changed what waits
        assert all(value.cpu().equal(kept[name]) for name, value in teacher.state_dict().items())


def test_teachers_that_stay_are_moved_away_when_memory_ends(zimage_folder):
    backbone = open_backbone(zimage_folder, torch.float32, DEVICE)
    base, teachers = network(1), [network(2), network(3)]
    x, sigma, cond = (value.to(DEVICE) for value in query(backbone, batch=1))
    offloader = TeacherOffloader(DEVICE, active=False)
    fields = []
    for teacher in teachers:
        offloader.offload(teacher, base)
        fields.append(offloader.field(teacher, backbone.with_network(teacher).velocity))
    with torch.no_grad():
        expected, all_there = [field(x, sigma, cond) for field in fields], allocated()
        offloader.begin()
        size = offloader._waiting[teachers[0]].buffer.numel()
        gone = all_there - allocated()
        assert [field(x, sigma, cond).equal(one) for field, one in zip(fields, expected, strict=True)] == [True, True]
    if CARD:
        assert gone > 1.9 * size
