"""Random LoRAs, and the plain merge that adapters are held against."""

import copy

import torch

from danceopd_core.weights.lora import Lora

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


def random_lora(shapes, rank, seed, targets=ATTENTION, scale=1.0) -> Lora:
    generator = torch.Generator().manual_seed(seed)
    down, up = {}, {}
    for module, (outputs, inputs) in shapes.items():
        if any(module.endswith(f".{target}") for target in targets):
            down[module] = torch.randn(rank, inputs, generator=generator) / inputs**0.5
            up[module] = torch.randn(outputs, rank, generator=generator) / rank**0.5 / 2
    return Lora(down, up, scale)


@torch.no_grad()
def merged(network, lora: Lora, strength=1.0):
    """A copy of a network without adapters, with the LoRA added to its weights."""
    network = copy.deepcopy(network)
    for module, down in lora.down.items():
        network.get_submodule(module).weight += strength * lora.scale * lora.up[module] @ down
    return network


def query(backbone, batch=2):
    """States, times and a batch of texts, the last one an edit."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(batch, *backbone.latent_shape(32, 32), generator=generator)
    source = torch.rand(32, 32, 3, generator=generator)
    prompts = ["a red cat", "make it blue"][:batch]
    return x, torch.tensor([0.8, 0.3][:batch]), backbone.encode(prompts, [None, [source]][:batch])
