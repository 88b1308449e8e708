# ruff: noqa: PT017 (run without pytest)
"""Every family is asked and trained by the same code, and every model class of ComfyUI is either trained or refused."""

import re

import comfy.sample
import comfy.supported_models
import comfyui_version
import torch
from pack.danceopd_core.algorithm.fields import Conditioning, Sample
from pack.danceopd_core.errors import InputError
from pack.danceopd_core.models.sampling import integrate, seeded_noise
from pack.danceopd_core.weights.adapters import STUDENT, Adapters
from pack.nodes.native.conditioning import conditioning_of, settings_tensor
from pack.nodes.native.opening import untrainable
from pack_laws.configs import CONFIGS
from pack_laws.loras import GENERATOR, random_lora
from pack_laws.tiny_models import DEVICE, fresh_backbone, prompts, sizes, state, tiny_backbone, tiny_model

EDITS = {
    "Flux", "Flux2", "FluxSchnell", "LongCatImage", "QwenImage", "ZImage", "Krea2", "MageFlow", "JoyImage", "Omnigen2",
    "Boogu", "ZImagePixelSpace",
}  # fmt: skip
"""What takes source pictures."""
FEATURES = re.compile(r"att|mlp|ff|feed_forward|^linear[12]$")
VIDEO = "a video model; Wan 2.1 and 2.2, HunyuanVideo and LTXV stand for them"
UNBUILT = {
    "GenmoMochi": "its code demands its real widths",
    "HunyuanVideo15": VIDEO, "HunyuanVideo15_SR_Distilled": VIDEO, "HunyuanVideoI2V": VIDEO,
    "HunyuanVideoSkyreelsI2V": VIDEO, "Kandinsky5": VIDEO, "WAN21_Camera": VIDEO, "WAN21_CausalAR_T2V": VIDEO,
    "WAN21_FunControl2V": VIDEO, "WAN21_HuMo": VIDEO, "WAN21_I2V": VIDEO, "WAN21_SCAIL": VIDEO, "WAN21_SCAIL2": VIDEO,
    "WAN21_Vace": VIDEO, "WAN22_Animate": VIDEO, "WAN22_Camera": VIDEO, "WAN22_S2V": VIDEO, "WAN22_WanDancer": VIDEO,
    "WAN_Animate2": VIDEO,
}  # fmt: skip
"""What is taken by its sampling and latent format, but has no tiny network here, and why."""


def far(one, other):
    return float((one - other).norm() / other.norm())


def test_the_velocity_is_the_networks_output():
    """v = (x - denoised) / sigma undoes ComfyUI's denoised = x - output sigma."""
    for name in CONFIGS:
        backbone = tiny_backbone(name)
        x, sigma = state(backbone, 2)
        outputs = []
        hook = backbone.network.register_forward_hook(lambda module, inputs, output, kept=outputs: kept.append(output))
        with torch.no_grad():
            velocity = backbone.velocity(x, sigma, prompts(name))
        hook.remove()
        assert velocity.shape == x.shape
        assert velocity.dtype == torch.float32
        assert torch.isfinite(velocity).all()
        assert far(velocity, torch.cat(outputs) / backbone.space.noise_scale) < 1e-5, name


def test_the_default_targets_are_the_layers_of_features():
    """Attention and feed-forward of the repeated blocks, and nothing that makes scales, gates or prepares a text."""
    for name in CONFIGS:
        targets = tiny_backbone(name).default_targets
        assert len(targets) > 1, name
        odd = [end for end in targets if not FEATURES.search(end)]
        assert not odd, (name, odd)


def test_a_batch_gives_what_its_samples_give_alone():
    """Also with texts of unequal length, which ComfyUI does not join."""
    for name in CONFIGS:
        backbone = tiny_backbone(name)
        x, sigma = state(backbone, 3)
        cond = prompts(name, 3)
        longer = dict(cond.samples[1].values)
        for key in {"text", "attention_mask", "text_input_ids"} & longer.keys():
            longer[key] = torch.cat([longer[key]] * 2, 0 if key == "text" else 1)
        cond = Conditioning((cond.samples[0], Sample(longer), cond.samples[2]))
        with torch.no_grad():
            together = backbone.velocity(x, sigma, cond)
            for row in range(3):
                alone = backbone.velocity(x[row : row + 1], sigma[row : row + 1], cond.select([row]))
                assert far(together[row : row + 1], alone) < 1e-4, (name, row)


def test_the_stock_sampler_walks_the_same_path():
    """KSampler's euler from the same noise ends where our Euler steps end, in 4-d and 5-d latents, edits too."""
    for name, edits in (*((name, False) for name in CONFIGS), ("Flux", True), ("Flux2", True), ("QwenImage", True)):
        backbone = tiny_backbone(name)
        width, height = sizes(backbone)
        shape = backbone.latent_shape(width, height)
        references = (torch.randn(1, *shape, generator=torch.Generator().manual_seed(5)),)
        cond = prompts(name, 1, **({"reference_latents": references} if edits else {}))
        noise = seeded_noise(shape, [3])
        ours = integrate(backbone.velocity, noise, backbone.sigmas(4, width, height), cond)
        with torch.inference_mode():
            ((text, extras),) = conditioning_of(cond.samples[0])
            given = [[text.clone(), {key: value if edits else value.clone() for key, value in extras.items()}]]
            theirs = comfy.sample.sample(
                tiny_model(name), noise, 4, 1.0, "euler", "simple", given, given, torch.zeros_like(noise),
                disable_pbar=True,
            )  # fmt: skip
        assert far(backbone.model.process_latent_out(ours * backbone.space.noise_scale), theirs) < 1e-3, (name, edits)


def test_an_answer_does_not_depend_on_what_was_asked_before():
    """HiDream-O1 keeps the keys and values of a prompt between calls, which are those of the LoRA that was asked."""
    for name in CONFIGS:
        x, sigma = state(tiny_backbone(name))
        cond = prompts(name)
        answers = []
        for asked in ((STUDENT,), (None, STUDENT)):
            backbone = fresh_backbone(name)
            adapters = Adapters(backbone.network, DEVICE, torch.float32)
            GENERATOR.manual_seed(0)
            adapters.start_student(random_lora(backbone))
            with torch.no_grad():
                given = [adapters.field(backbone.velocity, one)(x, sigma, cond) for one in asked]
            answers.append(given[-1])
        assert far(given[0], answers[0]) > 1e-3, name
        assert torch.equal(*answers), name


def test_references_are_used_or_refused():
    """One, two, and of unequal sizes in one batch."""
    taken = []
    for name in CONFIGS.keys() - {"Lumina2"}:  # ComfyUI itself fails there: the network has no padding tokens
        backbone = tiny_backbone(name)
        x, sigma = state(backbone, 2)
        shape = backbone.latent_shape(*sizes(backbone))
        one = torch.randn(1, *shape, generator=torch.Generator().manual_seed(5))
        method = {"settings": settings_tensor({"reference_latents_method": "index"})} if name == "Krea2" else {}
        wide = torch.cat([one, one], -1)
        plain = prompts(name, 2)
        cond = Conditioning(
            (
                Sample({**plain.samples[0].values, "reference_latents": (one,), **method}),
                Sample({**plain.samples[1].values, "reference_latents": (one, wide), **method}),
            )
        )
        with torch.no_grad():
            try:
                edited = backbone.velocity(x, sigma, cond)
            except InputError as error:
                assert "takes no source pictures" in str(error), name
                continue
            assert far(edited, backbone.velocity(x, sigma, plain)) > 1e-3, name
            for row in range(2):
                alone = backbone.velocity(x[row : row + 1], sigma[row : row + 1], cond.select([row]))
                assert far(edited[row : row + 1], alone) < 1e-4, name
        taken.append(name)
    assert set(taken) == EDITS & CONFIGS.keys(), set(taken) ^ EDITS


def test_every_model_class_of_comfyui_is_trained_or_refused_with_a_reason():
    """By its sampling and latent format; every one that is trained is built here, or it is said why not."""
    from comfy.model_base import ModelType, model_sampling

    reasons = {}
    for config in comfy.supported_models.models:
        kind = declared_type(config, ModelType)
        if kind is None:
            reasons[config.__name__] = "its kind of sampling depends on the file"
            continue
        sampling = model_sampling(type("Settings", (), {"sampling_settings": dict(config.sampling_settings)}), kind)
        reasons[config.__name__] = untrainable(sampling, config.latent_format())
    trained = sorted(name for name, reason in reasons.items() if not reason)
    print("trained:", ", ".join(trained))
    for reason in sorted(set(reasons.values()) - {""}):
        print(f"not trained, {reason}:", ", ".join(sorted(n for n, r in reasons.items() if r == reason)))
    known = {name for name in CONFIGS.keys() | UNBUILT.keys() if name in reasons}
    assert known <= set(trained), known - set(trained)
    new = set(trained) - known
    print("trained, but without a law in this ComfyUI:", ", ".join(sorted(new)))
    assert not new or comfyui_version.__version__ != "0.33.0", new
    assert not CONFIGS.keys() & UNBUILT.keys()
    refused = (
        "SAM3", "TripoSplat", "MiniMaxH3", "ACEStep", "SDXL", "SD15", "Stable_Cascade_C", "StableAudio",
        "SVD_img2vid", "CosmosT2IPredict2", "WAN21_FlowRVS", "LTXAV",
    )  # fmt: skip
    for name in refused:
        assert reasons.get(name, "not in this ComfyUI"), name


def declared_type(config, types):
    """The kind of sampling with which the class makes its model, read where it would be built; None if unknown."""
    import comfy.model_base as base

    made = {}

    class Stop(Exception):
        pass

    def stop(self, model_config, model_type=types.EPS, device=None, unet_model=None, **more):
        made["type"] = model_type
        raise Stop

    original, base.BaseModel.__init__ = base.BaseModel.__init__, stop
    try:
        sizes = dict.fromkeys(("in_channels", "hidden_size", "model_channels", "dim"), 8)
        config({**config.unet_config, **sizes}).get_model({}, "")
    except Stop:
        pass
    except Exception:
        return None
    finally:
        base.BaseModel.__init__ = original
    return made.get("type")
