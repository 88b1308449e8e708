"""Z-Image here is Z-Image as diffusers' own pipelines sample it."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from danceopd_core.algorithm.fields import guided
from danceopd_core.errors import InputError
from danceopd_core.models.loading import at_least
from danceopd_core.models.registry import open_backbone
from danceopd_core.models.vaes import KlVae
from danceopd_core.models.zimage_omni import forward_with_sources

from ..tiny import save_zimage
from ..versions import needs_diffusers
from .sampled import NEGATIVE, PROMPTS, STEPS, assert_a_batch_is_its_samples, euler, noise, pictures


def pipeline_of(backbone, cls=None, **parts):
    from diffusers import ZImagePipeline

    pipe = (cls or ZImagePipeline)(
        scheduler=copy.deepcopy(backbone.scheduler),
        vae=backbone.vae.module,
        text_encoder=backbone.text_encoder,
        tokenizer=backbone.tokenizer,
        transformer=backbone.network,
        **parts,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def omni_pipeline_of(backbone):
    from diffusers import ZImageOmniPipeline

    class Plain(ZImageOmniPipeline):
        """The omni pipeline around a transformer without SigLIP."""

        def prepare_siglip_embeds(self, images, batch_size, device, dtype):
            return [[] for _ in range(batch_size)]

    return pipeline_of(backbone, Plain, siglip=None, siglip_processor=None)


def evenly(steps):
    """The steps that the pipeline takes; before diffusers 0.39 it made the last two sigmas 0, so there it is told."""
    return {} if at_least("diffusers", "0.39") else {"sigmas": torch.linspace(1.0, 1 / steps, steps).tolist()}


def sampled(pipe, backbone, width, height, batch, guidance, **given):
    return pipe(
        **evenly(STEPS),
        width=width,
        height=height,
        num_inference_steps=STEPS,
        guidance_scale=guidance,
        latents=noise(backbone, width, height, batch),
        output_type="latent",
        **given,
    ).images


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("width", "height"), [(64, 64), (96, 64)])
def test_unguided_sampling_from_the_same_embeddings_is_bitwise_the_pipelines(zimage_folder, dtype, width, height):
    backbone = open_backbone(zimage_folder, dtype)
    cond = backbone.encode(PROMPTS)
    embeddings = [sample.values["text"] for sample in cond.samples]
    ours = euler(backbone, backbone.velocity, cond, width, height)
    theirs = sampled(pipeline_of(backbone), backbone, width, height, 2, 0, prompt_embeds=embeddings)
    assert ours.dtype == torch.float32
    assert ours.equal(theirs)


# The pipeline pads each text to 512 tokens and writes guidance as pos + g (pos - neg): rounding differs.
@pytest.mark.parametrize("guidance", [0, 3])
@pytest.mark.parametrize(("width", "height"), [(64, 64), (64, 96)])
def test_sampling_from_prompts_is_the_pipelines(opened_zimage, guidance, width, height):
    backbone = opened_zimage
    cond = backbone.encode(PROMPTS, negatives=[NEGATIVE])
    field = guided(backbone.velocity, guidance + 1, NEGATIVE)  # Z-Image counts guidance from 0
    ours = euler(backbone, field, cond, width, height)
    theirs = sampled(
        pipeline_of(backbone),
        backbone,
        width,
        height,
        2,
        guidance,
        prompt=list(PROMPTS),
        negative_prompt=[NEGATIVE] * 2,
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)
    unguided = euler(backbone, backbone.velocity, cond, width, height)
    assert guidance == 0 or (ours - unguided).abs().max() > 0.1


@needs_diffusers("0.39")  # the first whose pipeline keeps negatives and sources apart
@pytest.mark.parametrize("guidance", [0, 3])
@pytest.mark.parametrize("sizes", [[(64, 64)], [(96, 64), (64, 80)]])
def test_editing_is_the_omni_pipelines(opened_zimage, guidance, sizes):
    # That pipeline hands its VAE bfloat16 whatever the VAE's dtype.
    backbone = replace(opened_zimage, vae=KlVae(copy.deepcopy(opened_zimage.vae.module).bfloat16()))
    sources, images = pictures(*sizes)
    cond = backbone.encode(["make it blue"], [sources], [NEGATIVE])
    ours = euler(backbone, guided(backbone.velocity, guidance + 1, NEGATIVE), cond, 64, 48)
    theirs = sampled(
        omni_pipeline_of(backbone),
        backbone,
        64,
        48,
        1,
        guidance,
        image=list(images),
        prompt=["make it blue"],
        negative_prompt=[NEGATIVE],
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)
    other = backbone.encode(["make it blue"], [[1 - source for source in sources]], [NEGATIVE])
    changed = euler(backbone, guided(backbone.velocity, guidance + 1, NEGATIVE), other, 64, 48)
    assert (ours - changed).abs().max() > 1e-2


def test_a_batch_of_edits_and_texts_is_its_samples_one_by_one(opened_zimage):
    (one, two), _ = pictures((64, 64), (32, 48))
    sources = [[one], None, [one, two], []]
    prompts = ["make it blue", "a red cat", "join them", "a tree"]
    assert_a_batch_is_its_samples(opened_zimage, prompts, sources)


def test_a_prompts_encoding_does_not_depend_on_its_batch(opened_zimage):
    prompts = list(PROMPTS)
    together = opened_zimage.encode(prompts, negatives=[NEGATIVE, ""])
    assert prompts == PROMPTS
    for prompt, sample in zip(PROMPTS, together.samples, strict=True):
        assert opened_zimage.encode([prompt]).samples[0].values["text"].equal(sample.values["text"])
    assert (
        together.null(NEGATIVE)
        .samples[1]
        .values["text"]
        .equal(opened_zimage.encode([NEGATIVE]).samples[0].values["text"])
    )


def test_texts_are_cut_where_the_pipeline_cuts_them(opened_zimage):
    long = "cat " * 400
    theirs, _ = pipeline_of(opened_zimage).encode_prompt([long], do_classifier_free_guidance=False)
    ours = opened_zimage.encode([long]).samples[0].values["text"]
    assert len(ours) == 512
    torch.testing.assert_close(ours, theirs[0], rtol=0, atol=1e-5)


def test_the_decoder_is_the_pipelines(opened_zimage):
    latents = noise(opened_zimage, 64, 48, 2)
    pipe = pipeline_of(opened_zimage)
    embeddings = [sample.values["text"] for sample in opened_zimage.encode(PROMPTS).samples]
    theirs = pipe(
        prompt_embeds=embeddings,
        latents=latents,
        width=64,
        height=48,
        num_inference_steps=STEPS,
        guidance_scale=0,
        output_type="np",
        **evenly(STEPS),
    ).images
    cond = opened_zimage.encode(PROMPTS)
    ours = opened_zimage.decode(euler(opened_zimage, opened_zimage.velocity, cond, 64, 48))
    assert ours.shape == (2, 48, 64, 3)
    assert np.array_equal(ours.numpy(), theirs)


def test_the_sigmas_are_the_pipelines_for_the_size_and_leave_the_scheduler_alone(tmp_path):
    folder = save_zimage(tmp_path, use_dynamic_shifting=True, base_shift=0.4, max_shift=1.3)
    backbone = open_backbone(folder)
    before = backbone.scheduler.sigmas.clone()
    small, large = backbone.sigmas(5, 64, 64), backbone.sigmas(5, 512, 512)
    assert backbone.scheduler.sigmas.equal(before)
    assert not small.equal(large)
    pipe = pipeline_of(backbone)
    pipe("cat", width=64, height=64, num_inference_steps=5, guidance_scale=0, output_type="latent", **evenly(5))
    assert small.equal(pipe.scheduler.sigmas)
    for sigmas in (small, large):
        assert sigmas.dtype == torch.float32
        assert (sigmas[0], sigmas[-1]) == (1, 0)
        assert (sigmas.diff() < 0).all()


def test_every_part_is_frozen_and_in_the_given_dtype(zimage_folder):
    backbone = open_backbone(zimage_folder, torch.bfloat16)
    for part in (backbone.network, backbone.text_encoder, backbone.vae.module):
        assert {p.dtype for p in part.parameters()} == {torch.bfloat16}
        assert not any(p.requires_grad for p in part.parameters())
        assert not part.training


def test_a_size_that_does_not_fit_is_refused(opened_zimage):
    with pytest.raises(InputError, match=r"100 x 64 .*multiples of 16"):
        opened_zimage.latent_shape(100, 64)
    with pytest.raises(InputError, match=r"48 x 40 .*multiples of 16"):
        opened_zimage.encode(["cat"], [[torch.zeros(40, 48, 3)]])


def longest(backbone, pictures):
    """The longest prompt of one letter that is encoded, and the one that is a letter longer."""
    low, high = 1, 512
    while high - low > 1:
        middle = (low + high) // 2
        try:
            backbone.encode(["x" * middle], [pictures])
            low = middle
        except InputError:
            high = middle
    return "x" * low, "x" * high


@pytest.mark.parametrize("edit", [False, True])
def test_a_prompt_is_refused_exactly_where_the_network_has_no_more_positions(zimage, edit):
    backbone = zimage.with_network(zimage.network)
    backbone.network.register_to_config(axes_lens=[160, 64, 64])  # as a small network may have
    backbone.network.rope_embedder.axes_lens = [160, 64, 64]
    backbone.network.rope_embedder.freqs_cis = None
    pictures = [torch.zeros(32, 32, 3)] if edit else None
    fits, long = longest(backbone, pictures)
    x, sigma = torch.zeros(1, *backbone.latent_shape(32, 32)), torch.tensor([0.5])
    with torch.no_grad():
        assert backbone.velocity(x, sigma, backbone.encode([fits], [pictures])).isfinite().all()
        with pytest.raises(
            InputError, match=r"the prompt 'xxx.* is too long: it needs \d+ positions, .* has 160: shorten"
        ):
            backbone.encode([long], [pictures])
        backbone.network.register_to_config(axes_lens=[1024, 64, 64])
        with pytest.raises(IndexError):  # so it would have failed
            backbone.velocity(x, sigma, backbone.encode([long], [pictures]))


def test_a_picture_beyond_the_networks_positions_is_refused(opened_zimage):
    side = 64 * 16
    opened_zimage.latent_shape(side, 16)
    with pytest.raises(InputError, match=rf"16 x {side + 16} pixels: its sides are {side} at most"):
        opened_zimage.latent_shape(16, side + 16)


@needs_diffusers("0.37")
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("sizes", [[(16, 16)], [(16, 16), (10, 14)]])
def test_pictures_before_diffusers_took_them_are_answered_as_diffusers_does(zimage, sizes, checkpointing):
    network = zimage.network.requires_grad_(True)
    if checkpointing:
        network.train().enable_gradient_checkpointing()
    generator = torch.Generator().manual_seed(0)
    width, sources = network.config.cap_feat_dim, len(sizes)
    drawn = [torch.randn(16, 1, *size, generator=generator) for size in (*sizes, (16, 12))]
    texts = [[torch.randn(length, width, generator=generator) for length in (4, *[3] * (sources - 1), 31, 2)]]
    time = torch.tensor([0.3])
    given = {"siglip_feats": [None], "image_noise_mask": [[0] * sources + [1]], "return_dict": False}
    gradients = []
    for answer in (
        lambda: network([drawn], time, texts, **given),
        lambda: forward_with_sources(network, [drawn], time, texts),
    ):
        ((v,),) = answer()
        v.square().mean().backward()
        gradients.append((v, [p.grad for p in network.parameters()]))
        network.zero_grad()
    (theirs, their_gradients), (ours, our_gradients) = gradients
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    torch.testing.assert_close(our_gradients, their_gradients, rtol=1e-4, atol=1e-6)
