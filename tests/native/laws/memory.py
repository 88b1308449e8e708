"""What a training needs is estimated, kept free, and given back; the MODEL that was given stays as it was."""

import ctypes
import gc
import hashlib
import math
import tempfile
import weakref
from dataclasses import replace

import comfy.model_management as management
import torch
from pack.danceopd_core.algorithm.fields import Conditioning, Sample
from pack.danceopd_core.recipe.schema import Bucket, Recipe, Route, Student, Teacher
from pack.danceopd_core.runs.training.session import open_session
from pack.danceopd_core.weights.adapters import STUDENT, Adapters
from pack.danceopd_core.weights.lora import fresh_lora
from pack.nodes.native.checkpointing import enable_checkpointing
from pack.nodes.native.memory import reference_area, training_memory
from pack.nodes.native.shapes import shapes_clip, shapes_model, shapes_vae
from pack.nodes.native.source import NativeModel
from pack_laws import tiny_models
from pack_laws.tiny_models import CONFIGS, fresh_backbone, prompts, tiny_backbone

TINY, TINY_TEXT = CONFIGS["SD3"], tiny_models.TEXTS["SD3"]
WIDE = {
    **CONFIGS["SD3"], "depth": 24, "adm_in_channels": 2048,
    "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 1536}},
}  # fmt: skip
"""Stable Diffusion 3.5 Medium at its real width, two of its blocks."""
LEAST, MOST = 0.8, 3.5
"""The estimate over the measured peak of one update's gradients, on a CPU."""


def used(reset=False):
    """(peak, now) in bytes of the process's memory; reset: the peak starts from now."""
    if reset:
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    with open("/proc/self/status") as file:
        told = dict(line.split(":", 1) for line in file)
    return tuple(1024 * int(told[name].split()[0]) for name in ("VmHWM", "VmRSS"))


def test_the_estimate_is_near_the_measured_peak():
    """On a CPU attention is fused too, though ComfyUI counts that only on GPUs."""
    ctypes.CDLL("libc.so.6").mallopt(-3, 65536)  # M_MMAP_THRESHOLD: what is freed leaves the process
    tiny_models.CONFIGS["SD3"], tiny_models.TEXTS["SD3"] = WIDE, {"text": (77, 4096), "pooled_output": (1, 2048)}
    fused, management.pytorch_attention_flash_attention = management.pytorch_attention_flash_attention, lambda: True
    management.in_training = True
    try:
        for checkpointing in (False, True):
            backbone = fresh_backbone("SD3")
            adapters = Adapters(backbone.network, torch.device("cpu"), torch.float32)
            lora = fresh_lora(adapters.shapes, 16, 16.0, backbone.default_targets, torch.Generator().manual_seed(0))
            adapters.start_student(lora)
            if checkpointing:
                enable_checkpointing(backbone.network)
            field = adapters.field(backbone.velocity, STUDENT)
            x, sigma, cond = torch.randn(1, 16, 32, 32), torch.tensor([0.5]), prompts("SD3", 1)
            trained = sum(factor.numel() for factor in adapters.parameters())
            estimate = training_memory(backbone.patcher, trained, False, 1, x.shape[1:], 0, checkpointing)
            _, before = used(reset=True)
            field(x, sigma, cond).square().mean().backward()
            peak, _ = used()
            # The moments come with the optimizer, which has not been asked yet.
            ratio = (estimate.activations + estimate.optimizer / 3) / (peak - before)
            print("checkpointing" if checkpointing else "plain", f"{peak - before:,} bytes, estimate x {ratio:.2f}")
            assert LEAST < ratio < MOST, (checkpointing, ratio)
    finally:
        management.pytorch_attention_flash_attention, management.in_training = fused, False
        tiny_models.CONFIGS["SD3"], tiny_models.TEXTS["SD3"] = TINY, TINY_TEXT


def test_more_of_everything_needs_more():
    backbone = tiny_backbone("Flux2")
    plain = training_memory(backbone.patcher, 100, False, 1, (128, 8, 8), 0, False)
    assert plain.optimizer == 4 * 3 * 100
    assert training_memory(backbone.patcher, 100, True, 1, (128, 8, 8), 0, False).optimizer == 4 * 4 * 100
    for batch, shape, references in ((2, (128, 8, 8), 0), (1, (128, 16, 8), 0), (1, (128, 8, 8), 64)):
        more = training_memory(backbone.patcher, 100, False, batch, shape, references, False)
        assert math.isclose(more.activations, 2 * plain.activations, rel_tol=1e-6)
    edit = Sample({"reference_latents": (torch.zeros(1, 128, 4, 4), torch.zeros(1, 128, 4, 2))})
    assert reference_area([Conditioning((Sample({}),)), Conditioning((Sample({}), edit))]) == 24


def loaded():
    with torch.inference_mode():  # as loader nodes run
        return shapes_model(), shapes_clip(), shapes_vae()


def digest(patcher):
    found = hashlib.sha256()
    with torch.inference_mode():  # as the weights that a loader node made
        for name, tensor in sorted(patcher.model.state_dict().items()):
            found.update(name.encode() + tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    options = sorted(patcher.model_options["transformer_options"]), sorted(patcher.model_options), patcher.patches_uuid
    modules = dict(patcher.model.named_modules())
    hooks = [name for name, module in modules.items() if module._forward_hooks or "forward" in vars(module)]
    return found.hexdigest(), options, hooks, len(patcher.patches), len(patcher.backup)


def session_over(native, folder, **more):
    recipe = Recipe(
        model=native.name,
        routes=(
            Route("text", "base", Bucket(prompts=("a red circle", "two blue squares"))),
            Route("edits", "edit", Bucket(shapes="edit", count=6)),
        ),
        teachers={"base": Teacher(guidance=2.0), "edit": Teacher(lora="shapes:edit")},
        student=Student(rank=4),
        router="all", steps=2, batch=2, accumulate=1, rollout_steps=3, width=64, height=64, dtype="float32", out=folder,
        **more,
    )  # fmt: skip
    return open_session(recipe, source=native.source({}, {}))


def trained(native, **more):
    """A training over the MODEL; weak references to what it made."""
    with tempfile.TemporaryDirectory() as folder:
        management.in_training = True
        try:
            session = session_over(native, folder, **more)
            assert all(loss > 0 for result in session.trainer for loss in result.losses.values())
        finally:
            management.in_training = False
        backbone = session.backbone
        return [weakref.ref(part) for part in (backbone, backbone.model, backbone.patcher, session.trainer)]


def test_what_comes_in_goes_out_unchanged_and_nothing_stays():
    model, clip, vae = loaded()
    native = NativeModel(model, clip, vae, "0")
    before, others = digest(model), {id(kept.model) for kept in management.current_loaded_models}
    for more in ({}, {"gradient_checkpointing": True}):
        made = trained(native, **more)
        gc.collect()
        assert not [part() for part in made if part() is not None]
        management.cleanup_models_gc()
        stays = {id(kept.model) for kept in management.current_loaded_models}
        assert stays <= others | {id(clip.patcher), id(vae.patcher)}
        assert digest(model) == before


def test_comfyui_is_asked_for_what_the_training_needs():
    model, clip, vae = loaded()
    asked = []
    load = management.load_models_gpu

    def heard(models, *given, **more):
        asked.append(more.get("memory_required", 0))
        return load(models, *given, **more)

    management.load_models_gpu = heard
    told = []
    try:
        with tempfile.TemporaryDirectory() as folder:
            native = NativeModel(model, clip, vae, "0")
            session = session_over(native, folder)
            needed = session.backbone.room.bytes
            assert asked[-1] == needed > 0
            told.append(native.source({}, {}).make_room(session.backbone, session.recipe, 10**9, []))
            # A MODEL that teaches as it stands leaves the same room when it is loaded.
            teacher = replace(session.backbone, patcher=model, model=model.model, resident=False)
            teacher._resident()
            assert asked[-1] == session.backbone.room.bytes > needed
    finally:
        management.load_models_gpu = load
    assert "beside the MODEL's" in told[0]
    assert "11.18 GiB for gradients and moments" in told[0]
