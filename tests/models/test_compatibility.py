"""Laws of compatibility: a folder is compatible with itself, and differing settings are reported."""

import inspect
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from danceopd_core.errors import InputError
from danceopd_core.models.compatibility import SCHEDULER_DEFAULTS, incompatibilities
from danceopd_core.recipe.schema import Bucket, Recipe, Route, Shift, Teacher
from danceopd_core.runs.plans.preflight import preflight

ARCHITECTURE, SCHEDULER = "transformer/config.json", "scheduler/scheduler_config.json"


def changed(folder: Path, file: str, **settings) -> Path:
    """With these settings in that file; `...` takes one away."""
    config = {**json.loads((folder / file).read_text()), **settings}
    (folder / file).write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))
    return folder


@pytest.fixture
def teacher(zimage_folder, tmp_path) -> Path:
    """A pipeline folder of the same kind as the model's, the test's own."""
    for part in ("transformer", "scheduler"):
        shutil.copytree(zimage_folder / part, tmp_path / "teacher" / part)
    return tmp_path / "teacher"


def faults(checkpoint, model, model_schedule=True):
    return list(incompatibilities(checkpoint, model, model_schedule))


def test_a_folder_is_compatible_with_itself_however_it_is_given(teacher, zimage_folder):
    for checkpoint in (teacher, teacher / "transformer", zimage_folder):
        assert faults(checkpoint, zimage_folder) == []
    assert faults(zimage_folder / "transformer" / "any.safetensors", zimage_folder) == []


def test_metadata_and_omitted_defaults_are_compatible(teacher, zimage_folder):
    changed(teacher, ARCHITECTURE, _diffusers_version="0.36.0", _name_or_path="x", rope_theta=...)
    changed(teacher, SCHEDULER, _diffusers_version="0.36.0", base_shift=0.9, stochastic_sampling=True, max_shift=...)
    assert faults(teacher, zimage_folder) == []


@pytest.mark.parametrize("checkpoint", [".", "transformer"])
def test_another_schedule_is_reported_with_the_expected_values(teacher, zimage_folder, checkpoint):
    changed(teacher, SCHEDULER, shift=6.0)
    (fault,) = faults(teacher / checkpoint, zimage_folder)
    assert fault.startswith(f"{teacher / SCHEDULER} ")
    assert "shift is 6.0, expected 3.0" in fault
    assert faults(teacher / checkpoint, zimage_folder, model_schedule=False) == []


@pytest.mark.parametrize(
    "settings", [{"use_dynamic_shifting": True}, {"shift_terminal": 0.02}, {"use_beta_sigmas": True}]
)
def test_whatever_makes_a_grid_makes_a_difference(teacher, zimage_folder, settings):
    (fault,) = faults(changed(teacher, SCHEDULER, **settings), zimage_folder)
    assert f"{next(iter(settings))} is" in fault


def test_the_defaults_are_those_of_the_scheduler():
    from diffusers import FlowMatchEulerDiscreteScheduler

    theirs = inspect.signature(FlowMatchEulerDiscreteScheduler.__init__).parameters
    assert {name: theirs[name].default for name in SCHEDULER_DEFAULTS} == SCHEDULER_DEFAULTS
    assert set(theirs) - set(SCHEDULER_DEFAULTS) == {"self", "stochastic_sampling"}


def test_another_architecture_is_reported_with_the_expected_values(teacher, zimage_folder):
    (fault,) = faults(changed(teacher, ARCHITECTURE, n_layers=3, rope_theta=100.0), zimage_folder)
    assert fault.startswith(f"{teacher / ARCHITECTURE} ")
    assert "n_layers is 3, expected 2" in fault
    assert "rope_theta is 100.0, expected 256.0" in fault
    (fault,) = faults(changed(teacher, ARCHITECTURE, _class_name="SD3Transformer2DModel"), zimage_folder)
    assert "_class_name is 'SD3Transformer2DModel', expected 'ZImageTransformer2DModel'" in fault
    assert "n_layers" not in fault


def test_the_preflight_refuses_an_unlike_teacher_unless_the_grid_is_said(teacher, zimage_folder, tmp_path):
    recipe = Recipe(
        model=str(zimage_folder),
        routes=(Route("text", "real", Bucket(prompts=("a cat",))),),
        teachers={"real": Teacher(str(teacher / "transformer"))},
        width=32,
        height=32,
        out=str(tmp_path / "run"),
    )
    preflight(recipe)
    changed(teacher, SCHEDULER, shift=6.0)
    with pytest.raises(InputError, match=r"teachers\.real\.checkpoint: .*scheduler_config\.json .*expected 3\.0"):
        preflight(recipe)
    for grid in ("paper", Shift(6.0)):
        preflight(replace(recipe, sigmas=grid))
    changed(teacher, ARCHITECTURE, n_heads=4)
    with pytest.raises(InputError, match="2 faults") as caught:
        preflight(recipe)
    assert "n_heads is 4, expected 2" in str(caught.value)
