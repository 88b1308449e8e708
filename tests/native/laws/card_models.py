"""MODELs of files of random weights for the laws of a card, loaded by the stock loader, and trainings over them.

"small" ones are for numbers; "large" and "medium" for memory, in bfloat16: sixteen blocks in 1.3 GB, and the 24 blocks
of Stable Diffusion 3.5 Medium at its width.
"""

import atexit
import gc
import json
import shutil
import tempfile
import weakref
from functools import cache
from pathlib import Path

import comfy.memory_management
import comfy.model_management as management
import comfy.sample
import comfy.sd
import comfy_aimdo.control
import torch
from pack.danceopd_core.algorithm.fields import Conditioning, Sample
from pack.danceopd_core.algorithm.methods import method
from pack.nodes._comfy import workspace
from pack.nodes.native.conditioning import conditioning_of
from pack.nodes.native.lora_names import native_tensors
from pack_laws.loras import random_lora
from pack_laws.tiny_models import DEVICE, backbone_of, prompts, randomize, tiny_model
from pack_laws.training import distilled, remaining
from safetensors.torch import save_file

DYNAMIC = comfy.memory_management.aimdo_enabled
CARD = DEVICE.type == "cuda"


def sized(depth, text, **more):
    """Stable Diffusion 3's settings for so many blocks, of 64 times that width, and texts of that width."""
    layer = {"in_features": text, "out_features": 64 * depth}
    embedder = {"context_embedder_config": {"target": "torch.nn.Linear", "params": layer}}
    return {"depth": depth, "num_blocks": depth, **embedder, **more}


SMALL = sized(6, 48)
WIDTHS = {"large": 16, "medium": 24} if CARD else {"large": 4, "medium": 4}
MORE = {"adm_in_channels": 2048, "num_patches": 4096, "pos_embed_max_size": 64}
SIDE = 1024
"""Pixels of the pictures that memory is measured at."""


@cache
def folder():
    made = Path(tempfile.mkdtemp(prefix="danceopd-cuda-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


@cache
def file_of(size):
    """A file of random weights: "small" in float32, of `tiny_model`'s numbers; the others in bfloat16."""
    path = folder() / f"{size}.safetensors"
    with torch.inference_mode(False), torch.no_grad():
        if size == "small":
            network = tiny_model("SD3", more=tuple(SMALL.items())).model.diffusion_model
        else:
            settings = sized(WIDTHS[size], 4096, **MORE)
            network = tiny_model(
                "SD3", torch.bfloat16, more=tuple(settings.items()), filled=False
            ).model.diffusion_model
            randomize(network, device=DEVICE)
        save_file({name: weight.contiguous() for name, weight in network.state_dict().items()}, str(path))
    return str(path)


def given(size, dtype=None):
    """The MODEL of a file as Load Diffusion Model gives it, in the file's precision or another one."""
    dtype = dtype or (torch.float32 if size == "small" else torch.bfloat16)
    with torch.inference_mode():
        model = comfy.sd.load_diffusion_model(file_of(size), {"dtype": dtype})
    assert model.is_dynamic() == DYNAMIC
    return model


def resident(dtype=torch.float32):
    """The small MODEL with all of its weights on the device, never streamed."""
    with torch.inference_mode():
        model = tiny_model("SD3", dtype, more=tuple(SMALL.items()))
    assert not model.is_dynamic()
    return model


def asked(size, count=2):
    if size == "small":
        return prompts("SD3", count)
    generator = torch.Generator().manual_seed(1)
    shapes = {"text": (77, 4096), "pooled_output": (1, 2048)}
    drawn = ({key: torch.randn(shape, generator=generator) for key, shape in shapes.items()} for _ in range(count))
    return Conditioning(tuple(Sample(values) for values in drawn)).to(DEVICE)


def sampled(model, size, side=256):
    """The latents that a KSampler draws, on the CPU."""
    with torch.inference_mode():
        ((embedded, extras),) = conditioning_of(asked(size, 1).samples[0])
        text = [[embedded.clone(), extras]]
        empty = torch.zeros(1, 16, side // 8, side // 8)
        noise = comfy.sample.prepare_noise(empty, 7)
        return comfy.sample.sample(
            model, noise, 4, 1.0, "euler", "simple", text, text, empty, disable_pbar=True, seed=7
        ).cpu()  # fmt: skip


def side_of(size):
    return (256, 256) if size == "small" or not CARD else (SIDE, SIDE)


def held():
    """Bytes that this process has on the card once all models are unloaded: torch's, and those of dynamic VRAM."""
    gc.collect()
    management.unload_all_models()
    management.cleanup_models_gc()
    gc.collect()
    management.soft_empty_cache()
    if not CARD:
        return {"torch": 0, "dynamic": 0, "free": 0}
    torch.cuda.synchronize()
    streamed = comfy_aimdo.control.get_total_vram_usage() if DYNAMIC else 0
    return {"torch": torch.cuda.memory_allocated(), "dynamic": streamed, "free": management.get_free_memory(DEVICE)}


def told(**figures):
    print("\n" + json.dumps({"figures": figures, "dynamic": DYNAMIC, "vram": management.vram_state.name}), flush=True)


def trained(model, size, steps=2, checkpointing=False, lr=1e-2):
    """A training over the MODEL as a node does it: the LoRA, its losses, how far it still is, and weak references."""
    with workspace(True):
        backbone = backbone_of(model)
        cond = asked(size)
        adapters, teacher, losses = distilled(
            backbone, random_lora(backbone), cond, steps, method("danceopd"), checkpointing, lr=lr, size=side_of(size)
        )
        left = remaining(backbone, adapters, teacher, cond, size=side_of(size))
        lora = native_tensors(adapters.student())
        return (
            lora,
            losses,
            left,
            [weakref.ref(part) for part in (backbone, backbone.model, backbone.patcher, adapters)],
        )
