"""Attention with sound gradients: passes that are differentiated leave cuDNN's kernels out.

cuDNN's backward pass gives gradients of NaN for some shapes, as FLUX in bfloat16 had on an H100 with torch 2.11, which
takes it there by default (PyTorch issue 196678 is such a case). Passes without gradients, nearly all of an update,
keep the faster kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from .fields import Conditioning, VelocityField


@contextmanager
def sound_attention() -> Iterator[None]:
    """A block in which attention is computed by other kernels than cuDNN's."""
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


def with_sound_attention(field: VelocityField) -> VelocityField:
    """The field; its calls that are differentiated are made in `sound_attention`, in which their backward pass has to
    run too, since it may compute layers again."""

    def velocity(x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor:
        if not torch.is_grad_enabled():
            return field(x, sigma, cond)
        with sound_attention():
            return field(x, sigma, cond)

    return velocity
