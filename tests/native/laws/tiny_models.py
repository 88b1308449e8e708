"""Tiny MODELs of ComfyUI's real classes with random weights, and random prompts for them."""

from functools import cache, partial

import comfy.model_management as management
import comfy.supported_models as supported
import torch
from comfy.model_patcher import ModelPatcher
from pack.danceopd_core.algorithm.fields import Conditioning, Sample
from pack.nodes.native.backbone import opened

FLUX = {
    "in_channels": 16, "out_channels": 16, "vec_in_dim": 40, "context_in_dim": 48, "hidden_size": 64, "mlp_ratio": 4.0,
    "num_heads": 2, "depth": 1, "depth_single_blocks": 2, "axes_dim": [4, 14, 14], "theta": 10000, "patch_size": 2,
    "qkv_bias": True, "txt_ids_dims": [],
}  # fmt: skip
LUMINA = {
    "image_model": "lumina2", "patch_size": 2, "in_channels": 16, "dim": 64, "cap_feat_dim": 48, "n_layers": 2,
    "n_refiner_layers": 1, "qk_norm": True, "n_heads": 2, "n_kv_heads": 2, "axes_dims": [8, 12, 12],
    "axes_lens": [300, 64, 64], "rope_theta": 10000.0, "ffn_dim_multiplier": 2.0, "multiple_of": 16,
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
    # The width of its modulation is 256, and no less.
    "ZImage": {
        **LUMINA, "dim": 256, "n_heads": 4, "n_kv_heads": 4, "axes_dims": [16, 24, 24], "z_image_modulation": True,
        "time_scale": 1000.0, "pad_tokens_multiple": 32,
    },
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
}  # fmt: skip
"""Settings of the network by the name of ComfyUI's class of the model, as its loader would find them in a file."""
TEXTS = {
    "SD3": {"text": (5, 48), "pooled_output": (1, 40)},
    "Flux": {"text": (5, 48), "pooled_output": (1, 40)},
    "Krea2": {"text": (5, 96)},
    "Anima": {"text": (5, 1024)},
}
"""Shapes of what the text encoder gives, where it is not five tokens of 48 numbers."""


@torch.no_grad()
def randomize(module, seed=0):
    """Fills every parameter: gates and output layers start at zero, and zero networks agree with anything."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in module.named_parameters():
        drawn = torch.randn(weight.shape, generator=generator)
        if weight.ndim >= 2:
            weight.copy_(drawn / weight[0].numel() ** 0.5)
        else:
            weight.copy_(0.1 * drawn + float("norm" in name and name.endswith(("weight", "scale"))))
    for name, buffer in module.named_buffers():
        if name == "pos_embed":  # left empty until a file is loaded
            buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator))


def tiny_model(name, dtype=torch.float32, disable_dynamic=False, more=()):
    """A MODEL with its factory, as a stock loader gives it; `more` are pairs that change its settings."""
    config = vars(supported)[name]({**CONFIGS[name], **dict(more)})
    config.set_inference_dtype(dtype, None)
    model = config.get_model({}, "", device=torch.device("cpu"))
    randomize(model.diffusion_model)
    patcher = ModelPatcher(model, management.get_torch_device(), management.unet_offload_device())
    patcher.cached_patcher_init = (partial(tiny_model, more=more), (name, dtype))
    return patcher


class NoVae:
    """Stands where a VAE would: the laws of networks decode nothing."""

    def __init__(self, latent_format):
        self.latent_channels = latent_format.latent_channels
        self._ratio = latent_format.spacial_downscale_ratio

    def spacial_compression_encode(self):
        return self._ratio


def backbone_of(patcher):
    """A MODEL as a backbone without encoders, with a network of its own."""
    return opened(patcher, None, NoVae(patcher.model.latent_format))


def fresh_backbone(name, dtype=torch.float32, **more):
    with torch.inference_mode():  # as a loader node runs
        patcher = tiny_model(name, dtype, more=tuple(more.items()))
    return backbone_of(patcher)


@cache
def tiny_backbone(name):
    """Made once: for laws that change nothing in it."""
    return fresh_backbone(name)


def prompts(name, count=2, seed=1, **more):
    """Random text embeddings in the shapes of the family; `more` are values of every sample."""
    generator = torch.Generator().manual_seed(seed)
    shapes = TEXTS.get(name, {"text": (5, 48)})
    return Conditioning(
        tuple(
            Sample({key: torch.randn(shape, generator=generator) for key, shape in shapes.items()} | more)
            for _ in range(count)
        )
    )


def sizes(backbone):
    """A small picture that is not square, in pixels."""
    return 4 * backbone.size_multiple, 2 * backbone.size_multiple


def state(backbone, count=2, seed=2):
    """States and times for the velocity."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, *backbone.latent_shape(*sizes(backbone)), generator=generator)
    return x, torch.linspace(0.9, 0.2, count)
