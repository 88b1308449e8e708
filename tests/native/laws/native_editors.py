"""The embedded edit LoRAs for ComfyUI's own network edit there, where those of the diffusers pipeline hardly do."""

import torch
from pack.danceopd_core.recipe.schema import Teacher
from pack.danceopd_core.runs.plans.opening import open_teachers
from pack.danceopd_core.shapes import embedded
from pack.danceopd_core.shapes.language import KINDS
from pack.danceopd_core.shapes.score import HeldOutSet, score_table
from pack.nodes.native.shapes import shapes_clip, shapes_model, shapes_vae
from pack.nodes.native.source import NativeModel

KIND = {"edit": "edit", "local_edit": "local", "global_edit": "global"}
EACH = {"edit": 3, "local": 4, "global": 8}
"""Held-out items of each category: as many as tell the LoRAs apart."""


def test_each_edits_better_here_than_the_lora_that_it_was_distilled_from():
    with torch.inference_mode():  # as a loader node runs
        live = NativeModel(shapes_model(), shapes_clip(), shapes_vae(), "0123456789abcdef")
    source = live.source({}, {})
    backbone = source.open(torch.float32, "cpu")
    natives = {name.removeprefix("shapes:native_") for name in embedded() if name.startswith("shapes:native_")}
    assert natives == set(KIND)
    names = [name for kind in KIND for name in (kind, f"native_{kind}")]
    teachers = {name: Teacher(lora=f"shapes:{name}") for name in names}
    _, fields = open_teachers(teachers, backbone, weights=source.weights)
    for name, kind in KIND.items():
        held_out = HeldOutSet.of(backbone, {KINDS[kind]: EACH[kind]}, 11)
        here, there = (
            score_table(held_out, list(held_out.generate(backbone, fields[lora])))["edit"].mean
            for lora in (f"native_{name}", name)
        )
        print(name, here, there)
        assert here > max(there + 0.05, 0.65), name
