"""Loading the parts of a diffusers folder, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from ..errors import InputError
from .quantise import loading
from .single_files import filled


@dataclass(frozen=True)
class ModelFolder:
    """A diffusers pipeline folder. files: by part, one file whose weights stand for those of the part's folder.
    quantise: the transformer, by a name of `quantise.QUANTISATIONS`."""

    path: Path
    files: Mapping[str, Path] = field(default_factory=dict)
    quantise: str | None = None


def load_part(cls: Any, folder: ModelFolder, part: str, **settings: Any) -> Any:
    """`cls.from_pretrained` of one subfolder, offline; InputError if it is absent or unreadable."""
    place = folder.path / part
    if not place.is_dir():
        raise InputError(f"{folder.path} has no {part} folder: fetch the model again, with all its parts")
    _check_class(cls, place)
    try:
        if part in folder.files:
            return filled(cls, place, folder.files[part], **settings)
        return cls.from_pretrained(place, local_files_only=True, **settings)
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise InputError(f"{folder.files.get(part, place)} cannot be read as a {cls.__name__}: {error}") from error


def _check_class(cls: Any, place: Path) -> None:
    """InputError if the part's configuration is of another diffusers class, which `cls` would read as its own."""
    file = place / (getattr(cls, "config_name", None) or "config.json")
    try:
        found = json.loads(file.read_text(encoding="utf-8")).get("_class_name", cls.__name__)
    except (OSError, ValueError, AttributeError):
        return  # what is wrong with it is told by `cls`
    if found != cls.__name__:
        raise InputError(
            f"{file} is of a {found}, and a {cls.__name__} is needed here: put back the one that the model came with"
        )


def load_module(cls: Any, folder: ModelFolder, part: str, dtype: torch.dtype, device: torch.device | str) -> Any:
    """A frozen diffusers or transformers module in the dtype asked.

    Both libraries fill absent weights with random ones and only warn; here that is an InputError. Weights
    that the module has no use for (a language model's head) are no fault. Pickled weights are not read.
    """
    settings: dict[str, Any] = (
        {"dtype": dtype} if cls.__module__.startswith("transformers.") else {"torch_dtype": dtype}
    )
    if part == "transformer" and folder.quantise is not None:
        settings |= loading(folder.quantise, dtype, device)
    module, report = load_part(cls, folder, part, output_loading_info=True, use_safetensors=True, **settings)
    faults = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if faults:
        raise InputError(
            f"{folder.path / part} does not fill a {cls.__name__}: {len(faults)} weights are missing or misshapen "
            f"({', '.join(faults[:3])}). Fetch the model again"
        )
    return module.to(device).eval().requires_grad_(False)


def padded_ids(tokenizer: Any, text: str, length: int) -> Tensor:
    """A text as exactly `length` token ids (1, length), cut or padded."""
    return tokenizer(text, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids
