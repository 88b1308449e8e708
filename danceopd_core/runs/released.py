"""The shapes of released models, and the memory of runs on them, computed without any of their files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..lookup import lookup
from ..models.quantise import network_bytes
from ..models.registry import default_targets
from ..weights.linear_like import linear_shapes
from .memory import Memory, lora_elements, trained_bytes

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Released:
    """pipeline, transformer: diffusers' classes. settings: of the transformer, where they are not its defaults.
    encoders: classes of transformers, each with its configuration's class and settings."""

    title: str
    pipeline: str
    transformer: str
    settings: Settings
    encoders: tuple[tuple[str, str, Settings], ...]

    def network(self) -> nn.Module:
        """The transformer on the meta device."""
        import diffusers

        with torch.device("meta"):
            return getattr(diffusers, self.transformer)(**self.settings)

    def encoder_elements(self) -> int:
        """The weights of the text encoders and the VAE."""
        import diffusers
        import transformers

        with torch.device("meta"):
            parts = [getattr(transformers, cls)(getattr(transformers, config)(**settings))
                     for cls, config, settings in self.encoders]  # fmt: skip
            parts.append(diffusers.AutoencoderKL(**VAE))
        return sum(p.numel() for part in parts for p in part.parameters())


VAE: Settings = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 16,
    "layers_per_block": 2,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
CLIP_L: Settings = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "projection_dim": 768}
CLIP_G: Settings = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "projection_dim": 1280}
T5_XXL: Settings = {
    "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64, "feed_forward_proj": "gated-gelu",
}  # fmt: skip
QWEN3_4B: Settings = {
    "vocab_size": 151936, "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
}  # fmt: skip
RELEASED = {
    "zimage": Released(
        "Z-Image",
        "ZImagePipeline",
        "ZImageTransformer2DModel",
        {},
        (("Qwen3Model", "Qwen3Config", QWEN3_4B),),
    ),
    "sd35m": Released(
        "Stable Diffusion 3.5 Medium",
        "StableDiffusion3Pipeline",
        "SD3Transformer2DModel",
        {
            "num_layers": 24,
            "attention_head_dim": 64,
            "num_attention_heads": 24,
            "joint_attention_dim": 4096,
            "caption_projection_dim": 1536,
            "pooled_projection_dim": 2048,
            "pos_embed_max_size": 384,
            "dual_attention_layers": tuple(range(13)),
            "qk_norm": "rms_norm",
        },
        (
            ("CLIPTextModelWithProjection", "CLIPTextConfig", CLIP_L),
            ("CLIPTextModelWithProjection", "CLIPTextConfig", CLIP_G),
            ("T5EncoderModel", "T5Config", T5_XXL),
        ),
    ),
}
BASES = {"bf16": None, "int8": "int8", "nf4": "nf4"}
RANKS = (16, 128)
HALF = 2  # bytes of a bfloat16


def memory_table(name: str) -> list[str]:
    """A Markdown table, in GiB, of what is on the device in training by the base's kind, without activations.

    Teachers' LoRAs have the student's rank. Separate copies: a bfloat16 transformer for the student and one for each
    teacher, with the same student.
    """
    model = lookup(RELEASED, name, "released model")
    network, encoders = model.network(), HALF * model.encoder_elements()
    bases = {title: network_bytes(network, HALF, kind) for title, kind in BASES.items()}
    one = lora_elements(linear_shapes(network), default_targets(model.pipeline))
    lines = [
        f"| {model.title}, GiB | {' | '.join(BASES)} | separate copies |",
        f"|---|{'---|' * (len(BASES) + 1)}",
    ]
    for teachers, loras, full in (("two LoRA teachers", 2, 0), ("one full checkpoint", 0, 1)):
        for rank in RANKS:
            shared = {
                title: Memory(base, HALF * loras * rank * one, trained_bytes(rank * one), full * base, 0, encoders)
                for title, base in bases.items()
            }
            copies = shared["bf16"].device + loras * bases["bf16"]
            cells = ["-" if full and BASES[title] else _gib(memory.device) for title, memory in shared.items()]
            lines.append(f"| {teachers}, rank {rank} | {' | '.join([*cells, _gib(copies)])} |")
    opened = [_gib(base + encoders) for base in bases.values()]
    lines.append(f"| while prompts are encoded, with text encoders and VAE | {' | '.join(opened)} | |")
    return lines


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f}"
