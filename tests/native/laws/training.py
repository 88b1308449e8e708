"""The project's own Trainer and methods over MODELs: students learn their teachers, and ComfyUI's loader takes them."""

import comfy.model_management as management
import torch
from pack.danceopd_core.algorithm.fields import Conditioning, Sample
from pack.danceopd_core.algorithm.flow import linear_sigmas
from pack.danceopd_core.algorithm.methods import method
from pack.danceopd_core.algorithm.routers import router
from pack.danceopd_core.algorithm.trainer import RouteData, Settings, Trainer
from pack.danceopd_core.errors import InputError
from pack.danceopd_core.weights.adapters import STUDENT, Adapters
from pack.danceopd_core.weights.lora import fresh_lora
from pack.nodes.native.backbone import opened
from pack.nodes.native.checkpointing import enable_checkpointing
from pack.nodes.native.lora_names import native_tensors
from pack_laws.loras import GENERATOR, far, loaded_by_comfyui, random_lora
from pack_laws.tiny_models import DEVICE, NoVae, fresh_backbone, prompts, sizes, state, tiny_model


def trained(name, steps, chosen, checkpointing=False, start=None, lr=1e-2, **more):
    """A student over the tiny MODEL that learns one LoRA: backbone, adapters, the teacher, and its updates' losses.

    start: the LoRA that it continues; a fresh one if it is left out.
    """
    backbone = fresh_backbone(name)
    GENERATOR.manual_seed(0)
    lora, cond = random_lora(backbone), prompts(name, 4, **more)
    return backbone, *distilled(backbone, lora, cond, steps, chosen, checkpointing, start, lr)


def distilled(backbone, lora, samples, steps, chosen, checkpointing=False, start=None, lr=1e-2, size=None, batch=2):
    """The adapters, the teacher's name and the losses of a student that learns `lora`."""
    adapters = Adapters(backbone.network, DEVICE, torch.float32)
    teacher = adapters.add_teacher(lora)
    generator = torch.Generator().manual_seed(1)
    adapters.start_student(start or fresh_lora(adapters.shapes, 4, 4.0, backbone.default_targets, generator))
    if checkpointing:
        enable_checkpointing(backbone.network)
    shape = backbone.latent_shape(*(size or sizes(backbone)))
    clean = torch.randn(len(samples), *shape, generator=generator).to(DEVICE)
    trainer = Trainer(
        adapters,
        adapters.field(backbone.velocity, STUDENT),
        [RouteData("a", adapters.field(backbone.velocity, teacher), samples, clean if chosen.needs_clean else None)],
        router("weighted", [1.0]),
        chosen,
        linear_sigmas(4, 3.0),
        shape,
        Settings(steps=steps, batch=batch, accumulate=1, lr=lr),
        device=DEVICE,
    )
    management.in_training = True
    try:
        losses = [float(result.loss) for result in trainer]
    finally:
        management.in_training = False
    return adapters, teacher, losses


def remaining(backbone, adapters, teacher, cond, size=None):
    """How far the student is from its teacher at fixed states, relative to how far the base is."""
    x, sigma = state(backbone, len(cond), size=size)
    student, goal, base = (
        adapters.field(backbone.velocity, name)(x, sigma, cond).detach() for name in (STUDENT, teacher, None)
    )
    return float((student - goal).norm() / (base - goal).norm())


def test_the_student_comes_closer_and_its_file_is_the_student():
    """With and without checkpointing, in networks that overwrite what they have read too."""
    for number, name in enumerate(("SD3", "Flux", "ZImage", "QwenImage", "Chroma")):
        backbone, adapters, teacher, _ = trained(name, 40, method("danceopd"), bool(number % 2), lr=3e-3)
        cond = prompts(name, 4)
        left = remaining(backbone, adapters, teacher, cond)
        print(name, left)
        assert left < 0.95, (name, left)
        x, sigma = state(backbone, 4)
        with torch.no_grad():
            ours = adapters.field(backbone.velocity, STUDENT)(x, sigma, cond)
        patched, warned = loaded_by_comfyui(name, native_tensors(adapters.student()))
        assert not warned
        with torch.no_grad():
            assert far(patched.velocity(x, sigma, cond), ours) < 2e-5, name


def test_edits_train_with_references_of_unequal_sizes():
    backbone = fresh_backbone("Flux2")
    shape = backbone.latent_shape(*sizes(backbone))
    one = torch.randn(1, *shape, generator=torch.Generator().manual_seed(5))
    for references in ((one,), (one, torch.cat([one, one], -1))):
        *_, losses = trained("Flux2", 2, method("danceopd"), True, reference_latents=references)
        assert all(loss > 0 for loss in losses)


def test_what_cannot_be_trained_is_refused_in_the_users_words():
    def error(call):
        try:
            call()
        except InputError as found:
            return str(found)
        raise AssertionError("it was taken")

    with torch.inference_mode():
        model = tiny_model("Flux")
    vae = NoVae(model.model.latent_format)

    other = NoVae(model.model.latent_format)
    other.latent_channels = 4
    assert "4 channels" in error(lambda: opened(model, None, other))

    from comfy.model_sampling import EPS, ModelSamplingDiscrete

    kind = type("ModelSampling", (ModelSamplingDiscrete, EPS), {})
    no_flow = model.clone()
    no_flow.add_object_patch("model_sampling", kind())
    assert "EPS" in error(lambda: opened(no_flow, None, vae))

    guided = model.clone()
    guided.set_model_sampler_post_cfg_function(lambda args: args["denoised"])
    assert "sampler_post_cfg_function" in error(lambda: opened(guided, None, vae))

    backbone = opened(model, None, vae)
    assert "multiples of 16" in error(lambda: backbone.latent_shape(60, 64))
    assert "'simple'" in error(lambda: opened(model, None, vae, scheduler="ddim_uniform").sigmas(7, 64, 64))
    samples = prompts("Flux")
    edit = Sample({**samples.samples[1].values, "reference_latents": (torch.zeros(1, 16, 8, 8),)})
    samples = Conditioning((samples.samples[0], edit))
    x, sigma = state(backbone)
    with torch.no_grad():
        assert torch.isfinite(backbone.velocity(x, sigma, samples)).all()  # one edit and one text in a batch


def test_shift_nodes_on_the_model_are_honoured():
    """A ModelSampling node between the loader and here changes the sigmas, and no weights."""
    from comfy_extras.nodes_model_advanced import ModelSamplingAuraFlow

    with torch.inference_mode():
        model = tiny_model("ZImage")
        shifted = ModelSamplingAuraFlow().patch_aura(model, 7.0)[0]
    vae = NoVae(model.model.latent_format)
    plain, moved = opened(model, None, vae), opened(shifted, None, vae)
    assert torch.allclose(moved.sigmas(8, 64, 64), linear_sigmas(8, 7.0), atol=1e-3)
    assert torch.allclose(plain.sigmas(8, 64, 64), linear_sigmas(8, 3.0), atol=1e-3)
    x, sigma = state(plain)
    with torch.no_grad():
        assert far(plain.velocity(x, sigma, prompts("ZImage")), moved.velocity(x, sigma, prompts("ZImage"))) < 1e-6
