"""Every method trains over the embedded model as a MODEL, and stock nodes draw what its student draws."""

import comfy.sample
import torch
from pack.danceopd_core.algorithm.methods import METHODS, method
from pack.danceopd_core.models.sampling import integrate, seeded_noise
from pack.danceopd_core.shapes import locate
from pack.danceopd_core.weights.adapters import STUDENT
from pack.nodes.native.backbone import opened
from pack.nodes.native.lora_names import lora_of, native_tensors, read_native_lora
from pack.nodes.native.shapes import shapes_clip, shapes_model, shapes_vae
from pack_laws.loras import (
    DIFFUSERS,
    diffusers_file,
    far,
    kohya_file,
    loaded_by_comfyui,
    patched_by_comfyui,
    random_lora,
)
from pack_laws.tiny_models import fresh_backbone, prompts, state
from pack_laws.training import distilled, remaining, trained

PROMPTS = ["a red circle", "three big diamonds", "a blue square above a green star", "two small yellow circles"]
SIZE = (32, 32)
RUNS = {
    "danceopd": (method("danceopd"), 16),
    "diffusionopd": (method("diffusionopd"), 6),
    "flowopd": (method("flowopd", group=4), 4),
    "offpolicy": (method("offpolicy"), 16),
}
"""Of each method its row, groups made small, and the number of updates."""

with torch.inference_mode():  # as a loader node runs
    CLIP, VAE = shapes_clip(), shapes_vae()


def loaded():
    with torch.inference_mode():
        return shapes_model()


def test_every_method_trains_a_student_that_stock_nodes_draw_alike():
    """The edit LoRA as teacher: the student comes closer, its file leaves no key over, KSampler draws its picture."""
    assert RUNS.keys() == METHODS.keys()
    for name, (chosen, updates) in RUNS.items():
        backbone = opened(loaded(), CLIP, VAE)
        cond = backbone.encode(PROMPTS)
        lora = read_native_lora(str(locate("shapes:edit")), backbone.model)
        adapters, teacher, _ = distilled(backbone, lora, cond, updates, chosen, lr=3e-3, size=SIZE)
        left = remaining(backbone, adapters, teacher, cond, SIZE)
        print(name, left)
        assert left < 0.9, (name, left)

        file = native_tensors(adapters.student())
        patched, warned = patched_by_comfyui(loaded, file)
        assert not warned, warned
        assert len(patched.patches) == len(adapters.student().down)
        noise, sigmas = seeded_noise(backbone.latent_shape(*SIZE), [7]), backbone.sigmas(4, *SIZE)
        ours = integrate(adapters.field(backbone.velocity, STUDENT), noise, sigmas, cond.select([0]))
        with torch.inference_mode():
            text = CLIP.encode_from_tokens_scheduled(CLIP.tokenize(PROMPTS[0]))
            theirs = comfy.sample.sample(
                patched, noise, 4, 1.0, "euler", "simple", text, text, torch.zeros_like(noise), disable_pbar=True
            )
        assert far(ours, theirs) < 1e-4, name


LAYOUTS = {
    "diffusers": lambda name, backbone: diffusers_file(DIFFUSERS[name]),
    "kohya": lambda name, backbone: kohya_file(backbone),
    "native": lambda name, backbone: native_tensors(random_lora(backbone)),
}


def test_a_student_continues_loras_of_other_layouts():
    """It starts as ComfyUI applies the file, trains the file's layers, and is saved under native names."""
    for name, layout in (
        ("SD3", "diffusers"), ("Flux", "diffusers"), ("QwenImage", "diffusers"), ("ZImage", "diffusers"),
        ("Flux", "kohya"), ("Krea2", "kohya"), ("SD3", "native"),
    ):  # fmt: skip
        backbone = fresh_backbone(name)
        file = LAYOUTS[layout](name, backbone)
        start = lora_of(file, backbone.model, "the file")
        x, sigma = state(backbone)
        cond = prompts(name)
        first, adapters, _, _ = trained(name, 0, method("danceopd"), start=start)
        patched, warned = loaded_by_comfyui(name, file)
        assert not warned, (name, layout, warned)
        with torch.no_grad():
            ours = adapters.field(first.velocity, STUDENT)(x, sigma, cond)
            assert far(ours, patched.velocity(x, sigma, cond)) < 2e-5, (name, layout)

        backbone, adapters, _, _ = trained(name, 3, method("danceopd"), start=start)
        with torch.no_grad():
            moved = adapters.field(backbone.velocity, STUDENT)(x, sigma, cond)
        assert far(moved, ours) > 1e-3, (name, layout)
        saved = native_tensors(adapters.student())
        assert {key.split(".lora_")[0] for key in saved} == {f"diffusion_model.{module}" for module in start.down}
        again, warned = loaded_by_comfyui(name, saved)
        assert not warned, (name, layout, warned)
        with torch.no_grad():
            assert far(again.velocity(x, sigma, cond), moved) < 2e-5, (name, layout)
