"""Tables of what the configurations of VAEs may hold, by class."""

from __future__ import annotations

from .encoder_rules import ACTIVATION, EPSILON
from .rules import LAYERS, SWITCH, WIDTH, Rules, exactly, number, one_of, optional, several, whole

KL_BLOCKS = {"down_block_types": "DownEncoderBlock2D", "up_block_types": "UpDecoderBlock2D"}

VAE_CONFIGS: dict[str, Rules] = {
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
    "AutoencoderKLFlux2": {
        "in_channels": exactly(3),
        "out_channels": exactly(3),
        **{name: several(one_of(block), 1, 8) for name, block in KL_BLOCKS.items()},
        "block_out_channels": several(WIDTH, 1, 8),
        "decoder_block_out_channels": optional(several(WIDTH, 1, 8)),
        "layers_per_block": LAYERS,
        "act_fn": ACTIVATION,
        "latent_channels": WIDTH,
        "norm_num_groups": WIDTH,
        "sample_size": whole(1, 2**16),
        "force_upcast": SWITCH,
        "use_quant_conv": SWITCH,
        "use_post_quant_conv": SWITCH,
        "mid_block_add_attention": SWITCH,
        "batch_norm_eps": EPSILON,
        "batch_norm_momentum": number(0, 1),
        "patch_size": exactly([2, 2]),
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
    "AutoencoderKLQwenImage21": {
        "base_dim": WIDTH,
        "decoder_base_dim": optional(WIDTH),
        "z_dim": WIDTH,
        "dim_mult": several(whole(1, 64), 5, 5),
        "num_res_blocks": LAYERS,
        "attn_scales": several(number(0, 64), 0, 8),
        "temperal_downsample": several(SWITCH, 4, 4),
        "dropout": number(0, 1),
        "latents_mean": several(number(-1e6, 1e6), 1, 1024),
        "latents_std": several(number(1e-6, 1e6), 1, 1024),
        "is_residual": SWITCH,
        "in_channels": exactly(4),
        "out_channels": exactly(4),
        "patch_size": exactly(None),
        "scale_factor_temporal": optional(whole(1, 64)),
        "scale_factor_spatial": exactly(16),
    },
}
