"""The shapes of released models, and the memory of runs on them, computed without any of their files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from ...lookup import lookup
from ...models.loading import frozen
from ...models.registry import default_targets
from ...recipe.schema import Bucket, Recipe, Route, Student, Teacher
from ...weights.linear_like import linear_shapes
from .memory import GIB, Estimate
from .walk_inputs import Pass, compression, latent_channels, shapeless_lora

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
    vae: str = "AutoencoderKL"

    def network(self, empty: AbstractContextManager[Any] | None = None) -> nn.Module:
        """The transformer on the meta device, in bfloat16. empty: a block in which weights
        take no memory, in place of that device."""
        import diffusers

        with empty or torch.device("meta"):
            network = getattr(diffusers, self.transformer)(**self.settings)
        return frozen(network, torch.bfloat16)

    def autoencoder(self) -> nn.Module:
        """The VAE on the meta device, in bfloat16."""
        import diffusers

        with torch.device("meta"):
            vae = getattr(diffusers, self.vae)(**VAES.get(self.vae, {}))
        return frozen(vae, torch.bfloat16)

    def encoder_elements(self) -> int:
        """The weights of the text encoders and the VAE."""
        import transformers

        with torch.device("meta"):
            parts = [getattr(transformers, cls)(getattr(transformers, config)(**settings))
                     for cls, config, settings in self.encoders]  # fmt: skip
        return sum(p.numel() for part in (*parts, self.autoencoder()) for p in part.parameters())


VAE: Settings = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 16,
    "layers_per_block": 2,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
}
VAES: Mapping[str, Settings] = {"AutoencoderKL": VAE}
"""Settings of VAEs by class; the others are released with their class's own."""
CLIP_L: Settings = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "projection_dim": 768}
CLIP_G: Settings = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "projection_dim": 1280}
T5_XXL: Settings = {
    "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64, "feed_forward_proj": "gated-gelu",
}  # fmt: skip
QWEN3_4B: Settings = {
    "vocab_size": 151936, "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
}  # fmt: skip
QWEN3_8B: Settings = {**QWEN3_4B, "hidden_size": 4096, "intermediate_size": 12288, "tie_word_embeddings": False}
KLEIN: Settings = {"axes_dims_rope": (32, 32, 32, 32), "guidance_embeds": False}
QWEN25_VL: Settings = {
    "text_config": {
        "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4,
    },
    "vision_config": {
        "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584,
    },
}  # fmt: skip
QWEN3_VL_4B: Settings = {
    "text_config": QWEN3_4B,
    "vision_config": {
        "depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "out_hidden_size": 2560,
        "deepstack_visual_indexes": (5, 11, 17),
    },
}  # fmt: skip
QWEN3_VL_8B: Settings = {
    "text_config": QWEN3_8B,
    "vision_config": {
        "depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16, "out_hidden_size": 4096,
        "deepstack_visual_indexes": (8, 16, 24),
    },
}  # fmt: skip
RELEASED = {
    "zimage": Released(
        "Z-Image",
        "ZImagePipeline",
        "ZImageTransformer2DModel",
        {"axes_lens": (1536, 512, 512)},
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
    "flux": Released(
        "FLUX.1-dev",
        "FluxPipeline",
        "FluxTransformer2DModel",
        {"guidance_embeds": True},
        (("CLIPTextModel", "CLIPTextConfig", CLIP_L), ("T5EncoderModel", "T5Config", T5_XXL)),
    ),
    "klein4b": Released(
        "FLUX.2 klein base 4B",
        "Flux2KleinPipeline",
        "Flux2Transformer2DModel",
        {**KLEIN, "num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680},
        (("Qwen3Model", "Qwen3Config", QWEN3_4B),),
        "AutoencoderKLFlux2",
    ),
    "klein9b": Released(
        "FLUX.2 klein base 9B",
        "Flux2KleinPipeline",
        "Flux2Transformer2DModel",
        {**KLEIN, "num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32, "joint_attention_dim": 12288},
        (("Qwen3Model", "Qwen3Config", QWEN3_8B),),
        "AutoencoderKLFlux2",
    ),
    "qwen": Released(
        "Qwen-Image",
        "QwenImageEditPlusPipeline",
        "QwenImageTransformer2DModel",
        {},
        (("Qwen2_5_VLForConditionalGeneration", "Qwen2_5_VLConfig", QWEN25_VL),),
        "AutoencoderKLQwenImage",
    ),
    "krea2": Released(
        "Krea 2",
        "Krea2Pipeline",
        "Krea2Transformer2DModel",
        {},
        (("Qwen3VLModel", "Qwen3VLConfig", QWEN3_VL_4B),),
        "AutoencoderKLQwenImage",
    ),
    "qwen21": Released(
        "Qwen-Image-2.1",
        "QwenImage21Pipeline",
        "QwenImage21Transformer2DModel",
        {},
        (("Qwen3VLModel", "Qwen3VLConfig", QWEN3_VL_8B),),
        "AutoencoderKLQwenImage21",
    ),
}
"""Transformers are held against public copies of their configurations by `tests/models/test_published.py`. Encoders
were compared with copies of Qwen3-4B, Qwen2.5-VL-7B, T5 v1.1 XXL, CLIP-L and G, FLUX.2's VAE with the flux2 repository;
of Qwen3-8B the widths alone."""

BASES: dict[str, Literal["int8", "nf4"] | None] = {"bf16": None, "int8": "int8", "nf4": "nf4"}
RANKS = (16, 128)
HALF = 2  # bytes of a bfloat16
SIDE = 1024


def released_estimate(name: str, rank: int, edit: bool = False, full: bool = False) -> Estimate:
    """Of a run on the shape of a released model in bfloat16 at 1024 x 1024 pixels, without any of its files.

    Two teachers are LoRAs of the student's rank; full: one teacher is a full checkpoint instead. edit: every prompt
    has a source picture.
    """
    model = lookup(RELEASED, name, "released model")
    network, vae = model.network(), model.autoencoder()
    of = _pass(model, network, vae, edit)
    lora = shapeless_lora(linear_shapes(network), rank, default_targets(model.pipeline))
    size = sum(factor.numel() for factors in (lora.down, lora.up) for factor in factors.values())
    return Estimate(
        _recipe(rank, full), of, vae, lora, 0 if full else 2 * HALF * size, model.encoder_elements(), int(full)
    )


def released_pass(name: str, network: nn.Module, edit: bool = False) -> Pass:
    """What is asked of a network of a released model at 1024 x 1024 pixels; it may be on any device."""
    model = lookup(RELEASED, name, "released model")
    return _pass(model, network, model.autoencoder(), edit)


def _pass(model: Released, network: nn.Module, vae: nn.Module, edit: bool) -> Pass:
    factor = compression(model.vae, dict(vae.config))  # type: ignore[arg-type]
    return Pass(model.pipeline, network, latent_channels(vae), factor, torch.bfloat16, SIDE, SIDE, edit)


def _recipe(rank: int, full: bool) -> Recipe:
    """A recipe of the table's runs; its files are in no place."""
    teachers = {"full": Teacher("full")} if full else {"one": Teacher(lora="one"), "two": Teacher(lora="two")}
    routes = tuple(Route(name, name, Bucket(prompts=("a",))) for name in teachers)
    return Recipe("released", routes, teachers, Student(rank=rank))


def memory_table(name: str, ranks: Sequence[int] = RANKS, edit: bool = False) -> list[str]:
    """A Markdown table, in GiB, of the peak of an update by the base's kind, at batch 1 with gradient checkpointing.

    Separate copies: a bfloat16 transformer for the student and one for each teacher, with the same student.
    """
    title = lookup(RELEASED, name, "released model").title
    lines = [
        f"| {title}{', edits' * edit}, GiB | {' | '.join(BASES)} | bf16 without checkpointing | separate copies |",
        f"|---|{'---|' * (len(BASES) + 2)}",
    ]
    found = None
    for rank in ranks:
        found = released_estimate(name, rank, edit)
        for teachers, made in (("two LoRA teachers", found), ("one full checkpoint", with_checkpoint(found))):
            peaks = {
                kind: made.memory(replace(made.recipe, quantise=base), True, 1).update
                for kind, base in BASES.items()
                if base is None or not made.copies
            }
            kept = made.memory(made.recipe, False, 1).update
            copies = peaks["bf16"] + (0 if made.copies else 2 * made.memory(made.recipe, True, 1).base)
            cells = [_gib(peaks[kind]) if kind in peaks else "-" for kind in BASES]
            lines.append(f"| {teachers}, rank {rank} | {' | '.join([*cells, _gib(kept), _gib(copies)])} |")
    if found is not None:
        memory = found.memory(found.recipe, True, 1)
        opened, whole = _gib(memory.opening), _gib(memory.base + memory.encoders)
        lines.append(f"| while prompts are encoded | {' | '.join([opened] * len(BASES))} | {opened} | {whole} |")
    return lines


def with_checkpoint(found: Estimate) -> Estimate:
    """The estimate with one full checkpoint as its teacher, for what was walked already."""
    made = replace(found, recipe=_recipe(found.recipe.student.rank, True), loras=0, copies=1)
    made.__dict__.update({name: found.__dict__[name] for name in ("checkpointed", "kept") if name in found.__dict__})
    return made


def _gib(size: int) -> str:
    return f"{size / GIB:.1f}"
