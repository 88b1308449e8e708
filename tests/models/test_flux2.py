"""FLUX.2 klein here is FLUX.2 klein as diffusers' own pipeline samples it."""

import copy
import json
import shutil

import pytest
import torch
from torch.nn.functional import pixel_shuffle

from danceopd_core.algorithm.fields import guided
from danceopd_core.errors import InputError
from danceopd_core.models import registry
from danceopd_core.models.flux2 import LARGEST_SOURCE, _within_area, empirical_mu
from danceopd_core.models.registry import open_backbone

from ..tiny_families import save_flux2
from ..versions import needs_diffusers
from .hostile import changed
from .sampled import PROMPTS, STEPS, assert_a_batch_is_its_samples, euler, noise, pictures

pytestmark = needs_diffusers("0.37")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_flux2(tmp_path_factory.mktemp("klein"))


@pytest.fixture(scope="module")
def klein(folder):
    return open_backbone(folder)


def pipeline_of(backbone, folder):
    from diffusers import Flux2KleinPipeline
    from transformers import Qwen3ForCausalLM

    pipe = Flux2KleinPipeline(
        scheduler=copy.deepcopy(backbone.scheduler),
        vae=backbone.vae.module,
        text_encoder=Qwen3ForCausalLM.from_pretrained(folder / "text_encoder", dtype=backbone.dtype),
        tokenizer=backbone.tokenizer,
        transformer=backbone.network,
        is_distilled=json.loads((folder / "model_index.json").read_text())["is_distilled"],
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def sampled(backbone, folder, width, height, prompts, guidance=1.0, **given):
    """The pipeline's latents, which it returns as its VAE decodes them."""
    return pipeline_of(backbone, folder)(
        prompt=list(prompts),
        guidance_scale=guidance,
        width=width,
        height=height,
        num_inference_steps=STEPS,
        latents=noise(backbone, width, height, len(prompts)),
        output_type="latent",
        **given,
    ).images


def for_the_vae(backbone, x):
    mean, std = backbone.vae._statistics(x)
    return pixel_shuffle(x * std + mean, 2)


def guided_in_two_calls(klein, guidance):
    """`guided`, which makes one call of both, to another rounding."""

    def field(x, sigma, cond):
        base = klein.velocity(x, sigma, cond.null(""))
        return base + guidance * (klein.velocity(x, sigma, cond) - base)

    return field


def test_sampling_is_the_pipelines_bit_for_bit(klein, folder):
    cond = klein.encode(PROMPTS[:1], negatives=[""])
    for field, guidance in ((klein.velocity, 1), (guided_in_two_calls(klein, 4), 4)):
        ours = euler(klein, field, cond, 96, 64)
        assert for_the_vae(klein, ours).equal(sampled(klein, folder, 96, 64, PROMPTS[:1], guidance))
    torch.testing.assert_close(ours, euler(klein, guided(klein.velocity, 4, ""), cond, 96, 64), rtol=0, atol=2e-5)
    other = euler(klein, klein.velocity, cond.null(""), 96, 64)
    assert (ours - other).abs().max() > 1e-2


def test_a_batch_is_sampled_as_in_the_pipeline(klein, folder):
    ours = euler(klein, klein.velocity, klein.encode(PROMPTS), 64, 96)
    theirs = sampled(klein, folder, 64, 96, PROMPTS)
    torch.testing.assert_close(for_the_vae(klein, ours), theirs, rtol=0, atol=2e-5)


def test_a_network_in_bfloat16_is_called_as_in_the_pipeline(folder):
    half = open_backbone(folder, torch.bfloat16)
    ours = euler(half, half.velocity, half.encode(PROMPTS[1:]), 64, 64, kept=torch.bfloat16).bfloat16()
    assert for_the_vae(half, ours).equal(sampled(half, folder, 64, 64, PROMPTS[1:]))


@pytest.mark.parametrize("sizes", [((96, 64),), ((64, 64), (80, 96))])
def test_edits_of_one_and_several_pictures_are_the_pipelines_bit_for_bit(klein, folder, sizes):
    sources, images = pictures(*sizes)
    cond, field = klein.encode(PROMPTS[:1], [sources], [""]), guided_in_two_calls(klein, 3)
    ours = euler(klein, field, cond, 64, 80)
    assert for_the_vae(klein, ours).equal(sampled(klein, folder, 64, 80, PROMPTS[:1], 3, image=images))
    other = klein.encode(PROMPTS[:1], [[1 - sources[0], *sources[1:]]], [""])
    assert (ours - euler(klein, field, other, 64, 80)).abs().max() > 1e-3


def test_a_source_larger_than_the_pipeline_takes_is_made_smaller_as_there(klein, folder):
    ((picture,), (image,)) = pictures((1504, 1200))
    processor = pipeline_of(klein, folder).image_processor
    small = processor._resize_to_target_area(image, LARGEST_SOURCE)
    width, height = (side // 16 * 16 for side in small.size)
    theirs = processor.preprocess(small, height=height, width=width, resize_mode="crop")
    assert (_within_area(picture, 16).permute(2, 0, 1)[None] * 2 - 1).equal(theirs)


def test_a_batch_of_edits_and_texts_is_its_samples_one_by_one(klein):
    (one, two), _ = pictures((64, 64), (32, 48))
    assert_a_batch_is_its_samples(klein, ["blue", "a tree", "red", "green"], [[one], None, [two], [one, two]])


@torch.no_grad()
def test_pictures_are_encoded_and_decoded_as_in_the_pipeline(klein, folder):
    (picture,), (image,) = pictures((96, 64))
    pipe = pipeline_of(klein, folder)
    latents = pipe._encode_vae_image(pipe.image_processor.preprocess(image), torch.Generator())
    assert klein.encode_image(picture[None]).equal(latents)
    decoded = pipe.vae.decode(for_the_vae(klein, latents)).sample
    assert torch.equal(klein.decode(latents), pipe.image_processor.postprocess(decoded, "pt").permute(0, 2, 3, 1))


def test_the_shift_is_the_pipelines_for_every_size_and_number_of_steps():
    from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

    for tokens in (16, 4096, 4300, 4301, 16384):
        for steps in (1, 4, 16, 50):
            assert empirical_mu(tokens, steps) == compute_empirical_mu(tokens, steps)


def test_an_encoder_with_too_few_layers_is_refused(folder, tmp_path):
    model = shutil.copytree(folder, tmp_path / "model")
    changed(model / "text_encoder" / "config.json", num_hidden_layers=26, layer_types=None)
    with pytest.raises(InputError, match=r"the layers of the text_encoder up to the last that is used: 26"):
        open_backbone(model)


def test_an_older_diffusers_is_told_which_it_needs(folder, monkeypatch):
    monkeypatch.setattr(registry, "at_least", lambda package, release: False)
    with pytest.raises(InputError, match=r"is of a Flux2KleinPipeline, which needs diffusers 0\.37, .*installed: pip"):
        open_backbone(folder)
