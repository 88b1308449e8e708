"""FLUX.1's checkpoints from the original names to diffusers', at any width; diffusers converts its own width only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .original_layers import FLUX, OriginalLayer

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
PATTERNS = [(re.compile(re.escape(layer.name).replace(r"\{\}", r"(\d+)")), layer) for layer in LAYERS]


def convert_flux(state: dict[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights by diffusers' names; takes what it uses out of `state`. ValueError for shapes that do not split."""
    width = int(config["num_attention_heads"]) * int(config["attention_head_dim"])
    converted: dict[str, Tensor] = {}
    for key in list(state):
        name, _, end = key.rpartition(".")
        if norm := _norm(name) if end in ("scale", "weight") else "":
            converted[f"{norm}.weight"] = state.pop(key)
        elif end in ("weight", "bias") and (found := _layer(name)) is not None:
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


def _layer(name: str) -> tuple[OriginalLayer, tuple[str, ...]] | None:
    matches = ((pattern.fullmatch(name), layer) for pattern, layer in PATTERNS)
    return next(((layer, match.groups()) for match, layer in matches if match), None)


def _rows(tensor: Tensor, count: int, width: int) -> tuple[Tensor, ...]:
    """Query, key and value are of the network's width each; what follows has the rest."""
    if count == 1:
        return (tensor,)
    sizes = [width] * 3 + [len(tensor) - 3 * width] * (count - 3)
    if sum(sizes) != len(tensor) or min(sizes) < 0:
        raise ValueError(f"{len(tensor)} rows for {count} layers of a network {width} wide")
    return tensor.split(sizes)
