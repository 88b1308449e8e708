"""The scale of a LoRA file's layers: from alpha tensors, or from the peft settings that come with the file."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import InputError
from ..outside import parse_json, read_json


def peft_settings(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The settings of a LoRA file from its diffusers metadata or peft's adapter_config.json; empty without either.

    InputError if they cannot be read, or if the initialisation that they name also changes the base model.
    """
    config = path.with_name("adapter_config.json")
    try:
        if "lora_adapter_metadata" in metadata:
            settings = parse_json(metadata["lora_adapter_metadata"], "lora_adapter_metadata")
        elif path.stem == "adapter_model" and config.is_file():
            settings = read_json(config, "the settings")
        else:
            return {}
        settings = {key.removeprefix("transformer."): value for key, value in settings.items()}
        if "lora_alpha" in settings:
            settings["lora_alpha"] = float(settings["lora_alpha"])
        initialisation = str(settings.get("init_lora_weights"))
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"the LoRA settings that came with {path} cannot be read: {error!r}") from error
    if initialisation.startswith(("pissa", "olora", "corda", "loftq")):
        raise InputError(
            f"{path} was initialised with {initialisation}, which changes the base model too: save it converted to a "
            "plain LoRA (peft's path_initial_model_for_weight_conversion)"
        )
    return settings


def layer_scale(path: Path, layer: str, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> float:
    """The scale of one layer, from its "alpha" tensor, else `peft_settings`; without either alpha is the rank."""
    rank = len(tensors["down"])
    if "alpha" in tensors:
        return tensors["alpha"].item() / rank
    try:
        # Matched as peft does: a pattern is a regular expression for the end of a layer's name.
        alphas = [
            float(alpha)
            for pattern, alpha in (settings.get("alpha_pattern") or {}).items()
            if re.fullmatch(rf"(.*\.)?({pattern.removeprefix('^')})", layer)
        ]
    except (re.error, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"the alpha_pattern in the LoRA settings of {path} is invalid: {error!r}") from error
    alpha = alphas[0] if alphas else settings.get("lora_alpha", rank)
    return alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)
