"""Krea 2 here is Krea 2 as diffusers' own pipeline samples it."""

import copy
import json
import shutil

import pytest
import torch

from danceopd_core.algorithm.fields import guided
from danceopd_core.errors import InputError
from danceopd_core.models import registry
from danceopd_core.models.agreement import disagreements, text_layers
from danceopd_core.models.few_steps import own_steps
from danceopd_core.models.network_inputs import pack_latents, unpack_latents
from danceopd_core.models.registry import open_backbone

from ..tiny_families import save_krea2
from ..versions import needs_diffusers
from .hostile import changed
from .sampled import NEGATIVE, PROMPTS, STEPS, assert_a_batch_is_its_samples, euler, noise, pictures

pytestmark = needs_diffusers("0.39")
FULL = "a prompt with as many tokens as the pipeline takes, and then some. " * 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_krea2(tmp_path_factory.mktemp("krea2"))


@pytest.fixture(scope="module")
def krea(folder):
    return open_backbone(folder)


def pipeline_of(backbone):
    from diffusers import Krea2Pipeline

    pipe = Krea2Pipeline(
        scheduler=copy.deepcopy(backbone.scheduler),
        vae=backbone.vae.module,
        text_encoder=backbone.text_encoder,
        tokenizer=backbone.tokenizer,
        transformer=backbone.network,
        text_encoder_select_layers=backbone.layers,
        is_distilled=backbone.distilled,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def sampled(backbone, width, height, prompts, guidance=1.0, **given):
    """The pipeline's latents; its guidance_scale is one less than ours."""
    x = noise(backbone, width, height, len(prompts))
    latents = pipeline_of(backbone)(
        prompt=list(prompts),
        guidance_scale=guidance - 1,
        width=width,
        height=height,
        num_inference_steps=STEPS,
        latents=pack_latents(x),
        output_type="latent",
        **given,
    ).images
    return unpack_latents(latents, *x.shape[2:])


def test_sampling_is_the_pipelines_bit_for_bit(krea):
    """Of texts that are as long as the pipeline pads them: keys that are masked still change how sums are rounded."""
    negative = NEGATIVE * 100
    cond = krea.encode([FULL], negatives=[negative])
    assert len(cond.samples[0].values["text"]) == len(cond.null(negative).samples[0].values["text"]) >= 512
    assert euler(krea, krea.velocity, cond, 96, 64).equal(sampled(krea, 96, 64, [FULL]))

    def field(x, sigma, cond):  # `guided` makes one call of both, to another rounding
        given = krea.velocity(x, sigma, cond)
        return given + 3 * (given - krea.velocity(x, sigma, cond.null(negative)))

    ours = euler(krea, field, cond, 96, 64)
    assert ours.equal(sampled(krea, 96, 64, [FULL], 4, negative_prompt=negative))
    torch.testing.assert_close(ours, euler(krea, guided(krea.velocity, 4, negative), cond, 96, 64), rtol=0, atol=5e-5)
    assert (ours - euler(krea, krea.velocity, cond.null(negative), 96, 64)).abs().max() > 1e-2


def test_texts_without_their_padding_are_sampled_as_in_the_pipeline(krea):
    cond = krea.encode(PROMPTS)
    theirs, mask = pipeline_of(krea).get_text_hidden_states(list(PROMPTS))
    for sample, stack, own in zip(cond.samples, theirs, mask, strict=True):
        assert sample.values["text"].equal(stack[own].flatten(1))
    ours = euler(krea, krea.velocity, cond, 64, 96)
    torch.testing.assert_close(ours, sampled(krea, 64, 96, PROMPTS), rtol=0, atol=5e-5)


def test_a_network_in_bfloat16_is_called_as_in_the_pipeline(folder):
    half = open_backbone(folder, torch.bfloat16)
    norms = {name for name, p in half.network.named_parameters() if p.dtype == torch.float32}
    assert {name.split(".")[-2].rstrip("12") for name in norms} == {"norm", "norm_q", "norm_k"}
    assert {p.dtype for name, p in half.network.named_parameters() if name not in norms} == {torch.bfloat16}
    ours = euler(half, half.velocity, half.encode([FULL]), 64, 64, kept=torch.bfloat16).bfloat16()
    assert ours.equal(sampled(half, 64, 64, [FULL]))


def test_a_distilled_model_has_its_steps_and_one_shift_for_every_size(folder, tmp_path):
    turbo = shutil.copytree(folder, tmp_path / "turbo")
    changed(turbo / "model_index.json", is_distilled=True)
    assert (own_steps(folder), own_steps(turbo)) == (None, 8)
    distilled = open_backbone(turbo)
    assert distilled.sigmas(8, 64, 64).equal(distilled.sigmas(8, 1024, 512))
    ours = euler(distilled, distilled.velocity, distilled.encode([FULL]), 64, 64)
    assert ours.equal(sampled(distilled, 64, 64, [FULL]))


def test_a_batch_is_its_samples_one_by_one(krea):
    assert_a_batch_is_its_samples(krea, ["blue", "a tree in a garden", "red"], [None] * 3)


@torch.no_grad()
def test_pictures_are_decoded_as_in_the_pipeline(krea):
    (picture,), _ = pictures((96, 64))
    latents = krea.encode_image(picture[None])
    pipe = pipeline_of(krea)
    raw = krea.vae.module.encode(picture.permute(2, 0, 1)[None, :, None] * 2 - 1).latent_dist.mode()
    mean, std = krea.vae._statistics(raw)
    assert latents.equal(((raw - mean) / std)[:, :, 0])
    decoded = krea.vae.module.decode(latents.unsqueeze(2) / (1 / std) + mean, return_dict=False)[0][:, :, 0]
    assert krea.decode(latents).equal(pipe.image_processor.postprocess(decoded, "pt").permute(0, 2, 3, 1))


def test_source_pictures_are_refused(krea):
    with pytest.raises(InputError, match=r"Krea 2 model edits at most 0 source pictures"):
        krea.encode(["blue"], [[torch.zeros(64, 64, 3)]])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"text_encoder_select_layers": [1, 2, 3]}, r"num_text_layers: 2, and the layers of the .* selects: 3"),
        ({"text_encoder_select_layers": [1, 4]}, r"up to the last that is used: 3, and those layers: 4"),
        ({"text_encoder_select_layers": "all"}, r"text_encoder_select_layers is 'all', expected a list"),
        ({"patch_size": 1}, r"patch_size is 1, expected 2"),
        ({"is_distilled": "yes"}, r"is_distilled is 'yes', expected true or false"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(folder, tmp_path, settings, message):
    model = shutil.copytree(folder, tmp_path / "model")
    changed(model / "model_index.json", **settings)
    with pytest.raises(InputError, match=message):
        open_backbone(model)


def test_an_index_without_layers_means_the_released_ones(folder, tmp_path):
    model = shutil.copytree(folder, tmp_path / "model")
    index = json.loads((folder / "model_index.json").read_text())
    del index["text_encoder_select_layers"]
    (model / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"selects: 12"):
        open_backbone(model)
    from diffusers import Krea2Pipeline

    assert text_layers({}) == Krea2Pipeline(None, None, None, None, None).text_encoder_select_layers


def test_heads_that_form_no_groups_are_refused(folder):
    from diffusers import Krea2Transformer2DModel

    config = json.loads((folder / "transformer" / "config.json").read_text())
    with torch.device("meta"):
        network = Krea2Transformer2DModel.from_config({**config, "num_attention_heads": 5, "num_key_value_heads": 2})
    told = "the num_attention_heads of the transformer: 5, and the heads of whole groups, one for each of its"
    assert [line.startswith(told) for line in disagreements({"transformer": network})] == [True]


def test_an_older_diffusers_is_told_which_it_needs(folder, monkeypatch):
    monkeypatch.setattr(registry, "at_least", lambda package, release: False)
    with pytest.raises(InputError, match=r"is of a Krea2Pipeline, which needs diffusers 0\.39, .*installed: pip"):
        open_backbone(folder)
