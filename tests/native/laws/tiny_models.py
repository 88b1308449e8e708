"""Tiny MODELs of ComfyUI's real classes with random weights, and random prompts for them."""

from contextlib import contextmanager
from functools import cache, partial

import comfy.memory_management
import comfy.model_management as management
import comfy.supported_models as supported
import torch
from comfy.model_patcher import ModelPatcher
from pack.danceopd_core.algorithm.fields import Conditioning, Sample
from pack.nodes.native.backbone import opened
from pack_laws.configs import CONFIGS, TEXTS

DEVICE = management.get_torch_device()
"""ComfyUI's own; states and prompts are drawn on the CPU, so that they are the same everywhere, and moved there."""


@torch.no_grad()
def randomize(module, seed=0, device="cpu"):
    """Fills every parameter: gates and output layers start at zero, and zero networks agree with anything.

    device: where the numbers are drawn.
    """
    generator = torch.Generator(device).manual_seed(seed)
    for name, weight in module.named_parameters():
        drawn = torch.randn(weight.shape, generator=generator, device=device)
        if weight.ndim >= 2:
            weight.copy_(drawn / weight[0].numel() ** 0.5)
        else:
            weight.copy_(0.1 * drawn + float("norm" in name and name.endswith(("weight", "scale"))))
    for name, buffer in module.named_buffers():
        if name == "pos_embed":  # left empty until a file is loaded
            buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator, device=device))


@contextmanager
def with_weights():
    """Layers have weights when they are made: under dynamic VRAM ComfyUI's have none until a file is loaded."""
    before, comfy.memory_management.aimdo_enabled = comfy.memory_management.aimdo_enabled, False
    try:
        yield
    finally:
        comfy.memory_management.aimdo_enabled = before


def tiny_model(name, dtype=torch.float32, disable_dynamic=False, more=(), filled=True):
    """A MODEL with its factory, as a stock loader gives it; `more` are pairs that change its settings.

    filled: with random numbers; else its weights are whatever is in memory.
    """
    settings = {**CONFIGS[name], **dict(more)}
    config = vars(supported)[name](settings)
    config.unet_config.update(settings)  # over sizes that the class knows for itself
    config.set_inference_dtype(dtype, None)
    with with_weights():
        model = config.get_model({}, "", device=torch.device("cpu"))
    if filled:
        randomize(model.diffusion_model)
    patcher = ModelPatcher(model, management.get_torch_device(), management.unet_offload_device())
    patcher.cached_patcher_init = (partial(tiny_model, more=more), (name, dtype))
    return patcher


class NoVae:
    """Stands where a VAE would: the laws of networks decode nothing."""

    def __init__(self, latent_format):
        self.latent_channels, self.latent_dim = latent_format.latent_channels, latent_format.latent_dimensions
        self._ratio = latent_format.spacial_downscale_ratio

    def spacial_compression_encode(self):
        return self._ratio


def backbone_of(patcher):
    """A MODEL as a backbone without encoders, with a network of its own."""
    return opened(patcher, None, NoVae(patcher.model.latent_format))


def fresh_backbone(name, dtype=torch.float32, **more):
    with torch.inference_mode():  # as a loader node runs
        patcher = tiny_model(name, dtype, more=tuple(more.items()))
    return backbone_of(patcher)


@cache
def tiny_backbone(name):
    """Made once: for laws that change nothing in it."""
    return fresh_backbone(name)


def prompts(name, count=2, seed=1, **more):
    """Random text embeddings in the shapes of the family; `more` are values of every sample."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"text": (5, 48)} | TEXTS.get(name, {})
    return Conditioning(
        tuple(Sample({key: drawn(key, shape, generator) for key, shape in shapes.items()} | more) for _ in range(count))
    ).to(DEVICE)


def drawn(key, shape, generator):
    if key == "attention_mask":
        return torch.ones(shape, dtype=torch.long)
    if key == "degrade_sigma":  # one for a batch
        return torch.full(shape, 0.3)
    if key == "text_input_ids":
        return torch.randint(0, 1000, shape, generator=generator)
    return torch.randn(shape, generator=generator)


def sizes(backbone):
    """A small picture that is not square, in pixels."""
    return 4 * backbone.size_multiple, 2 * backbone.size_multiple


def state(backbone, count=2, seed=2, size=None):
    """States and times for the velocity."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, *backbone.latent_shape(*(size or sizes(backbone))), generator=generator)
    return x.to(DEVICE), torch.linspace(0.9, 0.2, count).to(DEVICE)
