"""A picture is decoded where it fits, and the same picture in tiles."""

from __future__ import annotations

import pytest
import torch

from danceopd_core.models.decoding import decode_at, decode_nearby
from danceopd_core.models.vaes import KlVae

from ..tiny import kl_vae, randomize


class Exhausted(KlVae):
    """A VAE on a device without memory. limit: `whole` for whole pictures, `all` for any but on the CPU."""

    limit = "whole"

    def decode(self, latents):
        calls.append(self.module.use_tiling)
        if (self.limit == "all" and len(calls) < 3) or (self.limit == "whole" and not self.module.use_tiling):
            raise torch.OutOfMemoryError("no memory")
        return super().decode(latents)


calls: list[bool] = []


@pytest.fixture
def module():
    calls.clear()
    return randomize(kl_vae(scaling_factor=0.4, shift_factor=0.1), 0).eval()


@torch.no_grad()
def test_tiles_where_a_whole_picture_does_not_fit(module):
    latents = torch.randn(1, 16, 80, 72, generator=torch.Generator().manual_seed(0))
    whole = KlVae(module).decode(latents)
    tiled = decode_at(Exhausted(module), latents, "cpu:0")
    assert calls == [False, True]
    assert tiled.shape == whole.shape
    assert not tiled.equal(whole)
    assert (tiled - whole).norm() < 0.2 * whole.norm()  # random weights see further than trained ones
    assert not module.use_tiling
    assert KlVae(module).decode(latents).equal(whole)


@torch.no_grad()
def test_the_cpu_where_nothing_fits(module):
    vae, latents = Exhausted(module), torch.randn(1, 16, 8, 8)
    vae.__dict__["limit"] = "all"
    assert decode_at(vae, latents, "cpu:0").equal(KlVae(module).decode(latents))
    assert calls == [False, True, False]


@torch.no_grad()
def test_other_faults_are_raised(module):
    with pytest.raises(RuntimeError, match="channels"):
        decode_at(KlVae(module), torch.randn(1, 3, 8, 8), "cpu:0")


@torch.no_grad()
def test_on_the_cpu_a_batch_is_decoded_as_before(module):
    latents = torch.randn(2, 16, 8, 8)
    assert decode_nearby(KlVae(module), latents).equal(KlVae(module).decode(latents))
