"""FLUX.1 here is FLUX.1 as diffusers' own pipelines sample it."""

import copy
from dataclasses import replace

import pytest
import torch

from danceopd_core.algorithm.fields import guided
from danceopd_core.errors import InputError
from danceopd_core.models.registry import open_backbone

from ..tiny_families import save_flux
from .sampled import NEGATIVE, PROMPTS, STEPS, assert_a_batch_is_its_samples, euler, noise, pictures


@pytest.fixture(scope="module")
def flux(tmp_path_factory):
    return open_backbone(save_flux(tmp_path_factory.mktemp("flux")))


@pytest.fixture(scope="module")
def kontext(tmp_path_factory):
    return open_backbone(save_flux(tmp_path_factory.mktemp("kontext"), "FluxKontextPipeline"))


def pipeline_of(backbone):
    from diffusers import FluxKontextPipeline, FluxPipeline

    pipe = (FluxKontextPipeline if backbone.edits else FluxPipeline)(
        scheduler=copy.deepcopy(backbone.scheduler),
        vae=backbone.vae.module,
        text_encoder=backbone.text_encoder,
        tokenizer=backbone.tokenizer,
        text_encoder_2=backbone.text_encoder_2,
        tokenizer_2=backbone.tokenizer_2,
        transformer=backbone.network,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def sampled(backbone, width, height, prompts, guidance=1.0, **given):
    """The pipeline's latents, unpacked by the pipeline."""
    pipe = pipeline_of(backbone)
    x = noise(backbone, width, height, len(prompts))
    answer = pipe(
        prompt=list(prompts),
        negative_prompt=[NEGATIVE] * len(prompts),
        true_cfg_scale=guidance,
        width=width,
        height=height,
        num_inference_steps=STEPS,
        latents=pipe._pack_latents(x, *x.shape),
        output_type="latent",
        **given,
    ).images
    return pipe._unpack_latents(answer, height, width, pipe.vae_scale_factor)


@pytest.mark.parametrize("guidance", [1, 3])
@pytest.mark.parametrize(("width", "height"), [(64, 64), (96, 64)])
def test_sampling_is_the_pipelines(flux, guidance, width, height):
    cond = flux.encode(PROMPTS, negatives=[NEGATIVE])
    ours = euler(flux, guided(flux.velocity, guidance, NEGATIVE), cond, width, height)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, sampled(flux, width, height, PROMPTS, guidance), rtol=0, atol=2e-5)
    other = euler(flux, flux.velocity, cond.null(NEGATIVE), width, height)
    assert (ours - other).abs().max() > 1e-2


def test_a_network_in_bfloat16_is_called_as_in_the_pipeline(tmp_path):
    half = open_backbone(save_flux(tmp_path), torch.bfloat16)
    ours = euler(half, half.velocity, half.encode(PROMPTS[1:]), 64, 96, kept=torch.bfloat16)
    assert ours.equal(sampled(half, 64, 96, PROMPTS[1:]).float())


def test_the_embedded_guidance_is_an_input(flux):
    strong = replace(flux, guidance=7.0)
    cond = flux.encode(PROMPTS)
    ours = euler(strong, strong.velocity, cond, 64, 64)
    torch.testing.assert_close(ours, sampled(flux, 64, 64, PROMPTS, guidance_scale=7.0), rtol=0, atol=2e-5)
    assert (ours - euler(flux, flux.velocity, cond, 64, 64)).abs().max() > 1e-3


def test_a_model_without_embedded_guidance_is_given_none(tmp_path):
    backbone = open_backbone(save_flux(tmp_path, guidance=False))
    ours = euler(backbone, backbone.velocity, backbone.encode(PROMPTS), 64, 64)
    torch.testing.assert_close(ours, sampled(backbone, 64, 64, PROMPTS), rtol=0, atol=2e-5)


@pytest.mark.parametrize("guidance", [1, 3])
def test_editing_is_kontexts(kontext, guidance):
    sources, (image,) = pictures((96, 64))
    cond = kontext.encode(PROMPTS, [sources] * 2, [NEGATIVE])
    ours = euler(kontext, guided(kontext.velocity, guidance, NEGATIVE), cond, 64, 80)
    theirs = sampled(kontext, 64, 80, PROMPTS, guidance, image=image, max_area=64 * 80, _auto_resize=False)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)
    other = kontext.encode(PROMPTS, [[1 - sources[0]]] * 2, [NEGATIVE])
    changed = euler(kontext, guided(kontext.velocity, guidance, NEGATIVE), other, 64, 80)
    assert (ours - changed).abs().max() > 1e-3


def test_kontext_generates_without_a_source(kontext):
    ours = euler(kontext, kontext.velocity, kontext.encode(PROMPTS), 64, 64)
    torch.testing.assert_close(ours, sampled(kontext, 64, 64, PROMPTS, max_area=64 * 64), rtol=0, atol=2e-5)


def test_a_batch_of_edits_and_texts_is_its_samples_one_by_one(kontext):
    (one, two), _ = pictures((64, 64), (32, 48))
    assert_a_batch_is_its_samples(kontext, ["blue", "a tree", "red", "green"], [[one], None, [two], [one]])


@torch.no_grad()
def test_pictures_are_encoded_and_decoded_as_in_the_pipeline(kontext):
    (picture,), (image,) = pictures((96, 64))
    pipe = pipeline_of(kontext)
    latents = pipe._encode_vae_image(pipe.image_processor.preprocess(image), torch.Generator())
    assert kontext.encode_image(picture[None]).equal(latents)
    config = pipe.vae.config
    decoded = pipe.vae.decode(latents / config.scaling_factor + config.shift_factor).sample
    assert torch.equal(kontext.decode(latents), pipe.image_processor.postprocess(decoded, "pt").permute(0, 2, 3, 1))


def test_too_many_sources_are_refused(flux, kontext):
    sources, _ = pictures((64, 64), (64, 64))
    with pytest.raises(InputError, match=r"at most 0 source pictures"):
        flux.encode(["make it blue"], [sources[:1]])
    with pytest.raises(InputError, match=r"at most 1 source pictures.* has 2"):
        kontext.encode(["make it blue"], [sources])
