"""`memory: auto` takes the first rung that fits, and a run that runs out of memory all the same goes one down."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from danceopd_core.algorithm.relief import OutOfMemory
from danceopd_core.errors import InputError
from danceopd_core.recipe.schema import Bucket, Recipe, Route, Student, Teacher
from danceopd_core.runs.budget.ladder import choose, settle
from danceopd_core.runs.budget.memory import estimate, planned_memory
from danceopd_core.runs.training.loop import train_loop
from danceopd_core.runs.training.run_dir import RunFolder
from danceopd_core.runs.training.session import open_session
from danceopd_core.weights.linear_like import linear_shapes
from danceopd_core.weights.lora import fresh_lora
from danceopd_core.weights.lora_io import write_lora

GPU = torch.device("cuda")
ALL = ("int8", "nf4")


@pytest.fixture
def recipe(zimage_folder, opened_zimage, tmp_path) -> Recipe:
    lora = fresh_lora(linear_shapes(opened_zimage.network), 3, 3, opened_zimage.default_targets, torch.Generator())
    write_lora(tmp_path / "lora.safetensors", lora)
    return Recipe(
        str(zimage_folder),
        (Route("a", "one", Bucket(prompts=("a red cat", "a dog", "a fish"))),),
        {"one": Teacher(lora=str(tmp_path / "lora.safetensors"))},
        student=Student(rank=3),
        steps=3,
        batch=4,
        accumulate=1,
        rollout_steps=3,
        width=64,
        height=64,
        dtype="float32",
        device="cpu",
        out=str(tmp_path / "run"),
    )


@pytest.fixture
def checkpoint(opened_zimage, tmp_path) -> Teacher:
    from safetensors.torch import save_file

    weights = {name: 1.1 * tensor for name, tensor in opened_zimage.network.state_dict().items()}
    save_file(weights, tmp_path / "full.safetensors")
    return Teacher(checkpoint=str(tmp_path / "full.safetensors"))


def settings(choice) -> tuple:
    return choice.recipe.gradient_checkpointing, choice.recipe.offload, choice.micro_batch, choice.recipe.quantise


def rungs(found) -> list[tuple]:
    """The choices from much free memory to none, each once."""
    seen: list[tuple] = []
    for free in range(choose(found, 2**40, ALL).memory.update * 2, 0, -(2**14)):
        if (one := settings(choose(found, free, ALL))) not in seen:
            seen.append(one)
    return seen


def test_the_ladder_goes_down_as_memory_does(recipe):
    found = estimate(recipe)
    assert rungs(found) == [
        (True, False, 4, None),
        (True, False, 2, None),
        (True, False, 1, None),
        (True, False, 1, "int8"),
        (True, False, 1, "nf4"),
    ]
    assert "it may run out of memory" in choose(found, 1, ALL).text()
    assert choose(found, 2**40, ALL).text().count("\n") == 0


def test_full_checkpoints_are_offloaded_and_never_quantised_over(recipe, checkpoint):
    found = estimate(replace(recipe, teachers={"one": checkpoint, "two": checkpoint}))
    assert rungs(found) == [
        (True, False, 4, None),
        (True, True, 4, None),
        (True, True, 2, None),
        (True, True, 1, None),
    ]


def test_what_is_chosen_fits_by_the_estimate(recipe):
    found = estimate(recipe)
    for free in (2**40, 3 * 2**20, 2**21):
        chosen = choose(found, free, ALL)
        assert chosen.fits == (chosen.memory.update <= 0.95 * free)


def test_explicit_settings_keep_their_meaning(recipe):
    kept = replace(recipe, gradient_checkpointing=False, quantise="int8")
    found = choose(estimate(kept), 1, ALL)
    assert found.recipe.quantise == "int8"
    assert found.recipe.gradient_checkpointing is False
    assert "a 16-bit copy of every layer, for want of gradient checkpointing" in found.text()


def test_a_cpu_and_a_manual_run_are_left_as_they_are(recipe):
    def never():
        raise AssertionError("nothing is to be estimated")

    on_cpu = settle(recipe, torch.device("cpu"), never)
    assert settings(on_cpu) == (False, False, 4, None)
    manual = settle(replace(recipe, memory="manual"), GPU, never, lambda device: 1)
    assert settings(manual) == (False, False, 4, None)


def test_a_gpu_checkpoints_gradients_even_where_nothing_can_be_estimated(recipe):
    def broken():
        raise InputError("no configuration")

    found = settle(replace(recipe, device="auto"), GPU, broken, lambda device: 2**30)
    assert settings(found) == (True, False, 4, None)
    assert found.text() == "memory: not estimated (no configuration); gradient checkpointing is on"


def test_the_digest_is_that_of_the_results(recipe):
    assert replace(recipe, memory="manual").digest() == recipe.digest()
    assert replace(recipe, gradient_checkpointing=False).digest() == recipe.digest()
    assert replace(recipe, quantise="int8").digest() != recipe.digest()


def losses(session) -> list[dict[str, float]]:
    return [result.losses for result in session.trainer]


def exhausted(session, calls: set[int], shown: list[str]):
    """The session, whose teacher runs out of memory at these of its calls."""
    route = session.trainer.routes[0]
    count = 0

    def field(x, sigma, cond):
        nonlocal count
        count += 1
        if count in calls:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")
        return route.teacher(x, sigma, cond)

    session.trainer.routes = (replace(route, teacher=field),)
    return session


def test_an_update_that_ran_out_of_memory_is_made_again_one_rung_down(recipe):
    plain, told = open_session(recipe), []
    expected = losses(plain)
    session = exhausted(open_session(recipe, log=told.append), {2, 3, 5}, told)
    found = losses(session)
    assert session.trainer.update == 3
    assert [one["a"] for one in found] == pytest.approx([one["a"] for one in expected], rel=1e-4)
    for one, other in zip(
        plain.trainer.student.state_dict().values(), session.trainer.student.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    assert told[-3:] == [
        "out of memory in update 2: gradient checkpointing from now on, and the update is made again",
        "out of memory in update 2: 2 of the batch of 4 at a time from now on, and the update is made again",
        "out of memory in update 2: 1 of the batch of 4 at a time from now on, and the update is made again",
    ]


class Watcher:
    cancelled = KeyboardInterrupt

    def on_update(self, result): ...
    def on_validate(self): ...
    def on_save(self, state):
        self.state = state

    def should_stop(self):
        return False


def test_below_the_last_rung_the_run_stops_saved_and_resumes_as_if_nothing_had_been(recipe):
    expected = losses(open_session(recipe))
    session = exhausted(open_session(recipe), set(range(2, 40)), [])
    folder = RunFolder(recipe.out)
    folder.begin(session, resume=False)
    with pytest.raises(OutOfMemory, match=r"^out of memory in update 2, and nothing is left to turn down: lower width"):
        train_loop(session, folder, Watcher())
    again = open_session(recipe, resumed=True)
    folder.begin(again, resume=True)
    assert again.trainer.update == 1
    assert losses(again) == expected[1:]


def test_a_manual_run_fails_as_it_did(recipe):
    session = exhausted(open_session(replace(recipe, memory="manual")), {1}, [])
    with pytest.raises(torch.OutOfMemoryError):
        next(iter(session.trainer))


def test_a_full_checkpoint_is_moved_to_host_memory_when_it_runs_out(recipe, checkpoint):
    told: list[str] = []
    recipe = replace(recipe, teachers={"one": checkpoint})
    expected = losses(open_session(replace(recipe, gradient_checkpointing=True)))
    session = exhausted(open_session(replace(recipe, gradient_checkpointing=True), log=told.append), {2}, told)
    assert losses(session) == expected
    assert "full checkpoints wait in host memory from now on" in told[-1]


@pytest.mark.parametrize("method", ["danceopd", "diffusionopd", "flowopd"])
def test_a_batch_in_parts_is_the_same_update(recipe, method):
    recipe = replace(recipe, method=method, group=2 if method == "flowopd" else None, steps=1)
    whole, parts = open_session(recipe), open_session(recipe)
    parts.trainer.micro_batch = 3
    one, other = next(iter(whole.trainer)), next(iter(parts.trainer))
    assert one.losses["a"] == pytest.approx(other.losses["a"], rel=1e-4)
    assert one.errors["a"] == pytest.approx(other.errors["a"], rel=1e-4)
    assert one.grad_norm == pytest.approx(other.grad_norm, rel=1e-3)
    assert sorted(one.indices) == sorted(other.indices)


def test_a_resumed_run_keeps_the_type_that_was_chosen_for_its_base(recipe):
    folder = RunFolder(recipe.out)
    assert folder.base_kept(recipe) is recipe
    from danceopd_core.recipe.io import write_recipe

    folder.path.mkdir(parents=True)
    write_recipe(folder.path / "recipe.yaml", replace(recipe, quantise="int8"))
    assert folder.base_kept(replace(recipe, steps=9)).quantise == "int8"
    assert folder.base_kept(replace(recipe, seed=9)).quantise is None
    assert folder.base_kept(replace(recipe, memory="manual")).quantise is None


def test_planned_memory_checkpoints_as_the_device_does(recipe):
    on_gpu, on_cpu = planned_memory(replace(recipe, device="auto")), planned_memory(recipe)
    assert on_gpu.working < on_cpu.working
    assert on_gpu.device == on_cpu.device
