"""The Z-Image transformer over a batch of equal layout, without its per-sample Python loops.

diffusers processes a Z-Image batch sample by sample, which dominates the time of a small model. The build of the
embedded model runs hundreds of thousands of samples of equal layout, so it calls the same layers on stacked tensors. A
test compares this with diffusers' own forward. Students are not trained through this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

PAD = 32  # Z-Image pads every caption segment to a multiple of this (SEQ_MULTI_OF)


def _pad(segments: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Caption segments, each (L, D), as one padded (S, D) and a mask (S,) that is True on padding."""
    rows, pads = [], []
    for segment in segments:
        missing = -len(segment) % PAD
        rows.append(torch.nn.functional.pad(segment, (0, 0, 0, missing)))
        pads.append(torch.arange(len(segment) + missing, device=segment.device) >= len(segment))
    return torch.cat(rows), torch.cat(pads)


@dataclass
class Texts:
    """Encoded captions of one layout on one device: index it with a LongTensor to take a batch.

    text (n, S, D), padding (n, S) bool, caption_rope (n, S, R) and image_rope (n, X, R) complex.
    """

    text: Tensor
    padding: Tensor
    caption_rope: Tensor
    image_rope: Tensor

    def __getitem__(self, rows: Tensor) -> Texts:
        return Texts(self.text[rows], self.padding[rows], self.caption_rope[rows], self.image_rope[rows])

    @classmethod
    def of(cls, network: Any, captions: list[tuple[Tensor, ...]], latent: Tensor, device: str | torch.device) -> Texts:
        """Captions as segments ((L, D),) for text-to-image or three for one source image; `latent` (C, H, W)."""
        ropes: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}
        rows = []
        for segments in captions:
            lengths = tuple(len(s) for s in segments)
            if lengths not in ropes:
                ropes[lengths] = _ropes(network, segments, latent)
            rows.append((*_pad(segments), *ropes[lengths]))
        return cls(*(torch.stack(column).to(device) for column in zip(*rows, strict=True)))


def _ropes(network: Any, segments: tuple[Tensor, ...], latent: Tensor) -> tuple[Tensor, Tensor]:
    """The rotary factors of a layout, from the network's own patchify of one sample."""
    image = latent.unsqueeze(1)
    if len(segments) == 1:
        _, cap, _, x_ids, cap_ids, _, _ = network.patchify_and_embed([image], [segments[0]], 2, 1)
        tokens = image.shape[-2] * image.shape[-1] // 4
    else:
        parts = network.patchify_and_embed_omni([[image, image]], [list(segments)], [None], 2, 1, [[0, 1]])
        cap, x_ids, cap_ids = parts[1], parts[4], parts[5]
        tokens = image.shape[-2] * image.shape[-1] // 2
    return network.rope_embedder(cap_ids[0])[: len(cap[0])], network.rope_embedder(x_ids[0])[:tokens]


def _patches(z: Tensor) -> Tensor:
    b, c, h, w = z.shape
    return z.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(b, h * w // 4, 4 * c)


def velocity(network: Any, x: Tensor, sigma: Tensor, texts: Texts, source: Tensor | None = None) -> Tensor:
    """v = noise - clean at x (B, C, H, W), sigma (B,); `source` (B, C, H, W) takes the multi-image path."""
    b, c, h, w = x.shape
    tokens = h * w // 4
    noisy = network.t_embedder((1 - sigma) * network.t_scale).type_as(x)
    modulation: tuple[Tensor | None, ...] = (noisy, None, None, None)
    images = _patches(x)
    if source is not None:
        clean = network.t_embedder(torch.ones_like(sigma) * network.t_scale).type_as(x)
        images = torch.cat([_patches(source), images], 1)
        noised = torch.ones(b, images.shape[1], dtype=torch.long, device=x.device)
        noised[:, :tokens] = 0
        modulation = (None, noised, noisy, clean)
    images = network.all_x_embedder["2-1"](images)
    for layer in network.noise_refiner:
        images = layer(images, None, texts.image_rope, *modulation)
    captions = network.cap_embedder(texts.text)
    captions = torch.where(texts.padding.unsqueeze(-1), network.cap_pad_token.to(captions.dtype), captions)
    for layer in network.context_refiner:
        captions = layer(captions, None, texts.caption_rope)
    if source is None:
        joint = torch.cat([images, captions], 1)
        rope = torch.cat([texts.image_rope, texts.caption_rope], 1)
        start, final = 0, {"c": noisy}
    else:
        joint = torch.cat([captions, images], 1)
        rope = torch.cat([texts.caption_rope, texts.image_rope], 1)
        ones = torch.ones(b, captions.shape[1], dtype=torch.long, device=x.device)
        ones[:, :PAD] = 0  # the segment before a clean image counts as clean
        whole = torch.cat([ones, noised], 1)
        modulation = (None, whole, noisy, clean)
        start, final = captions.shape[1] + tokens, {"noise_mask": whole, "c_noisy": noisy, "c_clean": clean}
    for layer in network.layers:
        joint = layer(joint, None, rope, *modulation)
    out = network.all_final_layer["2-1"](joint, **final)[:, start : start + tokens]
    out = out.view(b, h // 2, w // 2, 2, 2, c).permute(0, 5, 1, 3, 2, 4).reshape(b, c, h, w)
    return -out.float()
