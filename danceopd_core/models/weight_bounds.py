"""Compares a part's configuration with the header of its weights, before memory is spent on the network.

A configuration of a million layers is a few bytes. What its weights do not hold is never built.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from ..errors import InputError
from ..weights.safetensors_io import open_safetensors, shards
from .rules import Rules, bounded, known

INDICES = ("model.safetensors.index.json", "diffusion_pytorch_model.safetensors.index.json")


class Extent(NamedTuple):
    """Of weights by their headers: how many tensors, the longest side of one, and all their numbers."""

    tensors: int
    side: int
    elements: int


def weights_of(folder: Path) -> list[Path]:
    """The safetensors files of a part's folder; InputError without any, or if an index names files elsewhere."""
    indices = [folder / name for name in INDICES if (folder / name).exists()]
    files = {file for index in indices for file in shards(index)} | set(folder.glob("*.safetensors"))
    if not files:
        raise InputError(f"{folder} holds no safetensors files: download the model again, with all its parts")
    return sorted(files)


def extent(files: Iterable[Path]) -> Extent:
    """The extent of weights in these files together, without reading any weight."""
    tensors, side, elements = 0, 0, 0
    for file in files:
        with open_safetensors(file) as handle:
            for key in handle.keys():  # noqa: SIM118 (a safetensors handle, no dict)
                shape = handle.get_slice(key).get_shape()
                tensors, side, elements = tensors + 1, max([side, *shape]), elements + math.prod(shape)
    return Extent(tensors, side, elements)


def check_bounds(folder: Path, config: Mapping[str, Any], rules: Rules, weights: Extent) -> None:
    """InputError for a number of layers or a width that these weights cannot have. config: checked by its rules."""
    most = {"tensors": weights.tensors, "side": weights.side, "area": math.isqrt(weights.side)}
    for name, value, bound in bounded(config, rules):
        if value > most[bound]:
            raise InputError(
                f"{folder} does not hold the weights that its configuration describes: {name} is {value}, and they "
                f"have {weights.tensors} tensors with sides of at most {weights.side}. Download the model again"
            )


def empty_module(cls: Any, config: Mapping[str, Any], rules: Rules) -> nn.Module:
    """The part's module without memory for its weights. config: checked by its rules and `check_bounds`."""
    with torch.device("meta"):
        if cls.__module__.startswith("transformers."):
            return cls(transformers_config(cls, config, rules))
        return cls.from_config(known(config, rules))


def transformers_config(cls: Any, config: Mapping[str, Any], rules: Rules) -> Any:
    """The configuration object of a transformers class, of the settings that have a rule and no others."""
    return cls.config_class.from_dict(known(config, rules))


def check_elements(module: nn.Module, folder: Path, weights: Extent) -> None:
    """InputError if the weights are fewer numbers than the module has: a library would draw the rest at random."""
    needed = sum(part.numel() for part in module.parameters())
    if needed > weights.elements:
        raise InputError(
            f"{folder} does not hold all weights of a {type(module).__name__}: its configuration describes {needed} "
            f"numbers, and its weights have {weights.elements}. Download the model again"
        )
