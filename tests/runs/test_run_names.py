"""Names that some system cannot keep are refused before a run starts, not when its results are written."""

import os
from dataclasses import replace

import pytest

from danceopd_core.errors import InputError
from danceopd_core.recipe.schema import Bucket, Recipe, Route, Teacher
from danceopd_core.runs.files.run_names import MOST_BYTES, check_name, check_place, check_twin, is_reserved
from danceopd_core.runs.plans.preflight import preflight
from danceopd_core.runs.stored.records import RunRecord, unfinished


@pytest.mark.parametrize(
    "name", ["student", "a b", "猫" * 76, "é" * 100, "x" * 100, "v1.2", "console", "com10", "nullify", "auxiliary.txt"]
)
def test_names_that_every_system_takes_pass(name, tmp_path):
    assert check_name(name) == name
    (tmp_path / f"{name}.safetensors").touch()


@pytest.mark.parametrize("name", ["猫" * 80, "猫" * 77, "𝒳" * 60])
def test_a_name_is_as_long_as_its_bytes(name):
    assert len(name) <= 100
    with pytest.raises(
        InputError, match=rf"takes {len(name.encode())} bytes, and file systems take {MOST_BYTES} of it"
    ):
        check_name(name)


@pytest.mark.parametrize("name", ["CON", "nul", "aux.txt", "Prn", "com1", "LPT9.lora", "COM²", "con .x"])
def test_the_devices_of_windows_are_no_names(name):
    assert is_reserved(name)
    with pytest.raises(InputError, match="Windows keeps it for a device"):
        check_name(name)
    with pytest.raises(InputError):
        RunRecord("out", name)


@pytest.mark.parametrize("name", ["a.", "a. .", ".a", "a/b", "a\\b", "..", "", " ", "a\0b", "a\nb", "x" * 101, "a:b"])
def test_other_names_of_no_file_are_refused(name):
    with pytest.raises(InputError, match="cannot name a LoRA"):
        check_name(name)
    assert not unfinished("out", name)


def test_a_run_whose_name_differs_in_case_only_is_told(tmp_path):
    (tmp_path / "danceopd" / "Cat").mkdir(parents=True)
    (tmp_path / "danceopd" / "Cat" / "identity.json").touch()
    (tmp_path / "loras").mkdir()
    (tmp_path / "loras" / "Dög.safetensors").touch()
    RunRecord(tmp_path, "Cat").check_free()
    for name, other in (("cat", "Cat"), ("DÖG", r"Dög\.safetensors")):
        with pytest.raises(InputError, match=rf"and '{other}', which is there, differ in upper and lower case only"):
            RunRecord(tmp_path, name).check_free()
    RunRecord(tmp_path, "cats").check_free()


def test_runs_that_differ_in_case_only_and_are_both_there_go_on(tmp_path):
    for name in ("Cat", "cat"):
        (tmp_path / name).mkdir()
    check_twin(tmp_path / "cat")
    check_twin(tmp_path / "Cat")


def test_the_folder_of_a_run_is_looked_at_in_the_dry_run(tmp_path, zimage_folder):
    recipe = Recipe(
        model=str(zimage_folder),
        routes=(Route("a", "base", Bucket(prompts=("x",))),),
        teachers={"base": Teacher()},
        out=str(tmp_path / "run"),
    )
    preflight(recipe)
    for part in ("猫" * 90, "x" * 256):
        long = replace(recipe, out=str(tmp_path / part / "run"), width=1000)
        with pytest.raises(InputError) as caught:
            preflight(long)
        assert [fault.setting for fault in caught.value.faults] == ["width", "out"]
        assert f"takes {len(os.fsencode(part))} bytes, and a name 255 at most" in str(caught.value)
    check_place(tmp_path / ("x" * 255))


@pytest.mark.parametrize("given", ["name.safetensors", " name.SAFETENSORS ", "name"])
def test_the_name_of_the_loras_file_means_the_name(given, tmp_path):
    assert check_name(given) == "name"
    assert RunRecord(tmp_path, given).lora.name == "name.safetensors"


def test_a_side_beyond_the_models_positions_is_refused():
    route = Route("route", "base", Bucket(prompts=("a star",)))
    big = Recipe("shapes", (route,), {"base": Teacher()}, width=520, height=64, device="cpu", out="nowhere")
    with pytest.raises(InputError, match="width: 520 is more than the longest side of this model's pictures: use 512"):
        preflight(big)
    preflight(replace(big, width=512))
