"""Loads the parts of a diffusers pipeline folder, completely or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from ..errors import InputError
from .quantise import from_pretrained_kwargs
from .single_files import load_single_file
from .structure import frozen


@dataclass(frozen=True)
class ModelFolder:
    """A diffusers pipeline folder.

    files: by part, a single file whose weights replace those of the part's folder. quantise: quantisation of the
    transformer, a name of `quantise.QUANTISATIONS`. empty_network: whether the transformer is opened without its
    weights, on the meta device.
    """

    path: Path
    files: Mapping[str, Path] = field(default_factory=dict)
    quantise: str | None = None
    empty_network: bool = False


@cache
def at_least(package: str, release: str) -> bool:
    """Whether the installed package is of this release or a later one."""
    from packaging.version import Version

    return Version(version(package)) >= Version(release)


def load_part(cls: Any, folder: ModelFolder, part: str, **settings: Any) -> Any:
    """`cls.from_pretrained` of one subfolder, offline; InputError if it is absent or unreadable."""
    subfolder = folder.path / part
    if not subfolder.is_dir():
        raise InputError(f"{folder.path} has no {part} folder: download the model again, with all its parts")
    _check_class(cls, subfolder)
    try:
        if part in folder.files:
            return load_single_file(cls, subfolder, folder.files[part], **settings)
        return cls.from_pretrained(subfolder, local_files_only=True, **settings)
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise InputError(f"{folder.files.get(part, subfolder)} cannot be read as a {cls.__name__}: {error}") from error


def _check_class(cls: Any, subfolder: Path) -> None:
    """InputError if the part's configuration is of another diffusers class, which `cls` would accept as its own."""
    file = subfolder / (getattr(cls, "config_name", None) or "config.json")
    try:
        found = json.loads(file.read_text(encoding="utf-8")).get("_class_name", cls.__name__)
    except (OSError, ValueError, AttributeError):
        return  # `cls` reports what is wrong with it
    if found != cls.__name__:
        raise InputError(
            f"{file} is of a {found}, and a {cls.__name__} is needed here: restore the one that the model came with"
        )


def load_module(cls: Any, folder: ModelFolder, part: str, dtype: torch.dtype, device: torch.device | str) -> Any:
    """A frozen diffusers or transformers module in this dtype.

    Both libraries initialise missing weights randomly and only warn; here that is an InputError. Unused weights (a
    language model's head) are accepted. Pickled weights are not read.
    """
    if part == "transformer" and folder.empty_network:
        return _empty_network(cls, folder, dtype)
    settings: dict[str, Any] = (
        {"dtype": dtype} if cls.__module__.startswith("transformers.") else {"torch_dtype": dtype}
    )
    if part == "transformer" and folder.quantise is not None:
        settings |= from_pretrained_kwargs(folder.quantise, dtype, device)
    module, report = load_part(cls, folder, part, output_loading_info=True, use_safetensors=True, **settings)
    faults = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if faults:
        raise InputError(
            f"{folder.path / part} does not hold all weights of a {cls.__name__}: {len(faults)} are missing or of "
            f"another shape ({', '.join(faults[:3])}). Download the model again"
        )
    return module.to(device).eval().requires_grad_(False)


def _empty_network(cls: Any, folder: ModelFolder, dtype: torch.dtype) -> Any:
    """The transformer by its configuration, on the meta device; InputError if it cannot be built."""
    subfolder = folder.path / "transformer"
    if not subfolder.is_dir():
        raise InputError(f"{folder.path} has no transformer folder: download the model again, with all its parts")
    _check_class(cls, subfolder)
    try:
        with torch.device("meta"):
            return frozen(cls.from_config(cls.load_config(subfolder, local_files_only=True)), dtype)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise InputError(f"{subfolder} cannot be read as a {cls.__name__}: {error}") from error


def padded_ids(tokenizer: Any, text: str, length: int) -> Tensor:
    """A text as exactly `length` token ids (1, length), truncated or padded."""
    return tokenizer(text, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids
