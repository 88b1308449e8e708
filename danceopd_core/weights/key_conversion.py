"""Checkpoints under the names of the original models, which ComfyUI keeps, brought to diffusers' names.

The work is done by diffusers' own converters; here they are told apart and made to account for every key.
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
from .safetensors_io import listed

MARKS = {
    "ZImageTransformer2DModel": ".attention.qkv.",
    "SD3Transformer2DModel": "joint_blocks.",
    "FluxTransformer2DModel": "double_blocks.",
    "AutoencoderKL": ".mid.block_1.",
}
"""Part of a name that only the original model has, by class of diffusers."""
WHOLE = ("model.diffusion_model.", "first_stage_model.", "text_encoders.")
"""What stands side by side in ComfyUI's files of a whole model: the transformer, the VAE and the text encoders."""
QUANTISED = re.compile(
    r"(.*\.)?(scaled_fp8|comfy_quant|scale_weight|scale_input|weight_scale(_2)?|input_scale|absmax|quant_map|quant_state.*)"
)

State = dict[str, Tensor]


def refuse_quantised(path: str | Path, dtypes: Mapping[str, str], fp8: bool = True) -> None:
    """InputError if names or dtypes (as safetensors writes them) tell of weights that need scales to be read.

    fp8: whether plain 8-bit floats are taken as the rounded weights that they are.
    """
    scales = [key for key in dtypes if QUANTISED.fullmatch(key)]
    odd = [key for key, dtype in dtypes.items() if not dtype.startswith(("F", "BF")) or dtype.startswith("F4")]
    small = [] if fp8 else [key for key, dtype in dtypes.items() if dtype.startswith("F8")]
    if scales or odd or small:
        how = "with scales or as integers" if scales or odd else "in 8 bits"
        raise InputError(
            f"{path} holds quantised weights, {how} ({listed(scales or odd or small)}): give the "
            "checkpoint in bfloat16, float16 or float32"
        )


def converter(path: str | Path, network: nn.Module, names: Iterable[str]) -> Callable[[State], State] | None:
    """What turns a state under these names into the network's; None if the names are diffusers' already.

    The converter raises InputError, naming keys, for a state that lacks some or holds some that it does not know.
    """
    kind = type(network).__name__
    if kind not in MARKS or not any(MARKS[kind] in name for name in names):
        return None
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

    table: dict[str, Any] = SINGLE_FILE_LOADABLE_CLASSES
    mapping = partial(table[kind]["checkpoint_mapping_fn"], config=dict(network.config))  # type: ignore[arg-type]
    if kind == "AutoencoderKL":
        mapping = partial(_vae, mapping)

    def convert(state: State) -> State:
        left = dict(state)  # the converters take out what they use
        try:
            converted = mapping(left)
        except KeyError as error:
            raise InputError(f"{path} is no whole checkpoint of this network: it lacks {error.args[0]}") from error
        except (IndexError, ValueError, RuntimeError) as error:
            raise InputError(f"{path} is no checkpoint that diffusers can convert to {kind}: {error}") from error
        if left:
            raise InputError(f"{path} is no checkpoint of this network: {len(left)} unknown weights ({listed(left)})")
        return converted

    return convert


def _vae(mapping: Callable[[State], State], state: State) -> State:
    """The VAE's converter, made to take out what it uses as the others do; it passes over what it does not know."""

    def converted(some: State) -> State:
        return {name: tensor for name, tensor in mapping(some).items() if tensor is not None}

    def idle(name: str) -> bool:
        try:
            return len(converted({other: state[other] for other in state if other != name})) == len(made)
        except KeyError:
            return False

    made = converted(state)
    left = [name for name in state if len(made) != len(state) and idle(name)]
    for name in state.keys() - left:
        del state[name]
    return made


def converted_shapes(
    convert: Callable[[State], State], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """The shapes that a conversion would give, found without reading a weight."""
    empty = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    return {name: tuple(tensor.shape) for name, tensor in convert(empty).items()}
