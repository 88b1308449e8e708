"""Settings of tiny networks of every architecture that can be built small, and what their text encoders give."""

import comfy.supported_models
import torch

FLUX = {
    "in_channels": 16, "out_channels": 16, "vec_in_dim": 40, "context_in_dim": 48, "hidden_size": 64, "mlp_ratio": 4.0,
    "num_heads": 2, "depth": 2, "depth_single_blocks": 2, "axes_dim": [4, 14, 14], "theta": 10000, "patch_size": 2,
    "qkv_bias": True, "txt_ids_dims": [],
}  # fmt: skip
LUMINA = {
    "image_model": "lumina2", "patch_size": 2, "in_channels": 16, "dim": 64, "cap_feat_dim": 48, "n_layers": 2,
    "n_refiner_layers": 1, "qk_norm": True, "n_heads": 2, "n_kv_heads": 2, "axes_dims": [8, 12, 12],
    "axes_lens": [300, 64, 64], "rope_theta": 10000.0, "ffn_dim_multiplier": 2.0, "multiple_of": 16,
}  # fmt: skip
ZIMAGE = {  # the width of its modulation is 256, and no less
    **LUMINA, "dim": 256, "n_heads": 4, "n_kv_heads": 4, "axes_dims": [16, 24, 24], "z_image_modulation": True,
    "time_scale": 1000.0, "pad_tokens_multiple": 32,
}  # fmt: skip
OMNIGEN = {
    "hidden_size": 64, "num_layers": 2, "num_refiner_layers": 1, "num_attention_heads": 2, "num_kv_heads": 1,
    "multiple_of": 16, "axes_dim_rope": (8, 12, 12), "axes_lens": (300, 64, 64),
}  # fmt: skip
HUNYUAN = {
    "image_model": "hunyuan_video", "in_channels": 64, "out_channels": 64, "patch_size": [1, 1], "vec_in_dim": None,
    "axes_dim": [16, 16], "meanflow": False, "context_in_dim": 48, "hidden_size": 64, "mlp_ratio": 4.0, "num_heads": 2,
    "depth": 2, "depth_single_blocks": 2, "theta": 256, "qkv_bias": True, "byt5": False, "guidance_embed": False,
    "use_cond_type_embedding": False, "vision_in_dim": None, "meanflow_sum": False,
}  # fmt: skip
PIXELDIT = {
    "num_groups": 2, "hidden_size": 64, "pixel_hidden_size": 8, "pixel_attn_hidden_size": 32, "pixel_num_groups": 2,
    "patch_depth": 2, "pixel_depth": 2, "patch_size": 4, "txt_embed_dim": 48, "txt_max_length": 16,
}  # fmt: skip
WAN = {
    "image_model": "wan2.1", "model_type": "t2v", "dim": 64, "ffn_dim": 96, "freq_dim": 32, "text_dim": 48,
    "num_heads": 2, "num_layers": 2,
}  # fmt: skip
CONFIGS = {
    "SD3": {
        "in_channels": 16, "patch_size": 2, "out_channels": 16, "depth": 2, "num_blocks": 2, "input_size": None,
        "adm_in_channels": 40, "num_patches": 256, "pos_embed_max_size": 16, "qk_norm": "rms",
        "pos_embed_scaling_factor": None, "x_block_self_attn_layers": [0],
        "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": 48, "out_features": 128}},
    },
    "Flux": {**FLUX, "image_model": "flux", "guidance_embed": True},
    "Flux2": {
        **FLUX, "image_model": "flux2", "in_channels": 128, "out_channels": 128, "axes_dim": [8, 8, 8, 8],
        "patch_size": 1, "guidance_embed": False, "vec_in_dim": None, "mlp_ratio": 3.0, "theta": 2000,
        "qkv_bias": False, "ops_bias": False, "global_modulation": True, "mlp_silu_act": True,
        "default_ref_method": "index", "ref_index_scale": 10.0,
        "txt_ids_dims": [3],
    },
    "Chroma": {
        **FLUX, "image_model": "chroma", "in_channels": 64, "out_channels": 64, "in_dim": 64, "out_dim": 64,
        "hidden_dim": 48, "n_layers": 2,
    },
    "Lumina2": LUMINA,
    "ZImage": ZIMAGE,
    "QwenImage": {
        "image_model": "qwen_image", "in_channels": 64, "num_layers": 2, "attention_head_dim": 32,
        "num_attention_heads": 2, "joint_attention_dim": 48, "axes_dims_rope": (8, 12, 12),
    },
    "Krea2": {
        "image_model": "krea2", "features": 64, "heads": 2, "kvheads": 1, "layers": 2, "txtdim": 48, "txtlayers": 2,
        "txtheads": 3, "txtkvheads": 3, "channels": 16, "patch": 2,
    },
    "Anima": {
        "image_model": "anima", "max_img_h": 240, "max_img_w": 240, "max_frames": 128, "in_channels": 16,
        "out_channels": 16, "patch_spatial": 2, "patch_temporal": 1, "concat_padding_mask": True,
        "crossattn_emb_channels": 1024, "pos_emb_cls": "rope3d", "model_channels": 64, "num_blocks": 2, "num_heads": 2,
    },
    # The other image models.
    "AuraFlow": {
        "cond_seq_dim": 48, "dim": 64, "n_heads": 2, "n_layers": 4, "n_double_layers": 2, "global_conddim": 64,
        "max_seq": 256,
    },
    "Boogu": {**OMNIGEN, "image_model": "boogu", "num_double_stream_layers": 2, "instruction_feat_dim": 48},
    "ChromaRadiance": {
        **FLUX, "image_model": "chroma_radiance", "in_channels": 3, "out_channels": 3, "patch_size": 4, "in_dim": 64,
        "out_dim": 64, "hidden_dim": 48, "n_layers": 2, "nerf_hidden_size": 16, "nerf_mlp_ratio": 2, "nerf_depth": 2,
        "nerf_max_freqs": 4, "nerf_tile_size": 512, "nerf_final_head_type": "conv",
        "nerf_embedder_dtype": torch.float32, "use_x0": False, "use_sequential_txt_ids": False,
    },
    "ErnieImage": {
        "image_model": "ernie", "hidden_size": 64, "num_attention_heads": 2, "num_layers": 2, "ffn_hidden_size": 96,
        "text_in_dim": 48, "rope_axes_dim": (8, 12, 12),
    },
    "FluxInpaint": {**FLUX, "image_model": "flux", "in_channels": 96, "guidance_embed": True},
    "FluxSchnell": {**FLUX, "image_model": "flux", "guidance_embed": False},
    "HiDream": {
        "image_model": "hidream", "attention_head_dim": 32, "axes_dims_rope": [16, 8, 8], "caption_channels": [48, 48],
        "max_resolution": [32, 32], "in_channels": 16, "out_channels": 16, "llama_layers": [0, 1, 1, 1],
        "num_attention_heads": 2, "num_layers": 2, "num_single_layers": 2, "num_routed_experts": 4,
        "num_activated_experts": 2, "patch_size": 2, "text_emb_dim": 40,
    },
    "HiDreamO1": {
        "image_model": "hidream_o1",
        "text_config_overrides": {
            "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 1, "head_dim": 32, "rope_dims": [8, 4, 4],
        },
        "vision_config_overrides": {
            "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "depth": 1, "deepstack_visual_indexes": [],
        },
    },
    "HunyuanImage21": HUNYUAN,
    "Ideogram4": {
        "image_model": "ideogram4", "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 32,
        "intermediate_size": 96, "adaln_dim": 32, "llm_features_dim": 48, "mrope_section": (8, 4, 4),
    },
    "JoyImage": {
        "image_model": "joyimage", "hidden_size": 64, "num_attention_heads": 2, "text_dim": 48, "num_layers": 2,
        "rope_dim_list": [8, 12, 12],
    },
    "Kandinsky5Image": {
        "image_model": "kandinsky5", "model_dim": 64, "visual_embed_dim": 64, "in_text_dim": 48, "in_text_dim2": 40,
        "time_dim": 32, "ff_dim": 96, "num_text_blocks": 1, "num_visual_blocks": 2, "axes_dims": (8, 12, 12),
        "rope_scale_factor": (1.0, 1.0, 1.0),
    },
    "Lens": {
        "image_model": "lens", "num_layers": 2, "attention_head_dim": 32, "num_attention_heads": 2,
        "enc_hidden_dim": 24, "axes_dims_rope": (8, 12, 12), "selected_layer_index": (0, 1),
    },
    "LongCatImage": {
        **FLUX, "image_model": "flux", "guidance_embed": False, "vec_in_dim": None, "txt_ids_dims": [1, 2],
    },
    "MageFlow": {
        "image_model": "mage_flow", "num_layers": 2, "attention_head_dim": 32, "num_attention_heads": 2,
        "joint_attention_dim": 48, "axes_dims_rope": (8, 12, 12),
    },
    "Omnigen2": {**OMNIGEN, "image_model": "omnigen2", "text_feat_dim": 48, "timestep_scale": 1000.0},
    "PiD": {**PIXELDIT, "image_model": "pid", "lq_hidden_dim": 32},
    "PixelDiTT2I": {**PIXELDIT, "image_model": "pixeldit_t2i"},
    "ZImagePixelSpace": {
        **ZIMAGE, "image_model": "zimage_pixel", "in_channels": 3, "patch_size": 4, "decoder_hidden_size": 32,
        "decoder_num_res_blocks": 2, "decoder_max_freqs": 4, "decoder_in_channels": 48,
    },
    # Video models, whose picture is a video of one frame.
    "HunyuanVideo": {
        **HUNYUAN, "in_channels": 16, "out_channels": 16, "patch_size": [1, 2, 2], "axes_dim": [8, 12, 12],
        "vec_in_dim": 40, "guidance_embed": True,
    },
    "LTXV": {
        "image_model": "ltxv", "cross_attention_dim": 64, "attention_head_dim": 32, "num_attention_heads": 2,
        "caption_channels": 48, "num_layers": 2,
    },
    "WAN21_T2V": WAN,
    "WAN22_T2V": {**WAN, "in_dim": 48, "out_dim": 48},
}  # fmt: skip
CONFIGS = {name: settings for name, settings in CONFIGS.items() if name in vars(comfy.supported_models)}
"""Settings of the network by the name of ComfyUI's class of the model, as its loader would find them in a file, of the
classes that this ComfyUI has.
"""
POOLED, MASK = {"pooled_output": (1, 40)}, {"attention_mask": (1, 5)}
TEXTS = {
    "SD3": POOLED,
    "Flux": POOLED,
    "FluxSchnell": POOLED,
    "FluxInpaint": POOLED,
    "HunyuanVideo": POOLED,
    "Kandinsky5Image": POOLED,
    "HiDream": {**POOLED, "conditioning_llama3": (2, 7, 48)},
    "HiDreamO1": {"text_input_ids": (1, 5)},
    "Krea2": {"text": (5, 96)},
    "Anima": {"text": (5, 1024)},
    "Boogu": MASK,
    "Omnigen2": MASK,
    "LTXV": MASK,
    "PiD": {"lq_latent": (1, 16, 4, 2), "degrade_sigma": (1,)},
}
"""Shapes of what the text encoder gives, where it is more or other than five tokens of 48 numbers."""
