"""Converts checkpoints from the original models' key names, which ComfyUI keeps, to diffusers' names.

diffusers' own converters do the work; this module selects one and makes sure that it accounts for every key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from .flux_conversion import PATTERNS, convert_flux
from .safetensors_io import listed

ORIGINAL_KEYS = {
    "ZImageTransformer2DModel": ".attention.qkv.",
    "SD3Transformer2DModel": "joint_blocks.",
    "FluxTransformer2DModel": "double_blocks.",
    "Flux2Transformer2DModel": "double_blocks.",
    "Krea2Transformer2DModel": ".attn.wq.",
    "QwenImage21Transformer2DModel": ".img_mlp.gate_up.",
    "AutoencoderKL": ".mid.block_1.",
    "AutoencoderKLFlux2": ".mid.block_1.",
    "AutoencoderKLQwenImage": ".residual.",
}
"""Part of a key that only occurs in the original model's checkpoints, by diffusers class."""
MODEL_PARTS = ("model.diffusion_model.", "first_stage_model.", "vae.")
"""Key prefixes in ComfyUI's files of a whole model: the transformer, and the VAE."""
NEIGHBOURS = (
    *MODEL_PARTS, "text_encoders.", "text_encoder.", "text_encoder_2.", "text_encoder_3.", "cond_stage_model.",
    "conditioner.", "clip_vision.", "model_ema.",
)  # fmt: skip
"""The same, with those of all that is not read from such files."""
SPARES = {
    "ZImageTransformer2DModel": re.compile(r"norm_final\.weight"),
    "Krea2Transformer2DModel": re.compile(r"last\.(up|down)\.weight"),
    "AutoencoderKL": re.compile(r"(loss|discriminator)\..{1,200}"),
    "AutoencoderKLFlux2": re.compile(r"bn\.num_batches_tracked"),
}
"""Weights that files hold and nothing uses, whatever is in them, by diffusers class."""
UNUSED_BUFFER = "num_batches_tracked"
"""How the name ends of what batch normalisation counts in training, and files may lack."""
AT_TIME_ZERO = "__index_timestep_zero__"
"""ComfyUI's mark of a Qwen-Image that takes its source pictures at time zero."""
QUANTISED = re.compile(
    r"(.*\.)?(scaled_fp8|comfy_quant|scale_weight|scale_input|weight_scale(_2)?|input_scale|absmax|quant_map|quant_state.*)"
)

State = dict[str, Tensor]


def spares(path: str | Path, network: nn.Module, names: Iterable[str]) -> set[str]:
    """Those of the names that are no weights of the network, and are known to be in files of it.

    InputError if one of them marks another model.
    """
    pattern, config = SPARES.get(type(network).__name__), getattr(network, "config", {})
    found = {name for name in names if name == AT_TIME_ZERO or (pattern is not None and pattern.fullmatch(name))}
    if AT_TIME_ZERO in found and not config.get("zero_cond_t", False):
        raise InputError(
            f"{path} is of a model that takes source pictures at time zero ({AT_TIME_ZERO}), as Qwen-Image-Edit-2511 "
            "does, and the model's configuration has no zero_cond_t: use it with the folder of that model"
        )
    return found


def refuse_quantised(path: str | Path, dtypes: Mapping[str, str], fp8: bool = True) -> None:
    """InputError if keys or dtypes (as safetensors names them) are those of quantised weights, which need scales.

    fp8: whether plain 8-bit floats are accepted, as the rounded weights that they are.
    """
    scales = [key for key in dtypes if QUANTISED.fullmatch(key)]
    integers = [key for key, dtype in dtypes.items() if not dtype.startswith(("F", "BF")) or dtype.startswith("F4")]
    eight_bits = [] if fp8 else [key for key, dtype in dtypes.items() if dtype.startswith("F8")]
    if scales or integers or eight_bits:
        form = "with scales or as integers" if scales or integers else "in 8 bits"
        raise InputError(
            f"{path} holds quantised weights, {form} ({listed(scales or integers or eight_bits)}): give the "
            "checkpoint in bfloat16, float16 or float32"
        )


def converter(path: str | Path, network: nn.Module, names: Iterable[str]) -> Callable[[State], State] | None:
    """A function from a state with these keys to the network's state; None if the keys are diffusers' already.

    It raises InputError, naming the keys, for a state with missing or unknown ones.
    """
    kind = type(network).__name__
    if kind not in ORIGINAL_KEYS or not any(ORIGINAL_KEYS[kind] in name for name in names):
        return None
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

    table: dict[str, Any] = SINGLE_FILE_LOADABLE_CLASSES
    config: dict[str, Any] = dict(network.config)  # type: ignore[arg-type]
    mapping: Callable[[State], State]
    if kind in PATTERNS:
        mapping = partial(convert_flux, config=config, kind=kind)
    elif kind == "AutoencoderKLFlux2":
        mapping = partial(_convert_patched_vae, partial(table["AutoencoderKL"]["checkpoint_mapping_fn"], config=config))
    elif kind == "AutoencoderKLQwenImage":
        mapping = partial(_convert_video_vae, table["AutoencoderKLWan"]["checkpoint_mapping_fn"])
    else:
        mapping = partial(table[kind]["checkpoint_mapping_fn"], config=config)
    if kind == "AutoencoderKL":
        mapping = partial(_convert_vae, mapping)

    def convert(state: State) -> State:
        remaining = dict(state)  # the converters remove the keys that they use
        try:
            converted = mapping(remaining)
        except KeyError as error:
            raise InputError(
                f"{path} is not a complete checkpoint of this network: it lacks {error.args[0]}"
            ) from error
        except (IndexError, ValueError, RuntimeError, TypeError, AttributeError) as error:
            raise InputError(f"{path} is not a checkpoint that diffusers can convert to {kind}: {error}") from error
        if remaining:
            raise InputError(
                f"{path} is not a checkpoint of this network: {len(remaining)} unknown weights ({listed(remaining)})"
            )
        return converted

    return convert


def _convert_vae(mapping: Callable[[State], State], state: State) -> State:
    """diffusers' VAE converter, which ignores unknown keys, made to remove the keys that it uses as the others do."""

    def convert(some: State) -> State:
        return {name: tensor for name, tensor in mapping(some).items() if tensor is not None}

    def unused(name: str) -> bool:
        try:
            return len(convert({other: state[other] for other in state if other != name})) == len(converted)
        except KeyError:
            return False

    converted = convert(state)
    remaining = [name for name in state if len(converted) != len(state) and unused(name)]
    for name in state.keys() - remaining:
        del state[name]
    return converted


def _convert_patched_vae(mapping: Callable[[State], State], state: State) -> State:
    """FLUX.2's VAE is FLUX.1's with statistics of its patches, and its quantising layers lie in its two halves."""
    statistics = {name: state.pop(name) for name in list(state) if name.startswith("bn.")}
    for half, layer in (("encoder", "quant_conv"), ("decoder", "post_quant_conv")):
        for name in [name for name in state if name.startswith(f"{half}.{layer}.")]:
            state[name.removeprefix(f"{half}.")] = state.pop(name)
    return _convert_vae(mapping, state) | statistics


def _convert_video_vae(mapping: Callable[[State], State], state: State) -> State:
    """Qwen-Image's VAE has the layers of Wan's, whose converter passes unknown keys on, as unknown weights."""
    converted = mapping(dict(state))
    state.clear()
    return converted


def weights_of_network(network: nn.Module) -> State:
    """The weights and buffers that a checkpoint of the network has to hold, by name."""
    return {name: part for name, part in network.state_dict().items() if not name.endswith(UNUSED_BUFFER)}


def converted_shapes(
    convert: Callable[[State], State], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """The shapes after a conversion, computed on the meta device without reading a weight."""
    empty = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    return {name: tuple(tensor.shape) for name, tensor in convert(empty).items()}
