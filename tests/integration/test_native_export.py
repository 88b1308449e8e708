"""A student's file in a real ComfyUI: its stock loader takes every key, and its native model answers as the student."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from danceopd_core.algorithm.fields import Conditioning, Sample
from danceopd_core.models.sd3 import StableDiffusion3
from danceopd_core.models.zimage import ZImage
from danceopd_core.weights.adapters import STUDENT, Adapters
from danceopd_core.weights.lora_io import lora_metadata, write_lora

from ..comfyui import comfyui_python, comfyui_root
from ..loras import random_lora
from ..native_names import to_native
from ..tiny import randomize

SCRIPT = Path(__file__).with_name("native_answers.py")
NOISES = {torch.float32: 5e-6, torch.bfloat16: 0.02}
"""How far two implementations of one network may be apart, relative to the answer."""


def sd3():
    """In the layout of SD3.5 medium; ComfyUI takes the number of heads for the width / 64."""
    from diffusers import SD3Transformer2DModel

    network = SD3Transformer2DModel(
        sample_size=16,
        in_channels=16,
        num_layers=2,
        attention_head_dim=64,
        num_attention_heads=2,
        joint_attention_dim=48,
        caption_projection_dim=128,
        pooled_projection_dim=40,
        out_channels=16,
        pos_embed_max_size=16,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    randomize(network, seed=4).eval()
    backbone = StableDiffusion3(network, vae=None, scheduler=None, dtype=torch.float32, clips=(), t5=None)
    return backbone, {"text": (7, 48), "pooled": (40,)}


@torch.no_grad()
def zimage():
    """ComfyUI knows Z-Image by its width: one layer of the real one, and its refiners, in bfloat16."""
    from diffusers import ZImageTransformer2DModel

    with torch.device("meta"):
        network = ZImageTransformer2DModel(n_layers=1, cap_feat_dim=64)
    network.to(torch.bfloat16).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(4)
    for name, parameter in network.named_parameters():
        if parameter.ndim >= 2:
            parameter.uniform_(-1, 1, generator=generator).mul_((3 / parameter[0].numel()) ** 0.5)
        else:
            parameter.uniform_(-0.1, 0.1, generator=generator).add_(float("norm" in name))
    network.eval()
    backbone = ZImage(network, vae=None, scheduler=None, dtype=torch.bfloat16, text_encoder=None, tokenizer=None)
    return backbone, {"text": (9, 64)}


@pytest.fixture
def folder(tmp_path):
    yield tmp_path
    shutil.rmtree(tmp_path)  # Z-Image's weights are 1.8 GB


@pytest.mark.parametrize(("make", "kind"), [(sd3, "SD3"), (zimage, "ZImage")], ids=["sd3", "zimage"])
def test_a_student_means_in_comfyui_what_it_was_trained_to_mean(make, kind, folder):
    root, python = comfyui_root(), comfyui_python()
    backbone, shapes = make()
    save_file(to_native(backbone.network, copy=False), folder / "model.safetensors")
    generator = torch.Generator().manual_seed(5)
    question = {name: torch.randn(2, *shape, generator=generator) for name, shape in shapes.items()}
    question |= {"x": torch.randn(2, 16, 8, 8, generator=generator), "sigma": torch.tensor([0.8, 0.3])}
    cond = Conditioning(tuple(Sample({name: question[name][row] for name in shapes}) for row in range(2)))

    adapters = Adapters(backbone.network)
    adapters.start_student(random_lora(adapters.shapes, 4, seed=1, targets=backbone.default_targets, scale=1.5))
    student = adapters.student()
    write_lora(folder / "student.safetensors", student, lora_metadata(student, family=backbone.family, title="a"))
    with torch.no_grad():
        ours = {
            "base": adapters.field(backbone.velocity, None)(question["x"], question["sigma"], cond),
            "student": adapters.field(backbone.velocity, STUDENT)(question["x"], question["sigma"], cond),
        }
    save_file(question, folder / "question.safetensors")
    dtype, targets = backbone.dtype, backbone.default_targets
    endings = {target for target in targets if any(module.endswith(f".{target}") for module in student.down)}
    assert endings == set(targets)
    del adapters, backbone  # ComfyUI's own copy comes now

    done = subprocess.run(
        [python, SCRIPT, root, folder],
        capture_output=True,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        timeout=140,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kind"] == kind
    said = [line for line in found["told"] if any(word in line.lower() for word in ("load", "missing", "unexpected"))]
    assert not said
    assert found["layers"] == len(student.down)

    theirs = load_file(folder / "answers.safetensors")
    noise = NOISES[dtype] * ours["base"].norm()
    assert (theirs.pop("base") - ours["base"]).norm() < noise
    assert (ours["student"] - ours["base"]).norm() > 20 * noise
    for way, answer in theirs.items():
        assert (answer - ours["student"]).norm() < noise, way
