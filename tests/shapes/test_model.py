"""The embedded model as it is shipped. Skipped while a checkout holds none (`danceopd shapes build` makes it)."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from danceopd_core.algorithm.fields import guided
from danceopd_core.models.registry import open_backbone
from danceopd_core.shapes import GUIDANCE, MODEL
from danceopd_core.shapes.language import EDIT, GLOBAL, LOCAL, T2I
from danceopd_core.shapes.score import HeldOutSet, score_table
from danceopd_core.weights.adapters import Adapters
from danceopd_core.weights.full_checkpoints import load_full_checkpoint
from danceopd_core.weights.lora_io import read_lora

TEACHERS = {"edit": EDIT, "local_edit": LOCAL, "global_edit": GLOBAL}

pytestmark = pytest.mark.skipif(
    not (MODEL / "realism" / "config.json").is_file(), reason="the embedded model is not in this checkout"
)


@pytest.fixture(scope="module")
def world():
    backbone = open_backbone(MODEL)
    return backbone, Adapters(backbone.network)


def score(backbone, field, kind, each=12, style=None):
    exam = HeldOutSet.of(backbone, {kind: each}, seed=11)
    return score_table(exam, list(exam.generate(backbone, field)), style)


def test_it_is_small_and_safe():
    files = [path for path in MODEL.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 30e6
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".md", ".txt", ".jinja"}
    assert (MODEL / "README.md").is_file()


def test_transformers_4_and_5_both_read_its_tokenizer():
    told = json.loads((MODEL / "tokenizer" / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert "extra_special_tokens" not in told  # a list there is of transformers 5 alone
    assert "<|vision_start|>" in told["additional_special_tokens"]


def test_diffusers_runs_it_with_none_of_our_code():
    from diffusers import ZImagePipeline

    pipeline = ZImagePipeline.from_pretrained(MODEL, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(MODEL / "loras", weight_name="edit.safetensors")
    picture = pipeline(
        "a red circle", height=64, width=64, num_inference_steps=2, generator=torch.Generator().manual_seed(0)
    ).images[0]
    assert picture.size == (64, 64)


def test_the_base_draws(world):
    backbone, adapters = world
    table = score(backbone, guided(adapters.field(backbone.velocity, None), GUIDANCE), T2I)
    assert table["t2i"].mean >= 0.85  # 0.90 in the long run; 72 items leave a wide interval


@pytest.fixture(scope="module")
def drawn_by_base(world):
    backbone, adapters = world
    return score(backbone, guided(adapters.field(backbone.velocity, None), GUIDANCE), T2I, 24)["t2i"].mean


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name != "global_edit" else name for name in TEACHERS]
)  # weights that change with a new build alone: one of the three in every run
def test_every_edit_teacher_edits_and_forgets(world, drawn_by_base, name):
    backbone, adapters = world
    field = adapters.field(
        backbone.velocity, adapters.add_teacher(read_lora(MODEL / f"loras/{name}.safetensors", adapters.shapes))
    )
    assert score(backbone, field, TEACHERS[name])["edit"].mean >= 0.8
    assert score(backbone, field, T2I, 24)["t2i"].mean < 0.95 * drawn_by_base


def test_the_realism_checkpoint_draws_in_its_style():
    backbone = open_backbone(MODEL)  # one without adapters, as `open_teachers` copies it
    real = backbone.with_network(load_full_checkpoint(backbone.network, MODEL / "realism"))
    assert score(real, guided(real.velocity, GUIDANCE), T2I, 6, "shaded")["t2i"].mean > 0.7  # 0.82 of 192 items


@pytest.mark.long
def test_the_demo_gives_one_student_what_both_teachers_can(tmp_path):
    # A process of its own: its memory and its seconds are part of the promise.
    out = tmp_path / "demo"
    subprocess.run([sys.executable, "-m", "danceopd_core", "demo", "--out", str(out), "--seed", "0"], check=True)
    report = json.loads((out / "report.json").read_text())
    scores = report["scores"]
    base, before, after = (scores[name]["t2i"] for name in ("base", "student_before", "student_after"))
    assert before < 0.92 * base
    assert after >= 0.95 * base
    assert scores["student_after"]["edit"] >= 0.95 * scores["teacher_edit"]["edit"]
    assert report["peak_rss_mb"] < 2000
