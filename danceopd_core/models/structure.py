"""The parts of a diffusers pipeline folder on the meta device: shapes without weights, from configurations alone."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import InputError
from ..outside import read_json

LIBRARIES = ("diffusers", "transformers")


def read_config(file: Path) -> dict[str, Any]:
    """A configuration of a pipeline folder; InputError if it cannot be read."""
    value = read_json(file, "the configuration")
    if not isinstance(value, dict):
        raise InputError(f"{file} holds no settings: give the folder of a whole diffusers pipeline")
    return value


def empty_part(folder: Path, index: Mapping[str, Any], part: str, dtype: torch.dtype | None = None) -> nn.Module:
    """A part as its configuration describes it, on the meta device, frozen; InputError if it cannot be built.

    index: the content of model_index.json. dtype: of its weights; None: that of its class.
    """
    library, name = index[part]
    if library not in LIBRARIES:
        raise InputError(f"the {part} of {folder} is a {library}.{name}, which is of no known library")
    config = read_config(folder / part / "config.json")
    try:
        cls = getattr(import_module(library), name)
        with torch.device("meta"):
            module = cls.from_config(config) if library == "diffusers" else cls(cls.config_class.from_dict(config))
    except (AttributeError, ImportError, TypeError, ValueError, KeyError) as error:
        raise InputError(f"the {part} of {folder} cannot be built as a {name}: {error}") from error
    return frozen(module, dtype)


def frozen(module: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    """The module without gradients, in this dtype if it is one. diffusers' own `to` would warn of it."""
    return (nn.Module.to(module, dtype) if dtype else module).eval().requires_grad_(False)
