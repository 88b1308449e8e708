"""Qwen-Image here is Qwen-Image as diffusers' own pipelines sample it."""

import copy
import json
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from danceopd_core.errors import InputError
from danceopd_core.models.loading import at_least
from danceopd_core.models.network_inputs import unpack_latents
from danceopd_core.models.registry import open_backbone

from ..tiny_families import save_qwen
from ..versions import needs_diffusers
from .sampled import NEGATIVE, PROMPTS, STEPS, assert_a_batch_is_its_samples, euler, noise, pictures

PLUS = "QwenImageEditPlusPipeline"
# Before diffusers 0.37 the pipelines read the padding of the shorter text too.
PROMPTS = [*PROMPTS] if at_least("diffusers", "0.37") else [PROMPTS[1], PROMPTS[1]]


def small(backbone):
    """The backbone with sources of a size for tests."""
    return replace(backbone, editing=backbone.editing._replace(encoder_area=56**2, vae_area=64**2))


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    return open_backbone(save_qwen(tmp_path_factory.mktemp("qwen")))


@pytest.fixture(scope="module")
def plus(tmp_path_factory):
    return small(open_backbone(save_qwen(tmp_path_factory.mktemp("plus"), PLUS)))


class Processor:
    """The images' half of Qwen2VLProcessor, which transformers does not build without torchvision."""

    def __init__(self, tokenizer, image_processor):
        self.tokenizer, self.image_processor = tokenizer, image_processor

    def __call__(self, text, images=None, padding=True, return_tensors="pt"):
        from transformers import BatchFeature

        features = dict(self.image_processor(images=images, return_tensors="pt"))
        counts = iter((features["image_grid_thw"].prod(1) // 4).tolist())
        for row, line in enumerate(text):
            first, *rest = line.split("<|image_pad|>")
            text[row] = first + "".join("<|image_pad|>" * next(counts) + part for part in rest)
        return BatchFeature({**self.tokenizer(text, padding=padding, return_tensors="pt"), **features})


def pipeline_of(backbone, name="QwenImagePipeline"):
    import diffusers

    more = {}
    if name != "QwenImagePipeline":
        more["processor"] = Processor(backbone.tokenizer, backbone.image_processor)
    pipe = getattr(diffusers, name)(
        scheduler=copy.deepcopy(backbone.scheduler),
        vae=backbone.vae.module,
        text_encoder=backbone.text_encoder,
        tokenizer=backbone.tokenizer,
        transformer=backbone.network,
        **more,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@contextmanager
def patches_in_rows_and_columns(text_encoder):
    """What the pipelines leave out: with it transformers 5 numbers patches as the models were trained."""

    def add(module, args, given):
        if given.get("pixel_values") is not None:
            given.setdefault("mm_token_type_ids", (given["input_ids"] == module.config.image_token_id).int())
        return args, given

    handle = text_encoder.register_forward_pre_hook(add, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def sampled(pipe, backbone, width, height, prompts, guidance=1.0, **given):
    """The pipeline's latents, unpacked by the pipeline."""
    x = noise(backbone, width, height, len(prompts))
    with patches_in_rows_and_columns(backbone.text_encoder):
        answer = pipe(
            prompt=list(prompts),
            negative_prompt=[NEGATIVE] * len(prompts),
            true_cfg_scale=guidance,
            width=width,
            height=height,
            num_inference_steps=STEPS,
            latents=pipe._pack_latents(x.unsqueeze(1), *x.shape),
            output_type="latent",
            **given,
        ).images
    return pipe._unpack_latents(answer, height, width, pipe.vae_scale_factor).squeeze(2)


def rescaled(pipe, field, scale):
    """The pipelines' guidance: each patch keeps the length of its unguided velocity."""

    def velocity(x, sigma, cond):
        v, null = (
            pipe._pack_latents(answer, *answer.shape)
            for answer in (field(x, sigma, cond), field(x, sigma, cond.null(NEGATIVE)))
        )
        both = null + scale * (v - null)
        return unpack_latents(both * (v.norm(dim=-1, keepdim=True) / both.norm(dim=-1, keepdim=True)), *x.shape[2:])

    return velocity if scale > 1 else field


@pytest.mark.parametrize("guidance", [1, 4])
@pytest.mark.parametrize(("width", "height"), [(64, 64), (96, 64)])
def test_sampling_is_the_pipelines(qwen, guidance, width, height):
    pipe = pipeline_of(qwen)
    cond = qwen.encode(PROMPTS, negatives=[NEGATIVE])
    ours = euler(qwen, rescaled(pipe, qwen.velocity, guidance), cond, width, height)
    assert ours.dtype == torch.float32
    theirs = sampled(pipe, qwen, width, height, PROMPTS, guidance)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)
    other = euler(qwen, qwen.velocity, cond.null(NEGATIVE), width, height)
    assert (ours - other).abs().max() > 1e-2


def test_a_network_in_bfloat16_is_called_as_in_the_pipeline(tmp_path):
    half = open_backbone(save_qwen(tmp_path), torch.bfloat16)
    ours = euler(half, half.velocity, half.encode(PROMPTS[1:]), 64, 96, kept=torch.bfloat16)
    assert ours.equal(sampled(pipeline_of(half), half, 64, 96, PROMPTS[1:]).float())


def test_texts_are_cut_where_the_pipeline_cuts_them(qwen):
    long = "cat " * 300
    theirs, _ = pipeline_of(qwen).encode_prompt([long], max_sequence_length=512)
    ours = qwen.encode([long]).samples[0].values["text"]
    assert len(ours) == 512
    torch.testing.assert_close(ours, theirs[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("zero_cond_t", [False, pytest.param(True, marks=needs_diffusers("0.37"))])
@pytest.mark.parametrize("guidance", [1, 4])
@pytest.mark.parametrize("sizes", [[(64, 64)], [(96, 64), (64, 128)]])
def test_editing_is_edit_pluss(tmp_path, monkeypatch, zero_cond_t, guidance, sizes):
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as theirs_at

    monkeypatch.setattr(theirs_at, "CONDITION_IMAGE_SIZE", 56**2)
    monkeypatch.setattr(theirs_at, "VAE_IMAGE_SIZE", 64**2)
    backbone = small(open_backbone(save_qwen(tmp_path, PLUS, zero_cond_t)))
    pipe = pipeline_of(backbone, PLUS)
    sources, images = pictures(*sizes)
    cond = backbone.encode(["make it blue"], [sources], [NEGATIVE])
    ours = euler(backbone, rescaled(pipe, backbone.velocity, guidance), cond, 96, 64)
    theirs = sampled(pipe, backbone, 96, 64, ["make it blue"], guidance, image=images)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)
    other = backbone.encode(["make it blue"], [[1 - source for source in sources]], [NEGATIVE])
    changed = euler(backbone, rescaled(pipe, backbone.velocity, guidance), other, 96, 64)
    assert (ours - changed).abs().max() > 1e-3


@pytest.mark.skipif(at_least("diffusers", "0.37"), reason="diffusers knows what it is")
def test_sources_with_a_time_of_their_own_are_refused_where_diffusers_would_ignore_it(tmp_path):
    config = save_qwen(tmp_path, PLUS) / "transformer" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "zero_cond_t": True}))
    with pytest.raises(InputError, match=r"diffusers 0\.37"):
        open_backbone(tmp_path)


def test_editing_is_edits(tmp_path, monkeypatch):
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit as theirs_at

    sized = theirs_at.calculate_dimensions
    monkeypatch.setattr(theirs_at, "calculate_dimensions", lambda area, ratio: sized(64**2, ratio))
    backbone = open_backbone(save_qwen(tmp_path, "QwenImageEditPipeline"))
    backbone = replace(backbone, editing=backbone.editing._replace(encoder_area=64**2, vae_area=64**2))
    sources, images = pictures((64, 96))
    ours = euler(backbone, backbone.velocity, backbone.encode(["make it blue"], [sources]), 64, 64)
    theirs = sampled(
        pipeline_of(backbone, "QwenImageEditPipeline"), backbone, 64, 64, ["make it blue"], image=images[0]
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)
    with pytest.raises(InputError, match=r"at most 1 source pictures.* has 2"):
        backbone.encode(["make it blue"], [sources * 2])


@torch.no_grad()
def test_the_text_encoder_numbers_patches_by_row_and_column(plus):
    from PIL import Image

    (picture,), (image,) = pictures((64, 64))
    pipe = pipeline_of(plus, PLUS)
    seen = [image.resize((64, 64), Image.Resampling.LANCZOS)]
    ours = plus.encode(["make it blue"], [[picture]]).samples[0].values["text"]
    in_a_line, _ = pipe.encode_prompt("make it blue", image=seen)
    with patches_in_rows_and_columns(plus.text_encoder):
        in_rows, _ = pipe.encode_prompt("make it blue", image=seen)
    torch.testing.assert_close(ours, in_rows[0], rtol=0, atol=1e-5)
    # transformers 4 finds the pictures by itself.
    assert at_least("transformers", "5") == ((ours - in_a_line[0]).abs().max() > 1e-3)


def test_a_prompt_without_pictures_is_encoded_the_same_by_every_model(qwen, plus):
    ours, theirs = (backbone.encode(PROMPTS[:1]).samples[0].values["text"] for backbone in (plus, qwen))
    assert ours.equal(theirs)


def test_a_batch_of_edits_and_texts_is_its_samples_one_by_one(plus):
    (one, two), _ = pictures((64, 64), (32, 96))
    sources = [[one], None, [two], [one, two], [1 - one]]
    assert_a_batch_is_its_samples(plus, ["make it blue", "a tree", "red", "join them", "make it a dark green"], sources)


@torch.no_grad()
def test_pictures_are_encoded_and_decoded_as_in_the_pipeline(plus):
    (picture,), (image,) = pictures((96, 64))
    pipe = pipeline_of(plus, PLUS)
    latents = pipe._encode_vae_image(pipe.image_processor.preprocess(image).unsqueeze(2), torch.Generator())
    assert plus.encode_image(picture[None]).equal(latents.squeeze(2))
    x = noise(plus, 64, 48, 2)
    theirs = pipeline_of(plus)(
        prompt=PROMPTS,
        width=64,
        height=48,
        num_inference_steps=STEPS,
        true_cfg_scale=1.0,
        latents=pipe._pack_latents(x, *x.shape),
        output_type="pt",
    ).images
    ours = plus.decode(euler(plus, plus.velocity, plus.encode(PROMPTS), 64, 48))
    torch.testing.assert_close(ours, theirs.permute(0, 2, 3, 1), rtol=0, atol=1e-5)


def test_a_text_to_image_model_refuses_sources(qwen):
    sources, _ = pictures((64, 64))
    with pytest.raises(InputError, match=r"at most 0 source pictures"):
        qwen.encode(["make it blue"], [sources])
