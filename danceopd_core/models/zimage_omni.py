"""Z-Image with source images where diffusers has none of it: its releases before 0.37 know the model, but only text.

The same layers are called in the order of diffusers' later forward, one sample at a time; a test holds this to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

MULTIPLE = 32  # every segment of text and every image is padded to a multiple of so many tokens


def forward_with_sources(
    network: Any, images: Sequence[Sequence[Tensor]], time: Tensor, texts: Sequence[Sequence[Tensor]]
) -> tuple[list[Tensor]]:
    """What `network(images, time, texts, ...)` answers: of every sample clean - noise, (C, 1, H, W).

    images: of every sample its sources and, last, the latent that is asked about, each (C, 1, H, W). time: (B,),
    1 - sigma. texts: of every sample one segment (length, width) before each image and one after the last.
    """
    return ([_sample_forward(network, *one) for one in zip(images, time.split(1), texts, strict=True)],)


def _sample_forward(network: Any, images: Sequence[Tensor], time: Tensor, segments: Sequence[Tensor]) -> Tensor:
    noisy = network.t_embedder(time * network.t_scale).type_as(images[-1])
    clean = network.t_embedder(torch.ones_like(time) * network.t_scale).type_as(images[-1])

    def through(layer: Any, x: Tensor, *others: Tensor) -> Tensor:
        if torch.is_grad_enabled() and network.gradient_checkpointing:
            return network._gradient_checkpointing_func(layer, x, *others)
        return layer(x, *others)

    words, word_places, word_pads, ends, start = [], [], [], [], 1
    for segment in segments:
        missing = -len(segment) % MULTIPLE
        words.append(pad(segment, (0, 0, 0, missing)))
        # diffusers gives padding its places twice, which moves those of all later segments: the model knows them so.
        word_places += [_places(network, (len(segment) + missing, 1, 1), start), segment.new_zeros(missing, 3).int()]
        word_pads.append(torch.arange(len(segment) + missing, device=segment.device) >= len(segment))
        ends.append(start + len(segment))
        start += len(segment) + 2
    parts, part_places, part_pads = [], [], []
    for image, end in zip(images, ends, strict=False):
        tokens = _patches(image)
        missing = -len(tokens) % MULTIPLE
        parts.append(pad(tokens, (0, 0, 0, missing)))
        grid = (image.shape[1], image.shape[2] // 2, image.shape[3] // 2)
        part_places += [_places(network, grid, end), tokens.new_zeros(missing, 3).int()]
        part_pads.append(torch.arange(len(tokens) + missing, device=tokens.device) >= len(tokens))

    sources = len(images) - 1
    seen = _noised(parts, sources)
    x = network.all_x_embedder["2-1"](torch.cat(parts))
    x = torch.where(torch.cat(part_pads)[:, None], network.x_pad_token, x)[None]
    x_rope = network.rope_embedder(torch.cat([place.to(x.device) for place in part_places]))[None]
    for layer in network.noise_refiner:
        x = through(partial(_modulated, layer), x, x_rope, seen, noisy, clean)

    text = network.cap_embedder(torch.cat(words))
    text = torch.where(torch.cat(word_pads)[:, None], network.cap_pad_token, text)[None]
    text_rope = network.rope_embedder(torch.cat([place.to(x.device) for place in word_places]))[None, : text.shape[1]]
    for layer in network.context_refiner:
        text = through(partial(_plain, layer), text, text_rope)

    joint, rope = torch.cat([text, x], 1), torch.cat([text_rope, x_rope], 1)
    noised = torch.cat([_noised(words, sources), seen], 1)
    for layer in network.layers:
        joint = through(partial(_modulated, layer), joint, rope, noised, noisy, clean)
    last = network.all_final_layer["2-1"]
    scale = 1.0 + _by_token(last.adaLN_modulation, noised, noisy, clean)
    target = last.linear(last.norm_final(joint) * scale)[0, -len(parts[-1]) :]
    return network.unpatchify([target], [tuple(images[-1].shape[1:])], 2, 1)[0]


def _plain(block: Any, x: Tensor, rope: Tensor) -> Tensor:
    return block(x, None, rope)


def _modulated(block: Any, x: Tensor, rope: Tensor, noised: Tensor, noisy: Tensor, clean: Tensor) -> Tensor:
    """A block's forward with two modulations: of the tokens that belong to noise, and of the others."""
    modulation = _by_token(block.adaLN_modulation, noised, noisy, clean)
    scale, gate, scale_after, gate_after = modulation.chunk(4, dim=-1)
    attended = block.attention(block.attention_norm1(x) * (1.0 + scale), attention_mask=None, freqs_cis=rope)
    x = x + gate.tanh() * block.attention_norm2(attended)
    return x + gate_after.tanh() * block.ffn_norm2(block.feed_forward(block.ffn_norm1(x) * (1.0 + scale_after)))


def _by_token(layer: Any, noised: Tensor, noisy: Tensor, clean: Tensor) -> Tensor:
    return torch.where(noised, layer(noisy)[:, None], layer(clean)[:, None])


def _noised(parts: Sequence[Tensor], sources: int) -> Tensor:
    """(1, tokens, 1): False on the parts that belong to a source."""
    marks = [torch.full((len(part),), number >= sources, device=part.device) for number, part in enumerate(parts)]
    return torch.cat(marks)[None, :, None]


def _places(network: Any, grid: tuple[int, int, int], start: int) -> Tensor:
    return network.create_coordinate_grid(size=grid, start=(start, 0, 0)).flatten(0, 2)


def _patches(image: Tensor) -> Tensor:
    channels, frames, height, width = image.shape
    cut = image.view(channels, frames, 1, height // 2, 2, width // 2, 2).permute(1, 3, 5, 2, 4, 6, 0)
    return cut.reshape(frames * height * width // 4, 4 * channels)
