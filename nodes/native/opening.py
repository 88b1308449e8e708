"""Which MODELs can be trained, and a copy of one that can: without inference tensors and without streamed weights."""

from __future__ import annotations

import copy
import gc
import re

import comfy.model_management as management
import torch
from comfy.latent_formats import LTXAV, LatentFormat
from comfy.model_base import BaseModel
from comfy.model_patcher import LowVramPatch, ModelPatcher
from comfy.model_sampling import CONST, COSMOS_RFLOW, IMG_TO_IMG_FLOW
from comfy.ops import fp8_ops, manual_cast
from comfy.quant_ops import QuantizedTensor
from torch import nn

from ...danceopd_core.errors import InputError
from ...danceopd_core.listening import work

STREAMING = ("dynamic_vbars", "dynamic_pins", "dynamic_patchers")
"""What dynamic VRAM leaves on the model that it streams."""


def untrainable(sampling: object, latent_format: LatentFormat) -> str:
    """Why a model with this `model_sampling` and latent format cannot be trained; empty if it can.

    A picture is a video of one frame. Latents that ComfyUI cannot preview as colours are those of sound, solids or
    masks; a flow from pictures to pictures has no noise to start from.
    """
    kind = type(sampling)
    pictures = latent_format.latent_rgb_factors is not None and latent_format.latent_dimensions in (2, 3)
    if issubclass(kind, IMG_TO_IMG_FLOW) or (issubclass(kind, CONST) and not pictures):
        return "its flow does not lead from noise to pictures"
    if any(base.__name__ == "ModelSamplingAV" for base in kind.__mro__) or isinstance(latent_format, LTXAV):
        return "its latents are of sound and pictures at once"
    if issubclass(kind, COSMOS_RFLOW):
        return "its flow starts at sigma 80 instead of 1 (Cosmos)"
    if not issubclass(kind, CONST):
        prediction = next(base.__name__ for base in kind.__mro__ if "calculate_denoised" in vars(base))
        return f"it is no flow-matching model (ComfyUI samples it as {prediction})"
    return ""


GUIDANCE_PATCHES = re.compile(r"sampler_\w+|denoise_mask_function|disable_cfg1_optimization")
"""What nodes that change guidance leave among a MODEL's options."""


def check_flow(patcher: ModelPatcher) -> None:
    """InputError unless the MODEL is a flow-matching model of pictures, as a velocity field has it."""
    sampling = patcher.get_model_object("model_sampling")
    latent_format = patcher.get_model_object("latent_format")
    if reason := untrainable(sampling, latent_format):
        raise InputError(
            f"the MODEL ({title(patcher.model)}) cannot be distilled: {reason}. Load a flow-matching image model, "
            "such as FLUX, Z-Image, Qwen-Image or Stable Diffusion 3.5"
        )

    if odd := sorted(name for name in patcher.model_options if GUIDANCE_PATCHES.fullmatch(name)):
        raise InputError(
            f"the MODEL carries patches of the sampler ({', '.join(odd)}), which a velocity field has no place for: "
            "remove the nodes between its loader and here that change guidance"
        )


def check_trainable(patcher: ModelPatcher) -> None:
    """InputError for a MODEL that can have no copy of its own, as far as that can be seen before.

    That is one that can neither be loaded again nor copied in memory, or whose patches reach from the copy into the
    network of the MODEL given.
    """
    if patcher.cached_patcher_init is None and patcher.is_dynamic():
        raise _no_second(patcher)
    if patcher.injections:
        raise InputError(
            f"the MODEL ({title(patcher.model)}) carries LoRAs in bypass mode, which stay on the network that was "
            "loaded first: load them with bypass off"
        )
    wrappers = {key for kind in patcher.wrappers.values() for key in kind}
    compiled = "torch_compile_kwargs" in patcher.model_options or "torch.compile" in wrappers
    swapped = any(
        name.startswith("diffusion_model.") and isinstance(value, torch.nn.Module)
        for name, value in patcher.object_patches.items()
    )
    if compiled or swapped:
        raise InputError(
            f"the MODEL ({title(patcher.model)}) is compiled, or some of its layers are replaced, which training would "
            "pass by: remove the node that does it (such as TorchCompileModel), and put it behind Train Student LoRA"
        )


def _no_second(patcher: ModelPatcher) -> InputError:
    return InputError(
        f"the MODEL ({title(patcher.model)}) comes from a loader that cannot load it a second time, which training "
        "needs, and its weights cannot be copied: use Load Diffusion Model or Load Checkpoint with a .safetensors file"
    )


def title(model: BaseModel) -> str:
    """The name that ComfyUI has for the architecture, such as ZImage."""
    return type(model.model_config).__name__


def own_copy(patcher: ModelPatcher) -> ModelPatcher:
    """The MODEL again, with weights of its own that can be trained through; patches on it are kept.

    Weights that a loader node made are inference tensors, and dynamic VRAM reuses their buffers while autograd
    still needs them. They are loaded anew, or copied where the loader does not say how, as those of GGUF files do not.
    The MODEL given is left untouched. InputError if neither is possible.
    """
    check_trainable(patcher)
    try:
        with work("loading the MODEL a second time"), torch.inference_mode(False):
            if patcher.cached_patcher_init is None:
                own = patcher.clone(model_override=(_copied(patcher), ({}, {}, {}, set())))
            else:
                own = patcher.clone(disable_dynamic=True, force_deepcopy=True)
                _in_its_precision(own)
            _without_fast_products(own)
    except InputError:
        raise
    except Exception as error:
        if management.is_oom(error):
            raise
        raise InputError(
            f"the MODEL ({title(patcher.model)}) cannot be loaded a second time, which training needs: {error}. Look "
            "at its file, or use Load Diffusion Model or Load Checkpoint"
        ) from error
    if own.is_dynamic() or "dynamic_vbars" in vars(own.model):
        raise InputError(
            "the MODEL still streams its weights (dynamic VRAM): start ComfyUI with --disable-dynamic-vram"
        )
    own.model.requires_grad_(False).eval()
    return own


def _in_its_precision(patcher: ModelPatcher) -> None:
    """Casts weights to the precision that the network was made for.

    Where dynamic VRAM is on, ComfyUI loads them as the file has them, and casts them when it streams them.
    """
    for module in patcher.model.diffusion_model.modules():
        for name, weight in module.named_parameters(recurse=False):
            dtype = vars(module).get(f"{name}_comfy_model_dtype", weight.dtype)
            if dtype != weight.dtype and not isinstance(weight, QuantizedTensor):
                weight.data = weight.data.to(dtype)
                patcher.size = 0  # is counted again


def _without_fast_products(patcher: ModelPatcher) -> None:
    """The option fp8_e4m3fn_fast multiplies in float8 by calls that have no backward pass: its layers become those of
    fp8_e4m3fn, with the same weights."""
    for module in patcher.model.diffusion_model.modules():
        if type(module) is fp8_ops.Linear:
            module.__class__ = manual_cast.Linear


def _copied(patcher: ModelPatcher) -> BaseModel:
    """The bare model of a MODEL, copied in memory; InputError for one whose weights cannot be."""
    management.unload_model_and_clones(patcher)  # takes the patches out of the weights
    try:
        network = copy.deepcopy(patcher.model.diffusion_model)
    except (RuntimeError, TypeError, NotImplementedError, AttributeError) as error:
        raise _no_second(patcher) from error
    if any(weight.is_inference() for weight in (*network.parameters(), *network.buffers())):
        raise _no_second(patcher)
    made = copy.copy(patcher.model)
    made._modules = {**patcher.model._modules, "diffusion_model": network}
    for name in STREAMING:
        vars(made).pop(name, None)
    return made


def load_fully(patcher: ModelPatcher, room: int = 0) -> None:
    """Brings all weights of the MODEL to its device, patched; InputError if they do not fit.

    ComfyUI moves other models away until `room` bytes are free beside it.

    Gradients are right only over weights that stay where they are: weights streamed layer by layer are
    overwritten before the backward pass reads them.
    """
    gc.collect()  # dead models leave ComfyUI's list now, not while it walks through it
    management.load_models_gpu([patcher], memory_required=room, force_full_load=True)
    if away := misplaced(patcher):
        raise InputError(
            f"the MODEL ({title(patcher.model)}) does not fit on {patcher.load_device}: {away} stay elsewhere, and "
            "gradients cannot pass weights that are streamed. Use a smaller or quantised file, or start ComfyUI "
            "without --lowvram and --novram"
        )


def misplaced(patcher: ModelPatcher) -> str:
    """Which weights are not on the MODEL's device, or not patched, or only while they are used; empty if none."""
    network = patcher.model.diffusion_model
    device = torch.device(patcher.load_device)
    away = [name for name, weight in network.named_parameters() if weight.device.type != device.type]
    streamed = [name for name, module in network.named_modules() if _patched_in_use(module)]
    found = away + streamed
    if found:
        return f"{len(found)} weights ({', '.join(found[:3])}, ...)"
    unloaded = patcher.model.current_weight_patches_uuid != patcher.patches_uuid
    return "some weights" if unloaded or patcher.model.model_lowvram else ""


def _patched_in_use(module: nn.Module) -> bool:
    functions = [*vars(module).get("weight_function", ()), *vars(module).get("bias_function", ())]
    return any(isinstance(function, LowVramPatch) for function in functions)
