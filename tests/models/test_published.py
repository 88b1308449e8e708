"""Configurations of released models, from public copies: the rules take them, and the memory table has their shapes."""

import inspect

import pytest

from danceopd_core.models.part_rules import CONFIGS
from danceopd_core.models.rules import faults, known
from danceopd_core.runs.budget.released import RELEASED

from ..versions import needs_pipeline

QWEN = {
    "attention_head_dim": 128, "axes_dims_rope": [16, 56, 56], "guidance_embeds": False, "in_channels": 64,
    "joint_attention_dim": 3584, "num_attention_heads": 24, "num_layers": 60, "out_channels": 16, "patch_size": 2,
}  # fmt: skip
KLEIN = {
    "attention_head_dim": 128, "axes_dims_rope": [32, 32, 32, 32], "eps": 1e-06, "guidance_embeds": False,
    "in_channels": 128, "joint_attention_dim": 7680, "mlp_ratio": 3.0, "num_attention_heads": 24, "num_layers": 5,
    "num_single_layers": 20, "out_channels": None, "patch_size": 1, "rope_theta": 2000,
    "timestep_guidance_channels": 256,
}  # fmt: skip
PUBLISHED = {
    # huggingface.co/rootlocalghost/Z-Image-Turbo, commit ecfd213: "clone transformer/config.json"
    "zimage": {
        "all_f_patch_size": [1], "all_patch_size": [2], "axes_dims": [32, 48, 48], "axes_lens": [1536, 512, 512],
        "cap_feat_dim": 2560, "dim": 3840, "in_channels": 16, "n_heads": 30, "n_kv_heads": 30, "n_layers": 30,
        "n_refiner_layers": 2, "norm_eps": 1e-05, "qk_norm": True, "rope_theta": 256.0, "t_scale": 1000.0,
    },
    # huggingface.co/frankjoshua/stable-diffusion-3.5-medium, commit b8c3970
    "sd35m": {
        "dual_attention_layers": list(range(13)), "attention_head_dim": 64, "caption_projection_dim": 1536,
        "in_channels": 16, "joint_attention_dim": 4096, "num_attention_heads": 24, "num_layers": 24,
        "out_channels": 16, "patch_size": 2, "pooled_projection_dim": 2048, "pos_embed_max_size": 384,
        "qk_norm": "rms_norm", "sample_size": 128,
    },
    # huggingface.co/city96/FLUX.1-dev-gguf, refs/pr/34
    "flux": {
        "attention_head_dim": 128, "guidance_embeds": True, "in_channels": 64, "joint_attention_dim": 4096,
        "num_attention_heads": 24, "num_layers": 19, "num_single_layers": 38, "patch_size": 1,
        "pooled_projection_dim": 768,
    },
    # github.com/huggingface/diffusers, scripts/convert_flux2_to_diffusers.py of 207bae7
    "klein4b": KLEIN,
    "klein9b": {**KLEIN, "num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32,
                "joint_attention_dim": 12288},
    # huggingface.co/Skywork/Unipic3, commit 410de46, of Qwen-Image-Edit; Qwen-Image's is the same
    "qwen": QWEN,
    # github.com: converters of Krea 2's original checkpoint, which hold every value to its weights' shapes
    "krea2": {
        "in_channels": 64, "num_layers": 28, "attention_head_dim": 128, "num_attention_heads": 48,
        "num_key_value_heads": 12, "intermediate_size": 16384, "timestep_embed_dim": 256, "text_hidden_dim": 2560,
        "num_text_layers": 12, "text_num_attention_heads": 20, "text_num_key_value_heads": 20,
        "text_intermediate_size": 6912, "num_layerwise_text_blocks": 2, "num_refiner_text_blocks": 2,
        "axes_dims_rope": [32, 48, 48], "rope_theta": 1000.0, "norm_eps": 1e-05,
    },
    # github.com: tests of programs that load Qwen/Qwen-Image-2.1 (790c926) hold it to this
    "qwen21": {
        "attention_head_dim": 128, "axes_dims_rope": [16, 56, 56], "context_in_dim": 4096, "in_channels": 64,
        "num_attention_heads": 32, "num_layers": 32, "out_channels": 64, "patch_size": 1, "mlp_ratio": 3, "eps": 1e-06,
        "causal_condition": True,
    },
}  # fmt: skip
MARKED = [pytest.param(name, marks=needs_pipeline(RELEASED[name].pipeline)) for name in PUBLISHED]


@pytest.mark.parametrize("name", MARKED)
def test_a_released_model_has_the_published_shape(name):
    import diffusers

    model, config = RELEASED[name], PUBLISHED[name]
    parameters = inspect.signature(getattr(diffusers, model.transformer).__init__).parameters
    told = {key: parameters[key].default for key in config if key in parameters} | dict(model.settings)
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in told.items()}
    assert {key: plain[key] for key in config if key in plain} == {key: config[key] for key in config if key in plain}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_rules_take_every_published_setting(name):
    rules = CONFIGS[RELEASED[name].transformer]
    assert list(faults(PUBLISHED[name], rules)) == []
    assert known(PUBLISHED[name], rules) == PUBLISHED[name]


def test_an_edit_2511_is_a_qwen_image_that_takes_its_sources_at_time_zero():
    """Its configuration as public code that opens it has it: Qwen-Image's, with zero_cond_t."""
    config = {**QWEN, "zero_cond_t": True}
    assert known(config, CONFIGS["QwenImageTransformer2DModel"]) == config
    layered = {**config, "use_additional_t_cond": True, "use_layer3d_rope": True}  # is another model
    assert len(list(faults(layered, CONFIGS["QwenImageTransformer2DModel"]))) == 2
