"""Checkpoints under the names of the original models, which ComfyUI keeps, brought to diffusers' names.

The work is done by diffusers' own converters; here they are told apart and made to account for every key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .errors import InputError
from .safe_files import listed

MARKS = {"ZImageTransformer2DModel": ".attention.qkv.", "SD3Transformer2DModel": "joint_blocks."}
"""Part of a name that only the original model has, by class of diffusers."""
WRAPPER = "model.diffusion_model."
COMPANIONS = ("first_stage_model.", "text_encoders.")
"""What stands beside the transformer in ComfyUI's files of a whole model: the VAE and the text encoders."""
QUANTISED = re.compile(
    r"(.*\.)?(scaled_fp8|comfy_quant|scale_weight|scale_input|weight_scale(_2)?|input_scale|absmax|quant_map|quant_state.*)"
)

State = dict[str, Tensor]


def refuse_quantised(path: str | Path, dtypes: Mapping[str, str]) -> None:
    """InputError if names or dtypes (as safetensors writes them) tell of weights that need scales to be read."""
    scales = [key for key in dtypes if QUANTISED.fullmatch(key)]
    integers = [key for key, dtype in dtypes.items() if not dtype.startswith(("F", "BF")) or dtype.startswith("F4")]
    if scales or integers:
        raise InputError(
            f"{path} holds quantised weights, with scales or as integers ({listed(scales or integers)}): give the "
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
    mapping = table[kind]["checkpoint_mapping_fn"]

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


def converted_shapes(
    convert: Callable[[State], State], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """The shapes that a conversion would give, found without reading a weight."""
    empty = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    return {name: tuple(tensor.shape) for name, tensor in convert(empty).items()}
