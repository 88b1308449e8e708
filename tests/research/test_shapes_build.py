"""`danceopd shapes build`, every stage of it at a size at which nothing is learned."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from safetensors.torch import load_file

from danceopd_core.models.registry import open_backbone
from danceopd_core.research.shapes_build import fit
from danceopd_core.research.shapes_build.build_context import BuildPlan
from danceopd_core.research.shapes_build.edit_teachers import TEACHERS
from danceopd_core.research.shapes_build.fit import FitConfig
from danceopd_core.research.shapes_build.stages import STAGES, build
from danceopd_core.weights.adapters import Adapters
from danceopd_core.weights.full_checkpoints import load_full_checkpoint
from danceopd_core.weights.lora_io import read_lora

from ..versions import needs_diffusers

pytestmark = needs_diffusers("0.37")

SMALL = BuildPlan(images=64, vae_steps=2, width=32, heads=1, layers=1, compiled=False, evaluated_items=1)
SMALL = replace(
    SMALL,
    **{
        f.name: replace(getattr(SMALL, f.name), steps=50 if f.name == "regularised" else 5, batch=2)
        for f in fields(BuildPlan)
        if isinstance(getattr(SMALL, f.name), FitConfig)
    },
)


class Interrupted(Exception):
    pass


@pytest.fixture(scope="module", autouse=True)
def small_chunks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("danceopd_core.research.shapes_build.training_data.CHUNK", SMALL.images)
        yield


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    out = tmp_path_factory.mktemp("built")
    log_lines: list[str] = []
    build(SMALL, out, "cpu", log_lines.append)
    return out, log_lines


def weights(folder):
    files = sorted(file for file in folder.rglob("*.safetensors") if not file.name.startswith("."))
    return {file.relative_to(folder): load_file(file) for file in files}


def test_everything_that_is_built_opens(built):
    out, log_lines = built
    backbone = open_backbone(out)
    load_full_checkpoint(backbone.network, out / "realism")
    adapters = Adapters(backbone.network)
    for name in TEACHERS:
        lora = read_lora(out / f"loras/{name}.safetensors", adapters.shapes)
        assert any(up.any() for up in lora.up.values())
    card = (out / "README.md").read_text()
    assert "3 + 50 steps" in card  # of `edit`
    assert not (out / ".loose").exists()
    before = weights(out)
    build(SMALL, out, "cpu", log_lines.append)  # finished stages are not run again
    assert log_lines[-len(STAGES) :] == [f"{stage}: already there" for stage in STAGES]
    assert all(torch.equal(w, before[file][n]) for file, found in weights(out).items() for n, w in found.items())


def test_a_resumed_build_equals_an_uninterrupted_one_bit_for_bit(built, tmp_path, monkeypatch):
    whole = weights(built[0])

    started: set[str] = set()

    def stops_once(*args, **kwargs):
        new = args[5].name not in started
        started.add(args[5].name)
        for number, found in enumerate(real(*args, save_every=2, **kwargs), 1):
            yield found
            if new and number == 3:
                raise Interrupted

    real = fit.fit_flow
    monkeypatch.setattr("danceopd_core.research.shapes_build.training.fit_flow", stops_once)
    for _ in range(8):  # pretraining, base, both phases of local_edit and of edit, global_edit, realism
        with pytest.raises(Interrupted):
            build(SMALL, tmp_path, "cpu", lambda line: None)
    build(SMALL, tmp_path, "cpu", lambda line: None)
    assert weights(tmp_path).keys() == whole.keys()
    for file, found in weights(tmp_path).items():
        for name, value in found.items():
            assert torch.equal(value, whole[file][name]), (file, name)
