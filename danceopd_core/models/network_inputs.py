"""How a batch becomes the transformer's inputs: samples that share a call are grouped, latents become tokens."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor, nn

from ..algorithm.fields import Conditioning, Sample
from ..algorithm.flow import rows_of


def call_by_group(
    group_key: Callable[[Sample], Hashable],
    call: Callable[[Tensor, Tensor, Conditioning], Tensor],
    x: Tensor,
    sigma: Tensor,
    cond: Conditioning,
) -> Tensor:
    """`call` on a batch, once per group of samples with the same key; rows stay in order.

    The networks take one layout of image positions per call, so samples with different sources cannot share one.
    """
    groups: dict[Hashable, list[int]] = {}
    for row, sample in enumerate(cond.samples):
        groups.setdefault(group_key(sample), []).append(row)
    if len(groups) == 1:
        return call(x, sigma, cond)
    answers: dict[int, Tensor] = {}
    for rows in groups.values():
        answer = call(rows_of(x, rows), rows_of(sigma, rows), cond.select(rows))
        answers |= zip(rows, answer.split(1), strict=True)
    return torch.cat([answers[row] for row in range(len(x))])


def source_shapes(sample: Sample) -> tuple[torch.Size, ...]:
    """The shapes of a sample's source latents, a key for `call_by_group`."""
    return tuple(latents.shape for latents in sample.values.get("sources", ()))


def text_layout(sample: Sample, apart: bool) -> Hashable:
    """A key for `call_by_group`: sources, and the length of the text if texts of different lengths are to be apart.

    Texts of one length need no mask, with which attention leaves its fast kernels on a GPU.
    """
    return source_shapes(sample), len(sample.values["text"]) if apart else 0


def padded_texts(texts: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Texts (tokens, D) as a batch (B, longest, D), and its mask as of `text_mask`; None if all are of one length."""
    lengths = [len(text) for text in texts]
    mask = text_mask(lengths, texts[0].device) if len(set(lengths)) > 1 else None
    return nn.utils.rnn.pad_sequence(list(texts), batch_first=True), mask


def positions(device: torch.device, frame: int, *sizes: int) -> Tensor:
    """The (frame, row, column, ...) of each token, (tokens, 1 + axes), made on the device. sizes: of the other axes."""
    others = (torch.arange(size, device=device) for size in sizes)
    return torch.cartesian_prod(torch.full((1,), frame, device=device), *others)


def text_mask(lengths: Sequence[int], device: torch.device) -> Tensor:
    """(B, longest), True at the tokens of each text."""
    return torch.arange(max(lengths), device=device) < torch.tensor(lengths, device=device)[:, None]


def pack_latents(latents: Tensor) -> Tensor:
    """Latents (B, C, h, w) as tokens (B, h w / 4, 4 C), one per patch of 2 x 2, row by row."""
    return nn.functional.pixel_unshuffle(latents, 2).flatten(2).transpose(1, 2)


def unpack_latents(tokens: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `pack_latents` for latents of this height and width."""
    patches = tokens.transpose(1, 2).unflatten(2, (height // 2, width // 2))
    return nn.functional.pixel_shuffle(patches, 2)
