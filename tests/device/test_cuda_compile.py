"""Compiled blocks on a real card: the answers of eager ones, and no code is made once a run trains."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.utils import counters

from danceopd_core.models import compiling
from danceopd_core.models.registry import open_backbone

from ..models.compiled import answers, graphs, pair
from ..models.test_compiling import SAVED, asked
from .card import CARD, DEVICE, gap, needs_card, told, worst
from .cases import Family, Watcher, train

pytestmark = [needs_card, pytest.mark.slow, pytest.mark.usefixtures("on_card")]

BACKEND = "inductor" if CARD else "eager"


@pytest.mark.parametrize("name", ["zimage", "flux", "qwen", "sd3"])
def test_blocks_answer_as_eager_ones_and_are_compiled_once(name, tmp_path):
    backbone = open_backbone(SAVED[name](tmp_path))
    questions = [asked(backbone, texts=(0, 0)), asked(backbone), asked(backbone, 2, 1), asked(backbone, pixels=48)]
    backbone.network.to(DEVICE)
    eager, compiled = pair(backbone, BACKEND, device=DEVICE)
    found, known = [], 0
    for number, question in enumerate(questions):
        on_device = [part.to(DEVICE) for part in question]
        found.append([gap(*two) for two in zip(answers(compiled, *on_device), answers(eager, *on_device), strict=True)])
        known = graphs() if number == 1 else known
    told(f"{name} compiled", velocity=max(one[0] for one in found), gradient=max(one[1] for one in found), codes=known)
    assert max(map(max, found)) < 1e-4
    assert graphs() == known > 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_run_is_the_same_to_rounding_and_no_update_compiles(dtype, tmp_path, monkeypatch):
    """With every kind of teacher: routes alternate between networks and adapters."""
    compile_blocks = compiling.compile_blocks
    within = "danceopd_core.runs.training.compiled.compile_blocks"
    monkeypatch.setattr(within, lambda network: compile_blocks(network, BACKEND))
    torch._dynamo.reset()
    counters.clear()
    family, codes, lines = Family("zimage", tmp_path), [], []

    class Counting(Watcher):
        def on_update(self, result) -> None:
            super().on_update(result)
            codes.append(counters["stats"]["unique_graphs"])

    eager, compiled = Watcher(), Counting()
    for name, watcher, compile in (("eager", eager, False), ("compiled", compiled, True)):
        more = {"steps": 3, "dtype": dtype, "compile": compile, "gradient_checkpointing": False}
        train(family.recipe("danceopd", DEVICE, out=str(tmp_path / name), **more), watcher, told=lines)
    apart = worst(compiled.losses, eager.losses)
    told(f"compiled run, {dtype}", apart=apart, codes=codes, told=[line for line in lines if "compiled in" in line])
    assert apart < (2e-3 if dtype == "float32" else 0.1)
    assert len(set(codes)) == 1
    assert codes[0] > 0
