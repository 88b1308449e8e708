"""Full checkpoints that take turns on the device answer as those that stay there."""

import copy

import torch
from safetensors.torch import save_file

from danceopd_core.algorithm.fields import mixed
from danceopd_core.models.offload import ALIGNMENT, TeacherOffloader
from danceopd_core.recipe.schema import Teacher
from danceopd_core.runs.plans.opening import open_teachers
from danceopd_core.weights.full_checkpoints import load_full_checkpoint
from danceopd_core.weights.linear_like import linear_shapes
from danceopd_core.weights.lora_io import write_lora

from ..loras import query, random_lora
from ..tiny import randomize


def fine_tune(zimage, seed, path):
    """Leaves the first block as it was."""
    network = randomize(copy.deepcopy(zimage.network), seed)
    network.layers[0].load_state_dict(zimage.network.layers[0].state_dict())
    save_file(network.state_dict(), path)


def test_one_teacher_at_a_time_is_on_the_device_with_the_same_velocity_bit_for_bit(tmp_path, zimage, opened_zimage):
    for seed, name in enumerate(("one", "two"), 7):
        fine_tune(opened_zimage, seed, tmp_path / f"{name}.safetensors")
    lora = random_lora(linear_shapes(zimage.network), 3, 5)
    write_lora(tmp_path / "lora.safetensors", lora)
    teachers = {
        "base": Teacher(),
        "one": Teacher(checkpoint=str(tmp_path / "one.safetensors")),
        "two": Teacher(checkpoint=str(tmp_path / "two.safetensors"), lora=str(tmp_path / "lora.safetensors")),
    }
    x, sigma, cond = query(zimage)
    _, stay = open_teachers(teachers, opened_zimage.with_network(copy.deepcopy(opened_zimage.network)))
    expected = {name: field(x, sigma, cond) for name, field in stay.items()}

    copied = []

    def to_device(tensor):
        copied.append(tensor.numel())
        return tensor.clone()  # stands for the copy on the device

    shared = lambda name: name.startswith("layers.0.")  # noqa: E731
    own = [4 * p.numel() for name, p in zimage.network.named_parameters() if not shared(name)]
    _, fields = open_teachers(teachers, zimage, TeacherOffloader("cpu", to_device))
    assert not copied
    for name in ("one", "one", "two", "base", "two", "one"):
        assert fields[name](x, sigma, cond).equal(expected[name])
    # One, two, one: not at every call, each as one buffer, and the shared block never. LoRAs stay where they were used.
    assert copied == 3 * [sum(-(-size // ALIGNMENT) * ALIGNMENT for size in own)]


def test_a_mix_of_two_swaps_once_a_query(tmp_path, zimage, opened_zimage):
    for seed, name in enumerate(("one", "two"), 7):
        fine_tune(opened_zimage, seed, tmp_path / f"{name}.safetensors")
    teachers = {name: Teacher(checkpoint=str(tmp_path / f"{name}.safetensors")) for name in ("one", "two")}
    x, sigma, cond = query(zimage)
    _, stay = open_teachers(teachers, opened_zimage.with_network(copy.deepcopy(opened_zimage.network)))
    expected = mixed([(stay["one"], 0.25), (stay["two"], 0.75)])(x, sigma, cond)
    copied = []

    def to_device(tensor):
        copied.append(tensor)
        return tensor.clone()

    _, fields = open_teachers(teachers, zimage, TeacherOffloader("cpu", to_device))
    mix = mixed([(fields["one"], 0.25), (fields["two"], 0.75)])
    for number in range(1, 6):
        assert mix(x, sigma, cond).equal(expected)
        assert len(copied) == 1 + number


def test_teachers_that_stay_can_be_moved_away_later(tmp_path, zimage, opened_zimage):
    fine_tune(opened_zimage, 7, tmp_path / "one.safetensors")
    teachers = {"one": Teacher(checkpoint=str(tmp_path / "one.safetensors"))}
    x, sigma, cond = query(zimage)
    copied = []

    def to_device(tensor):
        copied.append(tensor)
        return tensor.clone()

    offloader = TeacherOffloader("cpu", to_device, active=False)
    _, fields = open_teachers(teachers, zimage, offloader)
    expected = fields["one"](x, sigma, cond)
    assert not copied
    offloader.begin()
    assert fields["one"](x, sigma, cond).equal(expected)
    assert len(copied) == 1


def test_an_unloaded_teacher_has_its_unchanged_host_memory_again(tmp_path, zimage):
    fine_tune(zimage, 7, tmp_path / "one.safetensors")
    offloader = TeacherOffloader("cpu", torch.clone)
    one, two = (load_full_checkpoint(zimage.network, tmp_path / "one.safetensors") for _ in range(2))
    fields = []
    for teacher in (one, two):
        offloader.offload(teacher, zimage.network)
        fields.append(offloader.field(teacher, zimage.with_network(teacher).velocity))
    places = {name: p.data_ptr() for name, p in one.named_parameters()}
    values = {name: p.clone() for name, p in one.named_parameters()}
    x, sigma, cond = query(zimage)

    def moved() -> set[str]:
        return {name.split(".")[0] for name, p in one.named_parameters() if p.data_ptr() != places[name]}

    with torch.no_grad():
        fields[0](x, sigma, cond)
        assert "layers" in moved()
        fields[1](x, sigma, cond)
    assert not moved()
    assert all(p.equal(values[name]) for name, p in one.named_parameters())
