"""Updates at real size: what is measured here is small, and on the CPU."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest
import torch

from danceopd_core.cli import main
from danceopd_core.errors import InputError
from danceopd_core.models.quantise import QUANTISATIONS
from danceopd_core.recipe.schema import Bucket, Recipe, Route, Teacher
from danceopd_core.research.peaks.cases import CASES, LIMITED, QUICK, PeakCase
from danceopd_core.research.peaks.command import chosen, measurements
from danceopd_core.research.peaks.computed import Computing, computed
from danceopd_core.research.peaks.networks import filled_network
from danceopd_core.research.peaks.report import markdown, record, with_computed
from danceopd_core.research.peaks.update import Measured, measured, simulated
from danceopd_core.runs.budget.memory import GIB, estimate
from danceopd_core.runs.budget.released import RELEASED, Released

from ..tiny_families import save_flux, save_flux2, save_krea2, save_qwen, save_qwen21, save_sd3
from ..versions import needs_pipeline

CPU = torch.device("cpu")


def released(folder) -> Released:
    """The row of RELEASED that a tiny pipeline would have."""
    index = json.loads((folder / "model_index.json").read_text())
    config = json.loads((folder / "transformer/config.json").read_text())
    settings = {key: value for key, value in config.items() if not key.startswith("_")}
    return Released("Tiny", index["_class_name"], index["transformer"][1], settings, ())


def small_pass(folder, network):
    recipe = Recipe(str(folder), (Route("a", "a", Bucket(prompts=("a",))),), {"a": Teacher()}, width=64, height=64)
    return estimate(replace(recipe, dtype="bfloat16")).of._replace(network=network)


@pytest.fixture
def tiny(zimage_folder, monkeypatch):
    """Z-Image as a tiny network; one that cannot be made is beside it."""
    model = released(zimage_folder)
    monkeypatch.setitem(RELEASED, "zimage", model)
    monkeypatch.setitem(RELEASED, "sd35m", replace(model, transformer="NoSuchNetwork"))
    return model


@pytest.mark.parametrize(
    ("pipeline", "save"),
    [
        ("StableDiffusion3Pipeline", save_sd3),
        ("FluxPipeline", save_flux),
        ("Flux2KleinPipeline", save_flux2),
        ("QwenImagePipeline", save_qwen),
        ("Krea2Pipeline", save_krea2),
        ("QwenImage21Pipeline", save_qwen21),
    ],
)
def test_every_family_is_filled_and_updated(pipeline, save, tmp_path):
    """A network made without its weights has every position and frequency that its forward pass needs."""
    needs_pipeline(pipeline)
    folder = save(tmp_path)
    network = filled_network(released(folder), CPU)
    assert all(tensor.device == CPU for tensor in network.state_dict().values())
    found = measured(small_pass(folder, network), 2, CPU)
    assert found.flops > 0


def test_the_simulated_update_is_the_measured_one(zimage_folder):
    """The same operations on both devices, and the network without LoRAs after."""
    network = filled_network(released(zimage_folder), CPU)
    names = list(network.state_dict())
    for full in (False, True):
        real = measured(small_pass(zimage_folder, network), 4, CPU, checkpointing=False, full=full)
        made = simulated(small_pass(zimage_folder, released(zimage_folder).network()), 4, False, full)
        assert 0.98 < real.flops / made.flops < 1.02
    assert list(network.state_dict()) == names
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize("kind", [kind for kind, row in QUANTISATIONS.items() if not row.needs_gpu])
def test_a_network_is_quantised_where_it_is_filled(kind, zimage_folder):
    pytest.importorskip(QUANTISATIONS[kind].package)
    from danceopd_core.weights.full_checkpoints import is_quantised

    network = filled_network(released(zimage_folder), CPU, kind)
    assert is_quantised(network)
    assert measured(small_pass(zimage_folder, network), 2, CPU).flops > 0


def test_a_case_that_fails_ends_no_other(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("danceopd_core.runs.budget.released.SIDE", 64)
    cases = [PeakCase("sd35m", 2), PeakCase("zimage", 2), PeakCase("zimage", 2, False, full=True)]
    rows = dict(measurements(cases, CPU, Computing([], ()), tmp_path / "log", time.monotonic() + 100))
    assert "NoSuchNetwork" in rows[cases[0]]["error"]
    assert "NoSuchNetwork" in (tmp_path / "log").read_text()
    assert not any("error" in rows[case] for case in cases[1:])
    late = dict(measurements(cases, CPU, Computing([], ()), tmp_path / "log", time.monotonic() - 1))
    assert all("left out" in row["error"] for row in late.values())


def test_it_is_compared_with_danceopd_memory(tiny, monkeypatch):
    monkeypatch.setattr("danceopd_core.runs.budget.released.SIDE", 64)
    plain, whole, limited = computed(
        [PeakCase("zimage", 2), PeakCase("zimage", 2, full=True), PeakCase("zimage", 2, free=1)]
    )
    assert 0 < plain.peak < whole.peak
    assert limited.choice.startswith("memory: ")
    assert (limited.case.checkpointing, limited.case.base) == (True, None)


def test_the_report_has_what_was_measured_and_what_failed():
    case, failed = PeakCase("zimage", 128, base="int8"), PeakCase("qwen", 16, False, free=23)
    row = with_computed(record(case, Measured(2 * GIB, 3 * GIB, GIB, 0.5, 10**12)), GIB)
    assert (row["allocated"], row["ratio"], row["tflop_per_second"]) == (2, 2, 2)
    text = markdown("a card", [row, with_computed(record(failed, None, "out of memory"), GIB, "memory: chosen")])
    assert "| Z-Image, rank 128, int8 | 2.0 | 3.0 | 1.0 | 2.00 | 0.50 | 1 | 2 |" in text
    name = "Qwen-Image, rank 16, without checkpointing, 23 GiB free"
    assert f"- {name}: memory: chosen\n- {name}: out of memory; 1.0 GiB computed\n" in text


def test_the_cases_are_of_models_that_exist():
    every = chosen(False, True, "")
    assert set(every) == {*CASES, *LIMITED}
    assert len(set(every)) == len(every)
    assert {case.model for case in every} == set(RELEASED)
    assert chosen(True, False, "sd35m") == list(QUICK)
    with pytest.raises(InputError, match="--only none: there are cases of sd35m"):
        chosen(True, False, "none")


def test_without_a_gpu_it_is_refused(tmp_path, capsys):
    assert main(["bench", "peaks", "--out", str(tmp_path / "out"), "--device", "cpu"]) != 0
    assert "run it on a machine with one" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
