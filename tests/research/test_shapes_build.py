"""`danceopd shapes build`, every stage of it at a size at which nothing is learned."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from safetensors.torch import load_file

from danceopd_core.models.registry import open_backbone
from danceopd_core.research.shapes_build import fit
from danceopd_core.research.shapes_build.build import STAGES, TEACHERS, build
from danceopd_core.research.shapes_build.build_context import BuildPlan
from danceopd_core.research.shapes_build.fit import Fit
from danceopd_core.weights.adapters import Adapters
from danceopd_core.weights.full_checkpoints import load_full_checkpoint
from danceopd_core.weights.lora_io import read_lora

SMALL = BuildPlan(pictures=64, vae_steps=2, width=32, heads=1, layers=1, compiled=False, looked=1)
SMALL = replace(
    SMALL,
    **{
        f.name: replace(getattr(SMALL, f.name), steps=50 if f.name == "calm" else 5, batch=2)
        for f in fields(BuildPlan)
        if isinstance(getattr(SMALL, f.name), Fit)
    },
)


class Interrupted(Exception):
    pass


@pytest.fixture(scope="module", autouse=True)
def small_chunks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("danceopd_core.research.shapes_build.training_data.CHUNK", SMALL.pictures)
        yield


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    out = tmp_path_factory.mktemp("built")
    told: list[str] = []
    build(SMALL, out, "cpu", told.append)
    return out, told


def weights(folder):
    files = sorted(file for file in folder.rglob("*.safetensors") if not file.name.startswith("."))
    return {file.relative_to(folder): load_file(file) for file in files}


def test_everything_that_is_built_opens(built):
    out, told = built
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
    build(SMALL, out, "cpu", told.append)  # finished stages are kept
    assert told[-len(STAGES) :] == [f"{stage}: already there" for stage in STAGES]
    assert all(torch.equal(w, before[file][n]) for file, found in weights(out).items() for n, w in found.items())


def test_an_interrupted_build_goes_on_to_the_same_bits(built, tmp_path, monkeypatch):
    whole = weights(built[0])

    met: set[str] = set()

    def stops_once(*args, **kwargs):
        new = args[5].name not in met
        met.add(args[5].name)
        for number, found in enumerate(real(*args, save_every=2, **kwargs), 1):
            yield found
            if new and number == 3:
                raise Interrupted

    real = fit.fit_flow
    monkeypatch.setattr("danceopd_core.research.shapes_build.build.fit_flow", stops_once)
    for _ in range(8):  # loose, base, both phases of local_edit and of edit, global_edit, realism
        with pytest.raises(Interrupted):
            build(SMALL, tmp_path, "cpu", lambda line: None)
    build(SMALL, tmp_path, "cpu", lambda line: None)
    assert weights(tmp_path).keys() == whole.keys()
    for file, found in weights(tmp_path).items():
        for name, value in found.items():
            assert torch.equal(value, whole[file][name]), (file, name)
