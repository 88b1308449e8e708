"""Tables of what the configurations of text encoders and their image processor may hold, by class."""

from __future__ import annotations

from .rules import (
    LAYERS,
    SWITCH,
    TEXT,
    WIDTH,
    Rule,
    Rules,
    either,
    exactly,
    mapping,
    number,
    one_of,
    optional,
    several,
    whole,
)

ACTIVATION = one_of("silu", "swish", "gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "mish")
TOKEN = optional(whole(-1, 2**22))
DROPOUT = optional(number(0, 1))
EPSILON = number(0, 1)
ATTENTION_TYPES = optional(several(one_of("full_attention", "sliding_attention"), 0, 1024))


def _rope(**more: Rule) -> Rule:
    kind = one_of("default", "mrope", "axial")
    sections = several(whole(1, 4096), 1, 8)
    return optional(
        mapping({"type": kind, "rope_type": kind, "rope_theta": number(1, 1e9), "mrope_section": sections, **more})
    )


ROPE = _rope()

INTERLEAVED_ROPE = _rope(mrope_interleaved=SWITCH)

QWEN_DECODER: Rules = {
    "vocab_size": WIDTH,
    "hidden_size": WIDTH,
    "intermediate_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": WIDTH,
    "num_key_value_heads": optional(WIDTH),
    "hidden_act": ACTIVATION,
    "max_position_embeddings": whole(1, 2**24),
    "initializer_range": number(0, 100),
    "rms_norm_eps": EPSILON,
    "rope_theta": number(1, 1e9),
    "rope_scaling": ROPE,
    "rope_parameters": ROPE,
    "use_sliding_window": SWITCH,
    "sliding_window": optional(whole(1, 2**24)),
    "max_window_layers": optional(whole(0, 1024)),
    "layer_types": ATTENTION_TYPES,
    "attention_dropout": DROPOUT,
    "bos_token_id": TOKEN,
    "eos_token_id": optional(either(whole(-1, 2**22), several(whole(-1, 2**22), 0, 64))),
    "pad_token_id": TOKEN,
    "tie_word_embeddings": SWITCH,
}
PIXELS = whole(1, 2**30)

CLIP: Rules = {
    "model_type": one_of("clip_text_model"),
    "vocab_size": WIDTH,
    "hidden_size": WIDTH,
    "intermediate_size": WIDTH,
    "projection_dim": optional(whole(1, 2**18)),
    "num_hidden_layers": LAYERS,
    "num_attention_heads": WIDTH,
    "max_position_embeddings": WIDTH,
    "hidden_act": ACTIVATION,
    "layer_norm_eps": EPSILON,
    "attention_dropout": DROPOUT,
    "initializer_range": number(0, 100),
    "initializer_factor": number(0, 100),
    "pad_token_id": TOKEN,
    "bos_token_id": TOKEN,
    "eos_token_id": whole(-1, 2**22),
}

QWEN3_VL: Rules = {
    "model_type": one_of("qwen3_vl"),
    "text_config": mapping(
        {
            **QWEN_DECODER,
            "rope_scaling": INTERLEAVED_ROPE,
            "rope_parameters": INTERLEAVED_ROPE,
            "head_dim": WIDTH,
            "attention_bias": SWITCH,
            "model_type": one_of("qwen3_vl_text"),
        }
    ),
    "vision_config": mapping(
        {
            "model_type": one_of("qwen3_vl", "qwen3_vl_vision"),
            "depth": LAYERS,
            "hidden_size": WIDTH,
            "hidden_act": ACTIVATION,
            "intermediate_size": WIDTH,
            "num_heads": WIDTH,
            "in_channels": exactly(3),
            "patch_size": WIDTH,
            "spatial_merge_size": whole(1, 16),
            "temporal_patch_size": exactly(2),
            "out_hidden_size": WIDTH,
            "num_position_embeddings": WIDTH,
            "deepstack_visual_indexes": several(whole(0, 1024), 0, 64),
            "initializer_range": number(0, 100),
            "rope_parameters": ROPE,
        }
    ),
    "tie_word_embeddings": SWITCH,
    **{f"{kind}_token_id": TOKEN for kind in ("image", "video", "vision_start", "vision_end")},
}

ENCODER_CONFIGS: dict[str, Rules] = {
    "Qwen3Model": {**QWEN_DECODER, "head_dim": WIDTH, "attention_bias": SWITCH, "model_type": one_of("qwen3")},
    "Qwen3VLModel": QWEN3_VL,
    "CLIPTextModel": CLIP,
    "CLIPTextModelWithProjection": CLIP,
    "T5EncoderModel": {
        "model_type": one_of("t5"),
        "vocab_size": WIDTH,
        "d_model": WIDTH,
        "d_kv": WIDTH,
        "d_ff": WIDTH,
        "num_layers": LAYERS,
        "num_decoder_layers": optional(whole(0, 1024)),
        "num_heads": WIDTH,
        "relative_attention_num_buckets": whole(4, 4096),
        "relative_attention_max_distance": whole(4, 2**20),
        "dropout_rate": number(0, 1),
        "layer_norm_epsilon": EPSILON,
        "initializer_factor": number(0, 100),
        "feed_forward_proj": one_of("relu", "gated-gelu", "gated-silu"),
        "pad_token_id": TOKEN,
        "eos_token_id": optional(whole(-1, 2**22)),
        "tie_word_embeddings": SWITCH,
    },
    "Qwen2_5_VLForConditionalGeneration": {
        **QWEN_DECODER,
        "model_type": one_of("qwen2_5_vl"),
        "text_config": mapping({**QWEN_DECODER, "model_type": one_of("qwen2_5_vl_text")}),
        "vision_config": mapping(
            {
                "model_type": one_of("qwen2_5_vl", "qwen2_5_vl_vision"),
                "depth": LAYERS,
                "hidden_size": WIDTH,
                "hidden_act": ACTIVATION,
                "intermediate_size": WIDTH,
                "num_heads": WIDTH,
                "in_channels": exactly(3),
                "in_chans": exactly(3),
                "patch_size": WIDTH,
                "spatial_merge_size": whole(1, 16),
                "temporal_patch_size": exactly(2),
                "tokens_per_second": number(1, 1000),
                "window_size": whole(1, 4096),
                "out_hidden_size": WIDTH,
                "fullatt_block_indexes": several(whole(0, 1024), 0, 1024),
                "initializer_range": number(0, 100),
                "rope_parameters": ROPE,
            }
        ),
        **{f"{kind}_token_id": TOKEN for kind in ("image", "video", "vision_start", "vision_end", "vision")},
    },
    "Qwen2VLImageProcessor": {
        "image_processor_type": TEXT,
        "do_resize": optional(SWITCH),
        "do_rescale": optional(SWITCH),
        "do_normalize": optional(SWITCH),
        "do_convert_rgb": optional(SWITCH),
        "resample": whole(0, 5),
        "rescale_factor": number(0, 1),
        "image_mean": several(number(-10, 10), 3, 3),
        "image_std": several(number(1e-3, 10), 3, 3),
        "min_pixels": optional(PIXELS),
        "max_pixels": optional(PIXELS),
        "size": optional(
            mapping({name: PIXELS for name in ("shortest_edge", "longest_edge", "min_pixels", "max_pixels")})
        ),
        "patch_size": whole(1, 256),
        "temporal_patch_size": exactly(2),
        "merge_size": whole(1, 16),
    },
}
