"""The parts of the embedded model's build: batched forward, tokenizer, latent projection, training items."""

from __future__ import annotations

import torch

from danceopd_core.research.shapes_build import architecture, batched
from danceopd_core.research.shapes_build.projection import Projection
from danceopd_core.research.shapes_build.training_data import sample_items
from danceopd_core.shapes.language import vocabulary

from ..versions import needs_diffusers


def random_network() -> torch.nn.Module:
    torch.manual_seed(0)
    network = architecture.transformer(64, 2, 2)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=p[0].numel() ** -0.5 if p.ndim > 1 else 0.2)
    return network


@needs_diffusers("0.37")
def test_the_batched_forward_equals_that_of_diffusers():
    network = random_network()
    x, source = torch.randn(2, 3, architecture.CHANNELS, 16, 16)
    sigma = torch.tensor([0.1, 0.5, 0.9])
    captions = [torch.randn(length, architecture.TEXT_WIDTH) for length in (11, 20, 32)]
    with torch.no_grad():
        texts = batched.Texts.of(network, [(c,) for c in captions], x[0], "cpu")
        mine = batched.velocity(network, x, sigma, texts)
        theirs = network(list(x.unsqueeze(2)), 1 - sigma, captions, return_dict=False)[0]
        assert torch.equal(mine, -torch.stack(theirs).squeeze(2))
        segments = [
            (torch.randn(4, architecture.TEXT_WIDTH), c, torch.randn(2, architecture.TEXT_WIDTH)) for c in captions
        ]
        texts = batched.Texts.of(network, segments, x[0], "cpu")
        mine = batched.velocity(network, x, sigma, texts, source)
        theirs = network(
            [[s.unsqueeze(1), z.unsqueeze(1)] for s, z in zip(source, x, strict=True)],
            1 - sigma,
            [list(s) for s in segments],
            siglip_feats=[None] * 3,
            image_noise_mask=[[0, 1]] * 3,
            return_dict=False,
        )[0]
        assert torch.equal(mine, -torch.stack(theirs).squeeze(2))


def test_every_word_is_one_token():
    tokenizer = architecture.tokenizer()
    for word in vocabulary():
        assert len(tokenizer(f"x {word}").input_ids) == 2 or word == "x", word


def test_the_projection_keeps_most_of_an_image_and_has_unit_power():
    images = sample_items(("count",), 1000, 3).images
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    project = Projection.of(x[:500])
    z = project(x[500:])
    assert z.shape == (500, architecture.CHANNELS, 16, 16)
    assert 0.8 < z.square().mean() < 1.2
    assert (project.invert(z) - x[500:]).abs().mean() < 0.04


def test_training_items_are_repeatable_from_their_seed():
    first, again, other = (sample_items(("replace",), 1000, seed) for seed in (1, 1, 2))
    assert first.texts == again.texts != other.texts
    assert (first.sources == again.sources).all()
