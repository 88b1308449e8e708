"""What decides the pictures of an evaluation, as its folder keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from .folder import lora_digest
from .generate import GenerationConfig


def evaluation_settings(
    layout: str, config: GenerationConfig, prompts: str, model: Mapping[str, Any], lora: str | None, strength: float
) -> dict[str, Any]:
    """For `EvalFolder`; without what does not change a picture: how many prompts are selected, and the batch size.

    prompts: digest of all prompts of the benchmark's file.
    """
    unused = ("pixels",) if layout == "geneval" else ("width", "height")
    config_values = {name: value for name, value in asdict(config).items() if name not in ("batch", "device", *unused)}
    return {
        "layout": layout,
        **model,
        "lora": lora_digest(lora),
        "strength": strength if lora else 1.0,
        **config_values,
        "prompts": prompts,
    }
