"""Stable Diffusion 3 here is Stable Diffusion 3 as diffusers' own pipeline samples it."""

import copy

import numpy as np
import pytest
import torch

from danceopd_core.algorithm.fields import guided
from danceopd_core.errors import InputError
from danceopd_core.models.registry import open_backbone

from ..tiny_families import DYNAMIC, save_sd3
from .sampled import NEGATIVE, PROMPTS, STEPS, euler, noise, pictures


@pytest.fixture(scope="module")
def sd3(tmp_path_factory):
    return open_backbone(save_sd3(tmp_path_factory.mktemp("sd3")))


def sampled(backbone, width, height, prompts, guidance=1.0, **given):
    from diffusers import StableDiffusion3Pipeline

    (first, second), third = backbone.clips, backbone.t5 or (None, None)
    pipe = StableDiffusion3Pipeline(
        transformer=backbone.network,
        scheduler=copy.deepcopy(backbone.scheduler),
        vae=backbone.vae.module,
        text_encoder=first[0],
        tokenizer=first[1],
        text_encoder_2=second[0],
        tokenizer_2=second[1],
        text_encoder_3=third[0],
        tokenizer_3=third[1],
    )
    pipe.set_progress_bar_config(disable=True)
    settings = {"output_type": "latent", "negative_prompt": [NEGATIVE] * len(prompts), **given}
    return pipe(
        list(prompts),
        width=width,
        height=height,
        num_inference_steps=STEPS,
        guidance_scale=guidance,
        latents=noise(backbone, width, height, len(prompts)),
        **settings,
    ).images


@pytest.mark.parametrize("guidance", [1, 4.5])
@pytest.mark.parametrize(("width", "height"), [(64, 64), (96, 64)])
def test_sampling_is_the_pipelines(sd3, guidance, width, height):
    cond = sd3.encode(PROMPTS, negatives=[NEGATIVE])
    ours = euler(sd3, guided(sd3.velocity, guidance, NEGATIVE), cond, width, height)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, sampled(sd3, width, height, PROMPTS, guidance), rtol=0, atol=2e-5)
    other = euler(sd3, sd3.velocity, cond.null(NEGATIVE), width, height)
    assert (ours - other).abs().max() > 1e-2


def test_a_network_in_bfloat16_is_called_as_in_the_pipeline(tmp_path):
    half = open_backbone(save_sd3(tmp_path), torch.bfloat16)
    ours = euler(half, half.velocity, half.encode(PROMPTS[1:]), 64, 96, kept=torch.bfloat16)
    assert ours.equal(sampled(half, 64, 96, PROMPTS[1:]).float())


def test_without_the_third_encoder_its_part_is_zeros_as_in_the_pipeline(tmp_path):
    backbone = open_backbone(save_sd3(tmp_path, t5=False))
    ours = euler(backbone, backbone.velocity, backbone.encode(PROMPTS), 64, 64)
    torch.testing.assert_close(ours, sampled(backbone, 64, 64, PROMPTS), rtol=0, atol=2e-5)


def test_sizes_shift_the_sigmas_where_the_scheduler_says_so(tmp_path):
    backbone = open_backbone(save_sd3(tmp_path, **DYNAMIC))
    assert not backbone.sigmas(5, 64, 64).equal(backbone.sigmas(5, 512, 512))
    ours = euler(backbone, backbone.velocity, backbone.encode(PROMPTS[:1]), 64, 96)
    torch.testing.assert_close(ours, sampled(backbone, 64, 96, PROMPTS[:1]), rtol=0, atol=2e-5)


def test_the_decoder_is_the_pipelines(sd3):
    ours = sd3.decode(euler(sd3, sd3.velocity, sd3.encode(PROMPTS), 64, 48))
    theirs = sampled(sd3, 64, 48, PROMPTS, output_type="np")
    assert ours.shape == (2, 48, 64, 3)
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=0, atol=1e-5)


def test_a_source_is_refused(sd3):
    sources, _ = pictures((64, 64))
    with pytest.raises(InputError, match=r"at most 0 source pictures.*'make it blue' has 1"):
        sd3.encode(["a cat", "make it blue"], [None, sources])
