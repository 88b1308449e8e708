"""A Stable Diffusion 3 pipeline and a LoRA of random weights, built on disk: a step costs what its shapes cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ...weights.linear_like import linear_shapes

SIZES: dict[str, dict[str, Any]] = {
    # 9 million parameters.
    "small": {
        "num_layers": 4, "num_attention_heads": 4, "attention_head_dim": 64, "joint_attention_dim": 256,
        "caption_projection_dim": 256, "pooled_projection_dim": 64, "pos_embed_max_size": 96,
        "dual_attention_layers": (),
    },
    # The configuration of stable-diffusion-3.5-medium.
    "medium": {
        "num_layers": 24, "num_attention_heads": 24, "attention_head_dim": 64, "joint_attention_dim": 4096,
        "caption_projection_dim": 1536, "pooled_projection_dim": 2048, "pos_embed_max_size": 384,
        "dual_attention_layers": tuple(range(13)),
    },
}  # fmt: skip
TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
"""The layers that the official trainer adapts."""


def build_pipeline(folder: Path, size: str, dtype: torch.dtype, device: str = "cpu") -> Path:
    """A pipeline folder: a transformer of this size with text encoders and a VAE as small as their classes allow.

    device: where the transformer's random weights are drawn.
    """
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )

    torch.manual_seed(0)
    shapes = SIZES[size]
    clips = [_clip(shapes["pooled_projection_dim"] // 2) for _ in range(2)]
    t5, t5_tokenizer = _t5(shapes["joint_attention_dim"])
    vae: Any = AutoencoderKL(
        block_out_channels=(8,) * 4, latent_channels=16, norm_num_groups=4,
        use_quant_conv=False, use_post_quant_conv=False,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        scaling_factor=1.5305, shift_factor=0.0609,
    )  # fmt: skip
    with torch.device(device):
        transformer: Any = SD3Transformer2DModel(
            sample_size=128, patch_size=2, in_channels=16, out_channels=16, qk_norm="rms_norm", **shapes
        )
    pipeline: Any = StableDiffusion3Pipeline(
        transformer=transformer.to(dtype),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae.to(dtype),
        text_encoder=clips[0][0].to(dtype),
        tokenizer=clips[0][1],
        text_encoder_2=clips[1][0].to(dtype),
        tokenizer_2=clips[1][1],
        text_encoder_3=t5.to(dtype),
        tokenizer_3=t5_tokenizer,
    )
    pipeline.save_pretrained(folder)
    build_lora(folder / "lora", transformer, TARGETS, rank=16)
    return folder


def build_lora(folder: Path, transformer: torch.nn.Module, targets: Sequence[str], rank: int) -> None:
    """A LoRA of random weights in peft's layout, which both trainers read."""
    factors = {}
    for name, (outputs, inputs) in linear_shapes(transformer).items():
        if name.endswith(tuple(f".{target}" for target in targets)):
            key = f"base_model.model.{name}"
            factors[f"{key}.lora_A.weight"] = torch.randn(rank, inputs) / inputs**0.5
            factors[f"{key}.lora_B.weight"] = 0.01 * torch.randn(outputs, rank)
    folder.mkdir()
    save_file(factors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": list(targets)}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")


def _clip(projection: int) -> tuple[Any, Any]:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizerFast  # type: ignore[attr-defined]

    letters = [chr(code) for code in range(97, 123)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = CLIPTokenizerFast(vocab=vocabulary, merges=[], model_max_length=77)
    config = CLIPTextConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        projection_dim=projection, bos_token_id=0, eos_token_id=vocabulary["<|endoftext|>"],
    )  # fmt: skip
    return CLIPTextModelWithProjection(config), tokenizer


def _t5(width: int) -> tuple[Any, Any]:
    from tokenizers import Tokenizer, models
    from transformers import T5Config, T5EncoderModel, T5TokenizerFast  # type: ignore[attr-defined]

    scores = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((chr(code), -3.0) for code in range(97, 123))]
    tokenizer = T5TokenizerFast(
        tokenizer_object=Tokenizer(models.Unigram(scores, unk_id=2)), extra_ids=0, model_max_length=512
    )
    config = T5Config(vocab_size=len(scores), d_model=width, d_kv=16, d_ff=32, num_layers=1, num_heads=2)
    return T5EncoderModel(config), tokenizer
