"""Loads the parts of a diffusers pipeline folder, completely or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, shown
from ..listening import heard, work
from ..weights.key_conversion import UNUSED_BUFFER
from .backbone import COMPONENTS
from .part_files import class_name, part_settings
from .part_rules import CONFIGS
from .precision import cast
from .quantise import from_pretrained_kwargs
from .single_files import load_single_file
from .weight_bounds import (
    UNKNOWN,
    check_bounds,
    check_elements,
    check_shapes,
    empty_module,
    extent,
    transformers_config,
    weights_of,
)


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


@cache  # the libraries take a fifth of a second to list their names
def class_of(name: str) -> Any:
    """The class of this name in the tables: of tokenizers the one in Rust, of the image processor the one without
    torchvision, to which transformers 5.4 gave a name of its own."""
    import diffusers
    import transformers

    variants = (f"{name}Pil",) if name.endswith("Processor") else (f"{name}Fast",)
    for library in (diffusers, transformers):
        for one in (*variants, name):
            if one in dir(library):
                return getattr(library, one)
    raise InputError(f"the installed diffusers and transformers have no {name}: pip install -U diffusers transformers")


@cache
def at_least(package: str, release: str) -> bool:
    """Whether the installed package is of this release or a later one."""
    from packaging.version import Version

    return Version(version(package)) >= Version(release)


def load_part(cls: Any, folder: ModelFolder, part: str) -> Any:
    """A tokenizer, scheduler or processor of this class, offline; InputError if it is absent or unreadable."""
    subfolder = _subfolder(folder, part)
    part_settings(subfolder, class_name(cls))
    with _reading(subfolder, cls):
        return cls.from_pretrained(subfolder, local_files_only=True, **_no_code(cls))


def check_part(folder: ModelFolder, part: str, name: str) -> Any:
    """The part as the class of this name, a module without memory for its weights; InputError if that cannot be."""
    settings_of(folder, part, name)
    return empty_part(class_of(name), folder, part) if part in COMPONENTS else load_part(class_of(name), folder, part)


def empty_part(cls: Any, folder: ModelFolder, part: str, here: bool = True) -> nn.Module:
    """A part's module without memory for its weights; InputError if its configuration does not fit their headers.

    here: whether the weights have to be there.
    """
    rules, config = CONFIGS[class_name(cls)], settings_of(folder, part, class_name(cls))
    source = folder.files.get(part, folder.path / part)
    weights = extent([source] if part in folder.files else weights_of(source)) if here else UNKNOWN
    check_bounds(source, config, rules, weights)
    with _reading(source, cls):
        module = empty_module(cls, config, rules)
        if here:
            check_elements(module, source, weights)
    if here and part not in folder.files:
        check_shapes(module, source)
    return module


def settings_of(folder: ModelFolder, part: str, name: str) -> dict[str, Any]:
    """The checked configuration of a part that is to be of the class of this name."""
    return part_settings(_subfolder(folder, part), name)


def load_module(cls: Any, folder: ModelFolder, part: str, dtype: torch.dtype, device: torch.device | str) -> Any:
    """A frozen diffusers or transformers module in this dtype.

    Both libraries initialise missing weights randomly and only warn; here that is an InputError. Unused weights (a
    language model's head) are accepted. Pickled weights are not read. `check_part` has compared the configuration with
    the weights' headers, before memory is spent.
    """
    if part == "transformer" and folder.empty_network:
        return frozen(empty_part(cls, folder, part), dtype)
    subfolder, config = folder.path / part, settings_of(folder, part, class_name(cls))
    source = folder.files.get(part, subfolder)
    quantised = part == "transformer" and folder.quantise is not None
    with work(f"loading and quantising the {part}" if quantised else f"loading the {part}"), _reading(source, cls):
        if part in folder.files:
            module, report = load_single_file(cls, subfolder, source, config, dtype)
        else:
            module, report = cls.from_pretrained(
                subfolder,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                **_module_settings(cls, config, dtype),
                **_quantised(folder, part, dtype, device),
            )
    missing = [key for key in map(str, report["missing_keys"]) if not key.endswith(UNUSED_BUFFER)]
    faults = sorted([*missing, *map(str, report["mismatched_keys"])])
    if faults:
        raise InputError(
            f"{folder.path / part} does not hold all weights of a {cls.__name__}: {len(faults)} are missing or of "
            f"another shape ({', '.join(faults[:3])}). Download the model again"
        )
    return module.to(device).eval().requires_grad_(False)


def part_folder(model: Path, part: str) -> Path:
    """The folder of a part: a pipeline without one for its tokenizer has it beside the other half of its processor."""
    folder, processor = model / part, model / "processor"
    inside = part == "tokenizer" and not os.path.isdir(folder) and os.path.exists(processor / "tokenizer_config.json")
    return processor if inside else folder


def _subfolder(folder: ModelFolder, part: str) -> Path:
    subfolder = part_folder(folder.path, part)
    if not os.path.isdir(subfolder):
        raise InputError(f"{folder.path} has no {part} folder: download the model again, with all its parts")
    return subfolder


def _no_code(cls: Any) -> dict[str, Any]:
    """Of what transformers would otherwise ask the user; diffusers' classes run no code of a folder."""
    return {"trust_remote_code": False} if cls.__module__.startswith("transformers.") else {}


def _module_settings(cls: Any, config: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    if not cls.__module__.startswith("transformers."):
        return {"torch_dtype": dtype}
    from transformers import GenerationConfig

    return {
        "dtype": dtype,
        "config": transformers_config(cls, config, CONFIGS[class_name(cls)]),
        "generation_config": GenerationConfig(),  # else read from the folder
        **_no_code(cls),
    }


def _quantised(folder: ModelFolder, part: str, dtype: torch.dtype, device: torch.device | str) -> dict[str, Any]:
    if part != "transformer" or folder.quantise is None:
        return {}
    return from_pretrained_kwargs(folder.quantise, dtype, device)


@contextmanager
def _reading(source: Path, cls: Any) -> Iterator[None]:
    """Whatever a library says of files from outside is an InputError that names them."""
    try:
        yield
    except (InputError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        heard()  # what ended the work is nothing of the file
        raise _unreadable(source, cls, error) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of tokenizers' Rust code: pyo3 derives it from BaseException
            raise
        raise _unreadable(source, cls, error) from error


def _unreadable(source: Path, cls: Any, error: BaseException) -> InputError:
    reason = shown(" ".join(str(error).split()), 300) or type(error).__name__
    return InputError(f"{source} cannot be read as a {cls.__name__}: {reason}")


def frozen(module: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    """The module without gradients, in this dtype if it is one."""
    return (cast(module, dtype) if dtype else module).eval().requires_grad_(False)


def padded_ids(tokenizer: Any, text: str, length: int) -> Tensor:
    """A text as exactly `length` token ids (1, length), truncated or padded."""
    return tokenizer(text, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids


def load_text(encoder: Any, tokenizer: Any, folder: ModelFolder, number: str, *given: Any) -> tuple[Any, Any]:
    """A text encoder and its tokenizer, of the parts of this number ("", "_2"); given: dtype and device.

    InputError for a tokenizer whose tokens the encoder does not know.
    """
    module, tokens = (
        load_module(encoder, folder, f"text_encoder{number}", *given),
        load_part(tokenizer, folder, f"tokenizer{number}"),
    )
    known = module.get_input_embeddings().num_embeddings
    if len(tokens) > known:
        raise InputError(
            f"{folder.path} has a tokenizer{number} of {len(tokens)} tokens, and its text_encoder{number} knows "
            f"{known}: download the model again, with all its parts"
        )
    return module, tokens


def clip_length(tokenizer: Any, encoder: Any) -> int:
    """The tokens of a text for CLIP: the tokenizer's limit, as in the pipelines, but no more than it has positions."""
    return min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
