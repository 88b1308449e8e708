"""Qwen-Image-2.1 here is Qwen-Image-2.1 as diffusers' own pipeline samples it."""

import copy
import shutil
from dataclasses import replace

import pytest
import torch

from danceopd_core.algorithm.fields import guided
from danceopd_core.errors import InputError
from danceopd_core.models import registry
from danceopd_core.models.few_steps import own_steps
from danceopd_core.models.qwen21 import SYSTEM
from danceopd_core.models.registry import open_backbone

from ..tiny_families import save_qwen21
from ..versions import needs_diffusers
from .hostile import changed
from .sampled import NEGATIVE, PROMPTS, STEPS, assert_a_batch_is_its_samples, euler, noise, pictures

pytestmark = needs_diffusers("0.41")
SIDE = 64
TURBO = [1.0, 0.978, 0.895, 0.704, 0.414]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_qwen21(tmp_path_factory.mktemp("qwen21"))


def small(folder, dtype=torch.float32):
    """With sources of a size for tests."""
    return replace(open_backbone(folder, dtype), source_area=SIDE**2)


@pytest.fixture(scope="module")
def qwen(folder):
    return small(folder)


class Processor:
    """What the pipeline asks of a Qwen3VLProcessor, which transformers does not build without torchvision."""

    def __init__(self, tokenizer, image_processor):
        self.tokenizer, self.image_processor = tokenizer, image_processor

    def apply_chat_template(self, messages, tokenize, return_dict):
        assert f"<|im_start|>system\n{messages[0]['content'][0]['text']}<|im_end|>\n" == SYSTEM
        return [self.tokenizer(SYSTEM).input_ids]

    def __call__(self, text, images=None, **settings):
        from transformers import BatchFeature

        features = {}
        if images:
            features = dict(self.image_processor(images=images, return_tensors="pt"))
            counts = iter((features["image_grid_thw"].prod(1) // 4).tolist())
            for row, line in enumerate(text):
                first, *rest = line.split("<|image_pad|>")
                text[row] = first + "".join("<|image_pad|>" * next(counts) + part for part in rest)
        tokens = self.tokenizer(text, **settings)
        number = self.tokenizer.convert_tokens_to_ids("<|image_pad|>")
        types = {"mm_token_type_ids": (tokens.input_ids == number).int()}
        return BatchFeature({**tokens, **features, **types})


def pipeline_of(backbone, folder):
    from diffusers import QwenImage21Pipeline
    from transformers import Qwen3VLForConditionalGeneration

    pipe = QwenImage21Pipeline(
        scheduler=copy.deepcopy(backbone.scheduler),
        vae=backbone.vae.module,
        text_encoder=Qwen3VLForConditionalGeneration.from_pretrained(folder / "text_encoder", dtype=backbone.dtype),
        processor=Processor(backbone.tokenizer, backbone.image_processor),
        transformer=backbone.network,
        sample_sigmas=list(backbone.sample_sigmas) or None,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def sampled(backbone, folder, width, height, prompts, guidance=1.0, **given):
    x = noise(backbone, width, height, len(prompts))
    latents = pipeline_of(backbone, folder)(
        prompt=list(prompts),
        negative_prompt=[NEGATIVE] * len(prompts),
        true_cfg_scale=guidance,
        width=width,
        height=height,
        num_inference_steps=STEPS,
        latents=x.flatten(2).transpose(1, 2),
        output_type="latent",
        output_resolution=SIDE,
        **{"use_kv_cache": False, **given},
    ).images
    return latents.transpose(1, 2).unflatten(2, x.shape[2:])


def guided_in_two_calls(qwen, guidance):
    """`guided`, which makes one call of both, to another rounding."""

    def field(x, sigma, cond):
        base = qwen.velocity(x, sigma, cond.null(NEGATIVE))
        return base + guidance * (qwen.velocity(x, sigma, cond) - base)

    return field


def test_sampling_is_the_pipelines_bit_for_bit(qwen, folder):
    cond = qwen.encode(PROMPTS[:1], negatives=[NEGATIVE])
    for field, guidance in ((qwen.velocity, 1), (guided_in_two_calls(qwen, 4), 4)):
        ours = euler(qwen, field, cond, 96, 64)
        assert ours.equal(sampled(qwen, folder, 96, 64, PROMPTS[:1], guidance))
    torch.testing.assert_close(ours, euler(qwen, guided(qwen.velocity, 4, NEGATIVE), cond, 96, 64), rtol=0, atol=2e-5)
    assert (ours - euler(qwen, qwen.velocity, cond.null(NEGATIVE), 96, 64)).abs().max() > 1e-2


def test_what_the_pipeline_keeps_from_its_first_step_is_the_same(qwen, folder):
    ours = euler(qwen, qwen.velocity, qwen.encode(PROMPTS[:1]), 64, 64)
    kept = sampled(qwen, folder, 64, 64, PROMPTS[:1], use_kv_cache=True)
    torch.testing.assert_close(ours, kept, rtol=0, atol=2e-5)


def test_a_network_in_bfloat16_is_called_as_in_the_pipeline(folder):
    half = small(folder, torch.bfloat16)
    ours = euler(half, half.velocity, half.encode(PROMPTS[1:]), 64, 64, kept=torch.bfloat16).bfloat16()
    assert ours.equal(sampled(half, folder, 64, 64, PROMPTS[1:]))


@pytest.mark.parametrize("sizes", [((96, 64),), ((64, 64), (80, 96))])
def test_edits_of_one_and_several_pictures_are_the_pipelines_bit_for_bit(qwen, folder, sizes):
    sources, images = pictures(*sizes)
    cond, field = qwen.encode(PROMPTS[:1], [sources], [NEGATIVE]), guided_in_two_calls(qwen, 3)
    ours = euler(qwen, field, cond, 64, 96)
    assert ours.equal(sampled(qwen, folder, 64, 96, PROMPTS[:1], 3, image=images))
    other = qwen.encode(PROMPTS[:1], [[1 - sources[0], *sources[1:]]], [NEGATIVE])
    assert (ours - euler(qwen, field, other, 64, 96)).abs().max() > 1e-3


def test_the_text_encoder_sees_the_source(qwen):
    (one,), _ = pictures((64, 64))
    texts = [qwen.encode(["blue"], [[picture]]).samples[0].values["text"] for picture in (one, 1 - one)]
    assert [len(text) for text in texts] == [2, 2]
    assert texts[0][0].equal(texts[1][0])  # what is before the picture
    assert not texts[0][1].equal(texts[1][1])


def test_a_batch_of_edits_and_texts_is_its_samples_one_by_one(qwen):
    (one, two), _ = pictures((64, 64), (32, 48))
    assert_a_batch_is_its_samples(qwen, ["blue", "a tree", "red", "green"], [[one], None, [two], [one, two]])


def test_a_model_of_few_steps_samples_at_its_own_sigmas(tmp_path):
    folder = save_qwen21(tmp_path, TURBO)
    turbo = small(folder)
    assert own_steps(folder) == STEPS
    assert turbo.sigmas(STEPS, 64, 64).tolist() == pytest.approx([*TURBO, 0])
    assert turbo.sigmas(2, 64, 64).tolist() == pytest.approx([1, 0.5, 0])
    ours = euler(turbo, turbo.velocity, turbo.encode(PROMPTS[:1]), 64, 64)
    assert ours.equal(sampled(turbo, folder, 64, 64, PROMPTS[:1]))


@torch.no_grad()
def test_pictures_are_encoded_as_in_the_pipeline_and_decoded_onto_white(qwen, folder):
    (picture,), (image,) = pictures((96, 64))
    pipe = pipeline_of(qwen, folder)
    pixels = pipe.image_processor.preprocess(image.convert("RGBA"), width=96, height=64).unsqueeze(2)
    latents = qwen.encode_image(picture[None])
    assert latents.equal(pipe._encode_vae_image(pixels, torch.Generator())[:, :, 0])
    mean, std = qwen.vae._statistics(latents)
    decoded = pipe.vae.decode(latents.unsqueeze(2) * std + mean, return_dict=False)[0][:, :, 0]
    red, green, blue, alpha = pipe.image_processor.postprocess(decoded, "pt")[0]
    assert alpha.min() < 0.9
    ours = qwen.decode(latents)[0]
    for channel, color in zip(ours.unbind(-1), (red, green, blue), strict=True):
        torch.testing.assert_close(channel, color * alpha + 1 - alpha, rtol=0, atol=1e-6)


def test_an_empty_prompt_is_a_space(qwen, folder):
    embedded, _, _ = pipeline_of(qwen, folder).encode_prompt([""])
    assert qwen.encode([""]).samples[0].values["text"].equal(embedded[0])


@pytest.mark.parametrize(
    ("file", "settings", "message"),
    [
        (
            "model_index.json",
            {"sample_sigmas": [1.0, 0.0]},
            r"sample_sigmas is a list of 2, expected a list of 1 to 1000",
        ),
        ("vae/config.json", {"dim_mult": [1, 2, 2]}, r"dim_mult is a list of 3, expected a list of 5"),
        ("processor/preprocessor_config.json", {"patch_size": 14}, r"processor\.patch_size: 14"),
    ],
)
def test_settings_that_do_not_fit_are_refused(folder, tmp_path, file, settings, message):
    model = shutil.copytree(folder, tmp_path / "model")
    changed(model / file, **settings)
    with pytest.raises(InputError, match=message):
        open_backbone(model)


def test_an_older_diffusers_is_told_which_it_needs(folder, monkeypatch):
    monkeypatch.setattr(registry, "at_least", lambda package, release: False)
    with pytest.raises(InputError, match=r"is of a QwenImage21Pipeline, which needs diffusers 0\.41, .*installed: pip"):
        open_backbone(folder)
