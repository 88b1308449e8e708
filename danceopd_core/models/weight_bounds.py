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
from ..weights.safetensors_io import listed, open_header, shards
from .rules import Rules, bounded, known

INDICES = ("model.safetensors.index.json", "diffusion_pytorch_model.safetensors.index.json")


class Extent(NamedTuple):
    """Of weights by their headers: how many tensors, and how many numbers in all."""

    tensors: int
    elements: int


UNKNOWN = Extent(10_000, 2**28)
"""The most that is believed of a model whose weights are not here."""


def weights_of(folder: Path) -> list[Path]:
    """The safetensors files of a part's folder; InputError without any, or if an index names files elsewhere."""
    indices = [folder / name for name in INDICES if (folder / name).exists()]
    files = {file for index in indices for file in shards(index)} | set(folder.glob("*.safetensors"))
    if not files:
        raise InputError(f"{folder} holds no safetensors files: download the model again, with all its parts")
    return sorted(files)


def extent(files: Iterable[Path]) -> Extent:
    """The extent of weights in these files together, without reading any weight."""
    tensors, elements = 0, 0
    for file in files:
        with open_header(file) as handle:
            for key in handle.keys():  # noqa: SIM118 (a safetensors handle, no dict)
                tensors, elements = tensors + 1, elements + math.prod(handle.get_slice(key).get_shape())
    return Extent(tensors, elements)


def check_bounds(source: Path, config: Mapping[str, Any], rules: Rules, weights: Extent) -> None:
    """InputError for a number of layers or a width that these weights cannot have. config: checked by its rules."""
    for name, value, bound in bounded(config, rules):
        if bound == "tensors" and value > weights.tensors:
            raise InputError(
                f"{source} does not hold all the weights that are configured: {name} is {value}, and there "
                f"are {weights.tensors} tensors. Download the model again"
            )
    if (made := _made_at_once(config)) > weights.elements:
        raise InputError(
            f"{source} does not hold all the weights that are configured: positions of {made} numbers, and there are "
            f"{weights.elements} in all. Download the model again"
        )


def _made_at_once(config: Mapping[str, Any]) -> int:
    """The numbers that a network computes as it is built, even without memory for its weights (Stable Diffusion 3)."""
    if "pos_embed_max_size" not in config:
        return 0
    return config["pos_embed_max_size"] ** 2 * config["num_attention_heads"] * config["attention_head_dim"]


def empty_module(cls: Any, config: Mapping[str, Any], rules: Rules) -> nn.Module:
    """The part's module without memory for its weights. config: checked by its rules and `check_bounds`."""
    with torch.device("meta"):
        if cls.__module__.startswith("transformers."):
            return cls(transformers_config(cls, config, rules))
        return cls.from_config(known(config, rules))


def transformers_config(cls: Any, config: Mapping[str, Any], rules: Rules) -> Any:
    """The configuration object of a transformers class, of the settings that have a rule and no others."""
    return cls.config_class.from_dict(known(config, rules))


def check_elements(module: nn.Module, source: Path, weights: Extent) -> None:
    """InputError if the module is of another size altogether than its weights.

    A library would draw what is missing at random. A few missing weights are named once it has loaded the others.
    """
    needed = sum(part.numel() for part in module.parameters())
    if needed > 2 * weights.elements + 2**20:
        raise InputError(
            f"{source} does not hold all weights of a {type(module).__name__}: its configuration describes {needed} "
            f"numbers, and its weights have {weights.elements}. Download the model again"
        )


def check_shapes(module: nn.Module, folder: Path) -> None:
    """InputError for weights of a part's folder that have the module's names and other shapes."""
    expected = {name: list(tensor.shape) for name, tensor in module.state_dict().items()}
    other = []
    for file in weights_of(folder):
        with open_header(file) as handle:
            other += [
                name
                for name in expected.keys() & set(handle.keys())
                if handle.get_slice(name).get_shape() != expected[name]
            ]
    if other:
        raise InputError(
            f"{folder} does not hold the weights of a {type(module).__name__} that is configured so: of other shapes "
            f"are {listed(other)}. Download the model again"
        )
