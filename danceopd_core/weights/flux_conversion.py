"""Checkpoints of FLUX.1 and FLUX.2 from the original names to diffusers', at any width.

diffusers converts FLUX.1 at its own width only, and of FLUX.2 it passes unknown weights on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from .original_layers import FLUX, FLUX2, OriginalLayer

NORMS = {
    r"double_blocks\.(\d+)\.img_attn\.norm\.query_norm": "transformer_blocks.{}.attn.norm_q",
    r"double_blocks\.(\d+)\.img_attn\.norm\.key_norm": "transformer_blocks.{}.attn.norm_k",
    r"double_blocks\.(\d+)\.txt_attn\.norm\.query_norm": "transformer_blocks.{}.attn.norm_added_q",
    r"double_blocks\.(\d+)\.txt_attn\.norm\.key_norm": "transformer_blocks.{}.attn.norm_added_k",
    r"single_blocks\.(\d+)\.norm\.query_norm": "single_transformer_blocks.{}.attn.norm_q",
    r"single_blocks\.(\d+)\.norm\.key_norm": "single_transformer_blocks.{}.attn.norm_k",
}
"""Their weight is "scale" in the original and "weight" in what ComfyUI saves."""
LAYERS = [layer for layer in FLUX if ".processor." not in layer.name and not layer.name.endswith("linear1_qkv")]

Patterns = Sequence[tuple[re.Pattern[str], OriginalLayer]]


def _patterns(layers: Sequence[OriginalLayer]) -> Patterns:
    return [(re.compile(re.escape(layer.name).replace(r"\{\}", r"(\d+)")), layer) for layer in layers]


PATTERNS = {"FluxTransformer2DModel": _patterns(LAYERS), "Flux2Transformer2DModel": _patterns(FLUX2)}
"""By diffusers' class."""


def convert_flux(state: dict[str, Tensor], config: Mapping[str, Any], kind: str) -> dict[str, Tensor]:
    """The weights by diffusers' names; takes what it uses out of `state`. ValueError for shapes that do not split.

    kind: a class of `PATTERNS`.
    """
    width = int(config["num_attention_heads"]) * int(config["attention_head_dim"])
    converted: dict[str, Tensor] = {}
    for key in list(state):
        name, _, end = key.rpartition(".")
        if norm := _norm(name) if end in ("scale", "weight") else "":
            converted[f"{norm}.weight"] = state.pop(key)
        elif end in ("weight", "bias") and (found := _layer(name, PATTERNS[kind])) is not None:
            layer, numbers = found
            modules = [module.format(*numbers) for module in layer.modules]
            tensor = state.pop(key)
            if layer.shift_first:
                tensor = tensor.roll(len(tensor) // 2, 0)
            for module, part in zip(modules, _rows(tensor, len(modules), width), strict=True):
                converted[f"{module}.{end}"] = part
    return converted


def _norm(name: str) -> str:
    matches = ((re.fullmatch(pattern, name), ours) for pattern, ours in NORMS.items())
    return next((ours.format(match[1]) for match, ours in matches if match), "")


def _layer(name: str, patterns: Patterns) -> tuple[OriginalLayer, tuple[str, ...]] | None:
    matches = ((pattern.fullmatch(name), layer) for pattern, layer in patterns)
    return next(((layer, match.groups()) for match, layer in matches if match), None)


def _rows(tensor: Tensor, count: int, width: int) -> tuple[Tensor, ...]:
    """Query, key and value are of the network's width each; what follows has the rest."""
    if count == 1:
        return (tensor,)
    sizes = [width] * 3 + [len(tensor) - 3 * width] * (count - 3)
    if sum(sizes) != len(tensor) or min(sizes) < 0:
        raise ValueError(f"{len(tensor)} rows for {count} layers of a network {width} wide")
    return tensor.split(sizes)
