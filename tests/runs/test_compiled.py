"""`compile: true`: the same run, to rounding; nothing is compiled once it trains; refused where it cannot work."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch._dynamo.utils import counters

from danceopd_core.algorithm.fields import Conditioning, Sample
from danceopd_core.algorithm.trainer import ProcessGroup
from danceopd_core.errors import InputError
from danceopd_core.models import compiling
from danceopd_core.recipe.io import checked
from danceopd_core.recipe.schema import Bucket, Optimizer, Recipe, Route, Student, Teacher
from danceopd_core.runs.plans.preflight import preflight
from danceopd_core.runs.training import compiled as warming
from danceopd_core.runs.training.session import open_session
from danceopd_core.runs.training.sharding import check_shardable
from danceopd_core.weights.linear_like import linear_shapes
from danceopd_core.weights.lora_io import write_lora

from ..loras import random_lora


@pytest.fixture
def recipe(zimage_folder, opened_zimage, tmp_path) -> Recipe:
    shapes = linear_shapes(opened_zimage.network)
    for rank, targets in ((3, ("to_q",)), (5, ("to_q", "w1"))):
        write_lora(tmp_path / f"{rank}.safetensors", random_lora(shapes, rank, rank, targets))
    teachers = {
        "base": Teacher(guidance=2),
        "three": Teacher(lora=str(tmp_path / "3.safetensors"), strength=0.7),
        "five": Teacher(lora=str(tmp_path / "5.safetensors")),
    }
    prompts = ("a red cat", "a prompt that is much longer than the others, and than a multiple of 32 tokens is", "x")
    return Recipe(
        str(zimage_folder),
        tuple(Route(name, name, Bucket(prompts=prompts)) for name in teachers),
        teachers,
        student=Student(rank=4, targets=("to_q", "to_v")),
        optimizer=Optimizer(lr=1e-3),
        router="round_robin",
        steps=6,
        batch=2,
        accumulate=1,
        rollout_steps=3,
        width=32,
        height=32,
        dtype="float32",
        device="cpu",
        save_every=3,
        out=str(tmp_path / "run"),
    )


def faults(call, *args) -> str:
    with pytest.raises(InputError) as caught:
        call(*args)
    assert all(fault.setting == "compile" for fault in caught.value.faults)
    return str(caught.value)


def compiled(recipe: Recipe, monkeypatch, backend: str):
    """The session, what it told, and the number of codes compiled by then."""
    compile_blocks = compiling.compile_blocks
    within = "danceopd_core.runs.training.compiled.compile_blocks"
    monkeypatch.setattr(within, lambda network: compile_blocks(network, backend))
    torch._dynamo.reset()
    counters.clear()
    told: list[str] = []
    session = open_session(replace(recipe, compile=True), log=told.append)
    return session, told, counters["stats"]["unique_graphs"]


def test_no_update_compiles_anything(recipe, opened_zimage, tmp_path, monkeypatch):
    """By torch's interpreter of what would be compiled, whose numbers are those of eager blocks."""
    weights = {name: 1.1 * tensor for name, tensor in opened_zimage.network.state_dict().items()}
    save_file(weights, tmp_path / "full.safetensors")
    full = Teacher(checkpoint=str(tmp_path / "full.safetensors"))
    teachers = {"base": Teacher(), "three": recipe.teachers["three"], "five": full}
    single = replace(recipe, batch=1, steps=3, teachers=teachers)
    session, told, known = compiled(single, monkeypatch, "eager")
    assert told[-2].startswith("compiling the transformer's blocks")
    assert told[-1].startswith("compiled in ")
    assert all(factor.grad is None for factor in session.trainer.student.parameters())
    results = list(session.trainer)
    assert counters["stats"]["unique_graphs"] == known > 0
    for one, other in zip(open_session(single).trainer, results, strict=True):
        assert one.losses == pytest.approx(other.losses, rel=1e-4)
        assert one.indices == other.indices


@pytest.mark.long
def test_by_the_real_compiler_a_run_is_the_same_to_rounding_and_resumes_to_the_bit(recipe, monkeypatch):
    eager = list(open_session(recipe).trainer)
    session, _, known = compiled(recipe, monkeypatch, "inductor")
    results, trainer = [], iter(session.trainer)
    for _ in range(3):
        results.append(next(trainer))
    state = copy.deepcopy(session.trainer.state_dict())
    results += list(trainer)
    assert counters["stats"]["unique_graphs"] == known > 0
    for one, other in zip(eager, results, strict=True):
        assert one.losses == pytest.approx(other.losses, rel=1e-3)
        assert one.grad_norm == pytest.approx(other.grad_norm, rel=1e-3)
    again, _, _ = compiled(recipe, monkeypatch, "inductor")
    again.trainer.load_state_dict(state)
    assert [result.losses for result in again.trainer] == [result.losses for result in results[3:]]


def test_it_is_refused_where_it_cannot_work(recipe, monkeypatch):
    asked = replace(recipe, compile=True)
    preflight(asked)
    assert "quantised weights" in faults(checked, replace(asked, quantise="nf4"))
    assert "a MODEL of ComfyUI" in faults(checked, replace(asked, model="comfyui:a:0"))
    assert "--fsdp" in faults(check_shardable, asked, ProcessGroup(0, 2))
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "install it, or leave compile out" in faults(preflight, asked)


def test_what_the_compiler_says_is_a_sentence(recipe, monkeypatch):
    def broken(graph, inputs):
        raise RuntimeError("no such thing")

    assert "cannot be compiled here: leave it out" in faults(compiled, recipe, monkeypatch, broken)


def test_a_compiled_base_is_never_quantised_by_the_ladder(recipe, monkeypatch):
    chosen = []

    def settled(recipe, device, estimated, free, quantise):
        chosen.append(quantise)
        raise InputError("seen")

    monkeypatch.setattr("danceopd_core.runs.training.session.settle", settled)
    for asked in (recipe, replace(recipe, compile=True)):
        with pytest.raises(InputError, match="seen"):
            open_session(asked)
    assert chosen == [True, False]


def test_blocks_are_compiled_for_the_kernels_that_updates_take():
    """A compiler keeps the kernel of attention that was chosen when it saw it."""
    asked: set[tuple[bool, bool]] = set()
    weight = torch.zeros(1, requires_grad=True)

    def field(x, sigma, cond):
        asked.add((torch.is_grad_enabled(), torch.backends.cuda.cudnn_sdp_enabled()))
        return x * weight

    samples = Conditioning((Sample({}), Sample({})))
    trainer = SimpleNamespace(micro_batch=2, device=torch.device("cpu"), shape=(3,), field=field)
    torch.backends.cuda.enable_cudnn_sdp(True)
    warming._call(trainer, SimpleNamespace(samples=samples, teacher=field))
    assert asked == {(False, True), (True, False)}
