"""The parts of every family's pipelines, and tables of what their configurations may hold, by class.

What has no row here is never used.
"""

from __future__ import annotations

from .encoder_rules import ACTIVATION, ENCODER_CONFIGS, EPSILON
from .rules import (
    LAYERS,
    SOME_LAYERS,
    SWITCH,
    WIDTH,
    Rules,
    exactly,
    number,
    one_of,
    optional,
    several,
    whole,
)

PARTS: dict[str, dict[str, str]] = {
    "zimage": {
        "transformer": "ZImageTransformer2DModel",
        "vae": "AutoencoderKL",
        "scheduler": "FlowMatchEulerDiscreteScheduler",
        "text_encoder": "Qwen3Model",
        "tokenizer": "Qwen2Tokenizer",
    },
    "sd3": {
        "transformer": "SD3Transformer2DModel",
        "vae": "AutoencoderKL",
        "scheduler": "FlowMatchEulerDiscreteScheduler",
        "text_encoder": "CLIPTextModelWithProjection",
        "tokenizer": "CLIPTokenizer",
        "text_encoder_2": "CLIPTextModelWithProjection",
        "tokenizer_2": "CLIPTokenizer",
        "text_encoder_3": "T5EncoderModel",
        "tokenizer_3": "T5Tokenizer",
    },
    "flux": {
        "transformer": "FluxTransformer2DModel",
        "vae": "AutoencoderKL",
        "scheduler": "FlowMatchEulerDiscreteScheduler",
        "text_encoder": "CLIPTextModel",
        "tokenizer": "CLIPTokenizer",
        "text_encoder_2": "T5EncoderModel",
        "tokenizer_2": "T5Tokenizer",
    },
    "qwen": {
        "transformer": "QwenImageTransformer2DModel",
        "vae": "AutoencoderKLQwenImage",
        "scheduler": "FlowMatchEulerDiscreteScheduler",
        "text_encoder": "Qwen2_5_VLForConditionalGeneration",
        "tokenizer": "Qwen2Tokenizer",
        "processor": "Qwen2VLImageProcessor",
    },
}
"""The parts of each family's pipelines with their classes; a tokenizer's without Fast."""

ROPE_AXES = several(whole(2, 1024), 3, 3)
KL_BLOCKS = {"down_block_types": "DownEncoderBlock2D", "up_block_types": "UpDecoderBlock2D"}

CONFIGS: dict[str, Rules] = {
    "ZImageTransformer2DModel": {
        "all_patch_size": exactly([2]),
        "all_f_patch_size": exactly([1]),
        "in_channels": WIDTH,
        "dim": WIDTH,
        "n_layers": LAYERS,
        "n_refiner_layers": SOME_LAYERS,
        "n_heads": WIDTH,
        "n_kv_heads": WIDTH,
        "norm_eps": EPSILON,
        "qk_norm": SWITCH,
        "cap_feat_dim": WIDTH,
        "siglip_feat_dim": optional(WIDTH),
        "rope_theta": number(1, 1e9),
        "t_scale": number(1e-3, 1e6),
        "axes_dims": ROPE_AXES,
        "axes_lens": several(whole(1, 16384), 3, 3),
    },
    "SD3Transformer2DModel": {
        "sample_size": whole(1, 4096),
        "patch_size": exactly(2),
        "in_channels": WIDTH,
        "num_layers": LAYERS,
        "attention_head_dim": WIDTH,
        "num_attention_heads": WIDTH,
        "joint_attention_dim": WIDTH,
        "caption_projection_dim": WIDTH,
        "pooled_projection_dim": WIDTH,
        "out_channels": optional(WIDTH),
        "pos_embed_max_size": whole(1, 1024),
        "dual_attention_layers": several(whole(0, 1024), 0, 1024),
        "qk_norm": optional(one_of("rms_norm")),
    },
    "FluxTransformer2DModel": {
        "patch_size": exactly(1),
        "in_channels": WIDTH,
        "out_channels": optional(WIDTH),
        "num_layers": LAYERS,
        "num_single_layers": SOME_LAYERS,
        "attention_head_dim": WIDTH,
        "num_attention_heads": WIDTH,
        "joint_attention_dim": WIDTH,
        "pooled_projection_dim": WIDTH,
        "guidance_embeds": SWITCH,
        "axes_dims_rope": ROPE_AXES,
    },
    "QwenImageTransformer2DModel": {
        "patch_size": exactly(2),
        "in_channels": WIDTH,
        "out_channels": optional(WIDTH),
        "num_layers": LAYERS,
        "attention_head_dim": WIDTH,
        "num_attention_heads": WIDTH,
        "joint_attention_dim": WIDTH,
        "guidance_embeds": SWITCH,
        "axes_dims_rope": ROPE_AXES,
        "zero_cond_t": SWITCH,
        "use_additional_t_cond": exactly(False),
        "use_layer3d_rope": exactly(False),
    },
    "AutoencoderKL": {
        "in_channels": exactly(3),
        "out_channels": exactly(3),
        **{name: several(one_of(block), 1, 8) for name, block in KL_BLOCKS.items()},
        "block_out_channels": several(WIDTH, 1, 8),
        "layers_per_block": LAYERS,
        "act_fn": ACTIVATION,
        "latent_channels": WIDTH,
        "norm_num_groups": WIDTH,
        "sample_size": whole(1, 2**16),
        "scaling_factor": number(1e-6, 1e6),
        "shift_factor": number(-1e6, 1e6),
        "latents_mean": optional(several(number(), 1, 1024)),
        "latents_std": optional(several(number(), 1, 1024)),
        "force_upcast": SWITCH,
        "use_quant_conv": SWITCH,
        "use_post_quant_conv": SWITCH,
        "mid_block_add_attention": SWITCH,
    },
    "AutoencoderKLQwenImage": {
        "base_dim": WIDTH,
        "z_dim": WIDTH,
        "dim_mult": several(whole(1, 64), 1, 8),
        "num_res_blocks": LAYERS,
        "attn_scales": several(number(0, 64), 0, 8),
        "temperal_downsample": several(SWITCH, 1, 8),
        "dropout": number(0, 1),
        "input_channels": exactly(3),
        "latents_mean": several(number(-1e6, 1e6), 1, 1024),
        "latents_std": several(number(1e-6, 1e6), 1, 1024),
    },
    "FlowMatchEulerDiscreteScheduler": {
        "num_train_timesteps": whole(2, 100_000),
        "shift": number(1e-3, 1e3),
        "use_dynamic_shifting": SWITCH,
        "base_shift": number(-100, 100),
        "max_shift": number(-100, 100),
        "base_image_seq_len": whole(1, 2**24),
        "max_image_seq_len": whole(1, 2**24),
        "invert_sigmas": exactly(False),
        "shift_terminal": optional(number(1e-6, 0.999)),
        "use_karras_sigmas": SWITCH,
        "use_exponential_sigmas": SWITCH,
        "use_beta_sigmas": SWITCH,
        "time_shift_type": one_of("exponential", "linear"),
        "stochastic_sampling": SWITCH,
    },
    **ENCODER_CONFIGS,
}
"""By class."""

REQUIRED: dict[str, tuple[str, ...]] = {
    "SD3Transformer2DModel": ("pos_embed_max_size", "num_attention_heads", "attention_head_dim"),
    "AutoencoderKL": ("block_out_channels", "latent_channels", "scaling_factor", "shift_factor"),
    "AutoencoderKLQwenImage": ("z_dim", "temperal_downsample", "latents_mean", "latents_std"),
}
"""Settings without which a part cannot be used, whatever their default."""
