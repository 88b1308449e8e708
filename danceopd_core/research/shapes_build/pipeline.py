"""Writes the untrained parts of the model's folder, and the index that makes it a diffusers pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..shapes_build import architecture


def write_pipeline(out: Path, tokenizer: Any, text_encoder: Any) -> None:
    import diffusers

    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(out / "tokenizer")
    settings = out / "tokenizer" / "tokenizer_config.json"
    config = json.loads(settings.read_text(encoding="utf-8"))
    if others := config.pop("extra_special_tokens", None):  # transformers 4 cannot read a list of this name
        config["additional_special_tokens"] = others
    settings.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    text_encoder.save_pretrained(out / "text_encoder")
    architecture.scheduler().save_pretrained(out / "scheduler")
    index = {
        "_class_name": "ZImagePipeline",
        "_diffusers_version": diffusers.__version__,
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "Qwen3Model"],
        "tokenizer": ["transformers", "Qwen2TokenizerFast"],
        "transformer": ["diffusers", "ZImageTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (out / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
