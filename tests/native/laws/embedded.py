"""The embedded model as MODEL, CLIP and VAE says what its diffusers pipeline says, in stock samplers too."""

import logging
import tempfile

import comfy.sample
import torch
from comfy.sd import load_lora_for_models
from comfy_extras.nodes_model_merging import ModelMergeSimple
from pack.danceopd_core.algorithm.fields import guided
from pack.danceopd_core.data.csv_rows import Item
from pack.danceopd_core.models.registry import open_backbone
from pack.danceopd_core.models.sampling import integrate, seeded_noise
from pack.danceopd_core.recipe.graph import FieldSpec, ModelSpec, PromptSpec, RouteSpec, RoutesSpec
from pack.danceopd_core.recipe.schema import Bucket, Teacher
from pack.danceopd_core.runs.pictures.comparison import comparison_fields, comparison_stacks
from pack.danceopd_core.runs.pictures.field_sampling import SamplingSettings, sample_fields
from pack.danceopd_core.shapes import locate
from pack.nodes.native.backbone import opened
from pack.nodes.native.lora_names import passed_over, patched
from pack.nodes.native.shapes import shapes_clip, shapes_model, shapes_vae
from pack.nodes.native.source import NativeModel, NativeTeacher
from safetensors.torch import load_file, save_file

PROMPTS = ["a red circle and a blue square", "three big diamonds", ""]


def far(one, other):
    return float((one - other).norm() / other.norm())


with torch.inference_mode():  # as a loader node runs
    MODEL, CLIP, VAE = shapes_model(), shapes_clip(), shapes_vae()
OURS = open_backbone(locate("shapes"))
NATIVE = opened(MODEL, CLIP, VAE)


def test_prompts_have_the_same_embeddings():
    theirs, ours = NATIVE.encode(PROMPTS), OURS.encode(PROMPTS)
    for one, other in zip(theirs.samples, ours.samples, strict=True):
        assert one.values["text"].shape == other.values["text"].shape
        assert far(one.values["text"], other.values["text"]) < 1e-5
    assert far(NATIVE.prompt_embeddings(theirs), OURS.prompt_embeddings(ours)) < 1e-5


def test_text_to_image_velocities_are_equal():
    generator = torch.Generator().manual_seed(0)
    for width, height in ((64, 64), (64, 32)):
        assert NATIVE.latent_shape(width, height) == OURS.latent_shape(width, height)
        x = torch.randn(3, *OURS.latent_shape(width, height), generator=generator)
        sigma = torch.tensor([1.0, 0.6, 0.05])
        with torch.no_grad():
            theirs = NATIVE.velocity(x, sigma, NATIVE.encode(PROMPTS))
            ours = OURS.velocity(x, sigma, OURS.encode(PROMPTS))
        assert theirs.dtype == torch.float32
        assert far(theirs, ours) < 1e-5


def test_pictures_and_latents_are_equal():
    pictures = torch.rand(2, 32, 64, 3, generator=torch.Generator().manual_seed(1))
    latents = OURS.encode_image(pictures)
    assert far(NATIVE.encode_image(pictures), latents) < 1e-5
    assert far(NATIVE.decode(latents), OURS.decode(latents)) < 1e-5


def test_the_default_sigmas_are_those_of_the_pipeline():
    for steps in (4, 8, 20):
        assert torch.allclose(NATIVE.sigmas(steps, 64, 64), OURS.sigmas(steps, 64, 64), atol=1e-6)


def test_the_default_targets_are_the_layers_that_the_family_trains():
    assert set(NATIVE.default_targets) == {
        "attention.qkv", "attention.out", "feed_forward.w1", "feed_forward.w2", "feed_forward.w3",
    }  # fmt: skip


def test_the_stock_sampler_gives_the_picture_that_ours_gives():
    steps, scale = 6, 2.0
    cond = NATIVE.encode(PROMPTS[:1], negatives=[""])
    noise = seeded_noise(NATIVE.latent_shape(64, 64), [7])
    ours = integrate(guided(NATIVE.velocity, scale), noise, NATIVE.sigmas(steps, 64, 64), cond)
    with torch.inference_mode():
        positive, negative = (CLIP.encode_from_tokens_scheduled(CLIP.tokenize(text)) for text in (PROMPTS[0], ""))
        theirs = comfy.sample.sample(
            MODEL,
            noise,
            steps,
            scale,
            "euler",
            "simple",
            positive,
            negative,
            torch.zeros_like(noise),
            disable_pbar=True,
        )
        picture = VAE.decode(theirs)
    assert far(ours, theirs) < 1e-4
    assert far(NATIVE.decode(ours), picture) < 1e-4


def test_the_stock_empty_latent_fits():
    import nodes

    empty = nodes.EmptyLatentImage().generate(64, 32, 1)[0]
    with torch.inference_mode():
        fitted = comfy.sample.fix_empty_latent_channels(MODEL, empty["samples"], empty.get("downscale_ratio_spacial"))
    assert tuple(fitted.shape[1:]) == NATIVE.latent_shape(64, 32)


def test_an_edit_reaches_the_network_by_the_stock_node():
    source = torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(2))
    cond = NATIVE.encode(["make the circle red"], [[source]], negatives=[""])
    values = cond.samples[0].values
    assert values["reference_latents"][0].shape == (1, 16, 16, 16)
    assert len(values["reference_latents_text_embeds"]) == 2
    x = torch.randn(1, 16, 16, 16, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        edited = NATIVE.velocity(x, torch.tensor([0.7]), cond)
        plain = NATIVE.velocity(x, torch.tensor([0.7]), NATIVE.encode(["make the circle red"]))
    assert far(edited, plain) > 0.05


def test_a_batch_of_edits_gives_what_its_edits_give_alone():
    generator = torch.Generator().manual_seed(2)
    sources = [[torch.rand(64, 64, 3, generator=generator)] for _ in range(2)]
    cond = NATIVE.encode(["make the circle red", "remove the square"], sources)
    x, sigma = torch.randn(2, 16, 16, 16, generator=generator), torch.tensor([0.7, 0.2])
    with torch.no_grad():
        together = NATIVE.velocity(x, sigma, cond)
        for row in range(2):
            alone = NATIVE.velocity(x[row : row + 1], sigma[row : row + 1], cond.select([row]))
            assert far(together[row : row + 1], alone) < 1e-5


def test_previews_show_the_pictures_colours():
    latent_format = MODEL.model.latent_format
    pictures = torch.stack([torch.full((64, 64, 3), 0.8), torch.tensor([0.9, 0.2, 0.1]).expand(64, 64, 3)])
    latents = NATIVE.encode_image(pictures)
    factors, bias = (torch.tensor(v) for v in (latent_format.latent_rgb_factors, latent_format.latent_rgb_factors_bias))
    preview = (latents.movedim(1, -1) @ factors + bias + 1) / 2
    assert far(preview[:, 4:12, 4:12], pictures[:, ::4, ::4][:, 4:12, 4:12]) < 0.05


def test_the_model_given_is_untouched():
    assert NATIVE.model is not MODEL.model
    with torch.inference_mode(False):
        assert not next(NATIVE.network.parameters()).is_inference()
    for name, weight in MODEL.model.diffusion_model.state_dict().items():
        assert torch.equal(weight, NATIVE.network.state_dict()[name])


def test_the_keys_that_the_stock_loader_passes_over_are_found():
    """Those that it logs as not loaded."""
    for name in ("shapes:edit", "shapes:native_edit"):
        keys, count = passed_over(str(locate(name)), MODEL)
        assert (keys, count % 2) == ([], 0)
        assert count
    tensors = load_file(str(locate("shapes:native_edit")))
    odd = {key.replace("layers.0.", "layers.99."): tensor for key, tensor in tensors.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/odd.safetensors"
        save_file(odd, path)
        keys, count = passed_over(path, MODEL)
        logged = []
        handler = logging.Handler()
        handler.emit = lambda record: logged.append(record.getMessage())
        logging.getLogger().addHandler(handler)
        try:
            load_lora_for_models(MODEL, None, load_file(path), 1.0, 0.0)
        finally:
            logging.getLogger().removeHandler(handler)
    assert keys == [key for key in odd if ".99." in key]
    assert count == len(tensors)
    assert sum("lora key not loaded" in line for line in logged) == len(keys)


class Quiet:
    cancelled = KeyboardInterrupt

    def check(self): ...
    def progress(self, value, total): ...
    def preparing(self, done, total): ...


LIVE = NativeModel(MODEL, CLIP, VAE, "0123456789abcdef")
SPEC = ModelSpec(LIVE.name, LIVE.dtype, live=LIVE)
EDIT = ("shapes:native_edit", 0.5)


def field_of(patcher, label):
    model = NativeTeacher(patcher, label)
    return FieldSpec(SPEC, label, ((Teacher(checkpoint=model.name), 1.0),), (model,))


def routes_of(*fields):
    prompts = PromptSpec(Bucket(prompts=("a",)), "prompts")
    return RoutesSpec(tuple(RouteSpec(field, prompts) for field in fields))


def test_loras_on_models_are_stacked_as_a_chain_of_the_stock_loader():
    with torch.inference_mode():
        lit, edit = patched(MODEL, "shapes:lit"), patched(MODEL, *EDIT)
        chain = field_of(patched(lit, *EDIT), "chain")
    lit = field_of(lit, "lit")
    file = FieldSpec(SPEC, "file", ((Teacher(lora=EDIT[0], strength=EDIT[1]), 1.0),))
    settings = SamplingSettings(3, 64, 64, 7, "cpu")
    for second in (field_of(edit, "edit"), file, chain):  # what the chain shares with the first counts once
        routes = routes_of(lit, second)
        with torch.inference_mode():
            fields = comparison_fields(routes, None)
        assert list(fields) == ["base", "lit", second.label, "stacked"]
        assert comparison_stacks(routes) == {}
        asked = {"chain": chain, "lit": lit, "stacked": fields["stacked"]}
        with torch.no_grad():
            images = sample_fields(SPEC, asked, [Item(PROMPTS[0])], settings, Quiet())
        assert torch.allclose(images["stacked"], images["chain"], atol=1e-5), second.label
        assert not torch.allclose(images["stacked"], images["lit"], atol=1e-2), second.label


def test_only_loras_on_the_routes_own_model_are_stacked():
    with torch.inference_mode():
        lit, other = patched(MODEL, "shapes:lit"), patched(shapes_model(), *EDIT)
        (merged,) = ModelMergeSimple().merge(MODEL, patched(MODEL, *EDIT), 0.5)
    for patcher in (other, merged, MODEL, MODEL.clone()):
        fields = comparison_fields(routes_of(field_of(lit, "lit"), field_of(patcher, "other")), None)
        assert list(fields) == ["base", "lit", "other"]
    with torch.inference_mode():
        live = NativeModel(lit, CLIP, VAE, "fedcba9876543210")
        assert live.carries(NativeTeacher(patched(lit, *EDIT), "more"))
    assert not live.carries(NativeTeacher(MODEL, "less"))
    assert not live.carries(NativeTeacher(lit, "same"))
