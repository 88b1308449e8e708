"""Loads a part of a pipeline from a single weight file, as ComfyUI keeps them; every key must be used."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from ..weights.full_checkpoints import check_weights, checked_weights
from ..weights.key_conversion import UNUSED_BUFFER, refuse_quantised
from ..weights.safetensors_io import finite, listed, open_header, open_safetensors
from .part_files import class_name
from .part_rules import CONFIGS
from .precision import dtype_of
from .rules import known
from .weight_bounds import transformers_config

IGNORED_KEYS = re.compile(
    r"(.*\.)?(lm_head\.weight|logit_scale|text_projection\.weight|position_ids|spiece_model|tekken_model)"
)
"""Keys in text-encoder files that are not part of the encoder: heads of the original model, constants, tokenizers."""


def load_single_file(
    cls: Any, folder: Path, file: Path, config: Mapping[str, Any], dtype: torch.dtype
) -> tuple[Any, Any]:
    """A module of this class on the CPU with a file's weights, and a loading report as of from_pretrained.

    folder, config: the part's folder, whose checked configuration it is. InputError, naming the file and the first
    keys, unless the weights are complete, all used, finite, not quantised and of the right shapes.
    """
    if cls.__module__.startswith("transformers."):
        return _encoder(cls, folder, file, config, dtype)
    return _network(cls, file, config, dtype), {"missing_keys": [], "mismatched_keys": []}


def check_single_file(network: Any | None, file: Path) -> None:
    """InputError as of `load_single_file`, as far as the file's header tells.

    network: the part that it is for, if that is a network whose configuration is known; it may be on the meta device.
    """
    if network is not None:
        check_weights(network, file, fp8=False)
        return
    with open_header(file):
        pass


def _network(cls: Any, file: Path, config: Mapping[str, Any], dtype: torch.dtype) -> Any:
    from accelerate import init_empty_weights

    with init_empty_weights():  # parameters only: buffers that no file holds are initialised as usual
        module = cls.from_config(known(config, CONFIGS[class_name(cls)]))
    state = {name: part for name, part in module.state_dict().items() if name.endswith(UNUSED_BUFFER)}
    for name, tensor in checked_weights(module, file, fp8=False):
        state[name] = tensor.to(dtype_of(cls, name, dtype), copy=True)
    module.load_state_dict(state, strict=True, assign=True)
    return module


def _encoder(cls: Any, folder: Path, file: Path, config: Mapping[str, Any], dtype: torch.dtype) -> tuple[Any, Any]:
    settings = transformers_config(cls, config, CONFIGS[class_name(cls)])
    with open_safetensors(file) as handle:
        keys = list(handle.keys())
        dtypes = {key: str(handle.get_slice(key).get_dtype()) for key in keys if not IGNORED_KEYS.fullmatch(key)}
        refuse_quantised(file, dtypes, fp8=False)
        state = {key: handle.get_tensor(key).clone() for key in keys}  # out of the mapped file
    bad = [key for key in dtypes if not finite(state[key])]
    if bad:
        raise InputError(f"{file} cannot be used: {listed(bad)} hold NaN or infinity; download it again")
    # transformers converts the earlier names of its models' weights, which most of ComfyUI's files use.
    module, report = cls.from_pretrained(
        None, config=settings, state_dict=state, dtype=dtype, output_loading_info=True, trust_remote_code=False
    )
    unknown = [key for key in report["unexpected_keys"] if not IGNORED_KEYS.fullmatch(key)]
    missing = [*map(str, report["missing_keys"]), *map(str, report["mismatched_keys"])]
    if unknown or missing:
        faults = [f"{len(names)} {fault} ({listed(names)})" for fault, names in
                (("unknown", unknown), ("missing or of another shape", missing)) if names]  # fmt: skip
        raise InputError(
            f"{file} does not fit the {cls.__name__} of {folder}: {'; '.join(faults)}. Give a text encoder's own file, "
            "under the names of transformers, not one of a whole model"
        )
    return module, report
