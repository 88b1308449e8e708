"""One network in two implementations: tiny MODELs, and diffusers' own classes with the same weights."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from inspect import signature
from typing import Any

import comfy.utils
import diffusers
import diffusers.loaders.single_file_utils as single_file
import torch
from pack.danceopd_core.algorithm.fields import Conditioning, Sample
from pack_laws import diffusers_backbones as theirs
from pack_laws.configs import CONFIGS
from pack_laws.tiny_models import fresh_backbone


@dataclass(frozen=True)
class Pair:
    """config: of tiny_models. cls, settings: diffusers' class. convert: native weights -> diffusers' names.

    backbone: a network of diffusers -> velocity(x, sigma, Conditioning), samples with text, pooled and sources.
    """

    config: str
    cls: str
    settings: dict[str, Any]
    convert: Callable[[dict], dict]
    backbone: Callable[[Any], Callable]
    more: dict[str, Any] = field(default_factory=dict)
    text: int = 5


def by_diffusers(name):
    """diffusers' own converter of that name, if it has it."""
    return lambda native: getattr(single_file, name)(native)


def by_map(key_map):
    """Diffusers' weights out of native ones, along ComfyUI's own map of LoRA keys for that family."""

    def convert(native):
        found = {}
        for name, place in key_map.items():
            target, part, function = (place, None, None) if isinstance(place, str) else (*place, None)[:3]
            if target not in native:
                continue
            weight = native[target]
            if part is not None:
                weight = weight.narrow(*part)
            found[name] = function(weight) if function else weight
        return found

    return convert


FLUX = {
    "patch_size": 1, "in_channels": 64, "num_layers": 2, "num_single_layers": 2, "attention_head_dim": 32,
    "num_attention_heads": 2, "joint_attention_dim": 48, "axes_dims_rope": (4, 14, 14),
}  # fmt: skip
FLUX_MAP = comfy.utils.flux_to_diffusers(CONFIGS["Flux"])
CHROMA_MAP = comfy.utils.flux_to_diffusers({**CONFIGS["Flux"], "depth": 19, "depth_single_blocks": 38})
UNUSED_BY_FLUX = {"ff.linear", "ff_context.linear", "to_qkv_mlp_proj", "attn.to_out.weight", "controlnet"}


def flux_weights(native, key_map=FLUX_MAP):
    found = by_map(key_map)(native)
    return {name: weight for name, weight in found.items() if not any(part in name for part in UNUSED_BY_FLUX)}


def chroma_weights(native):
    found = flux_weights(native, CHROMA_MAP)
    for name, weight in native.items():
        if name.startswith("distilled_guidance_layer."):
            name = name.replace("in_layer", "linear_1").replace("out_layer", "linear_2").replace(".scale", ".weight")
            found[name] = weight
    return found


def lumina_weights(native):
    """diffusers' converter, which knows the real widths of query, key and value only, on weights split before."""
    split = {}
    for name, weight in native.items():
        if ".attention.qkv." in name:
            for letter, part in zip("qkv", weight.chunk(3), strict=True):
                split[name.replace(".qkv.", f".to_{letter}.")] = part
        else:
            split[name] = weight
    return single_file.convert_lumina2_to_diffusers(split)


def qwen_weights(native):
    return {name: weight for name, weight in native.items() if weight.numel()}  # without the mark of 2511


QWEN = {
    "patch_size": 2, "in_channels": 64, "out_channels": 16, "num_layers": 2, "attention_head_dim": 32,
    "num_attention_heads": 2, "joint_attention_dim": 48, "axes_dims_rope": (8, 12, 12),
}  # fmt: skip
PAIRS = {
    "SD3.5": Pair(
        "SD3", "SD3Transformer2DModel",
        {"sample_size": 16, "in_channels": 16, "num_layers": 2, "attention_head_dim": 64, "num_attention_heads": 2,
         "joint_attention_dim": 48, "caption_projection_dim": 128, "pooled_projection_dim": 40, "out_channels": 16,
         "pos_embed_max_size": 16, "dual_attention_layers": (0,), "qk_norm": "rms_norm"},
        by_diffusers("convert_sd3_transformer_checkpoint_to_diffusers"), theirs.sd3_backbone,
    ),
    "FLUX.1": Pair(
        "Flux", "FluxTransformer2DModel", {**FLUX, "pooled_projection_dim": 40, "guidance_embeds": True},
        flux_weights, theirs.flux_backbone,
    ),
    "FLUX.2": Pair(
        "Flux2", "Flux2Transformer2DModel",
        {"patch_size": 1, "in_channels": 128, "num_layers": 2, "num_single_layers": 2, "attention_head_dim": 32,
         "num_attention_heads": 2, "joint_attention_dim": 48, "mlp_ratio": 3.0, "axes_dims_rope": (8, 8, 8, 8),
         "rope_theta": 2000, "timestep_guidance_channels": 256, "guidance_embeds": False},
        by_diffusers("convert_flux2_transformer_checkpoint_to_diffusers"), theirs.flux2_backbone,
        text=512,  # ComfyUI pads shorter texts
    ),
    "Z-Image": Pair(
        "ZImage", "ZImageTransformer2DModel",
        {"dim": 1024, "n_layers": 1, "n_refiner_layers": 1, "n_heads": 16, "n_kv_heads": 16, "cap_feat_dim": 48,
         "axes_dims": [16, 24, 24], "axes_lens": [300, 64, 64], "rope_theta": 10000.0},
        by_diffusers("convert_z_image_transformer_checkpoint_to_diffusers"), theirs.zimage_backbone,
        # The narrowest at which both have a time embedding of one width.
        more={"dim": 1024, "n_layers": 1, "n_heads": 16, "n_kv_heads": 16, "ffn_dim_multiplier": 2730 / 1024,
              "multiple_of": 1},
    ),
    "Qwen-Image": Pair("QwenImage", "QwenImageTransformer2DModel", QWEN, qwen_weights, theirs.qwen_backbone),
    "Qwen-Image-Edit-2511": Pair(
        "QwenImage", "QwenImageTransformer2DModel", {**QWEN, "zero_cond_t": True}, qwen_weights, theirs.qwen_backbone,
        more={"default_ref_method": "index_timestep_zero"},
    ),
    "Lumina 2": Pair(
        "Lumina2", "Lumina2Transformer2DModel",
        {"in_channels": 16, "hidden_size": 64, "num_layers": 2, "num_refiner_layers": 1, "num_attention_heads": 2,
         "num_kv_heads": 2, "multiple_of": 16, "ffn_dim_multiplier": 0.5, "axes_dim_rope": (8, 12, 12),
         "axes_lens": (300, 64, 64), "cap_feat_dim": 48},
        lumina_weights, theirs.lumina_backbone,
    ),
    "Chroma": Pair(
        "Chroma", "ChromaTransformer2DModel",
        {**FLUX, "num_layers": 19, "num_single_layers": 38, "approximator_num_channels": 64,
         "approximator_hidden_dim": 48, "approximator_layers": 2},
        chroma_weights, theirs.chroma_backbone,
        more={"depth": 19, "depth_single_blocks": 38},  # ComfyUI numbers the modulations of the real depth
    ),
    "Krea 2": Pair(
        "Krea2", "Krea2Transformer2DModel",
        {"in_channels": 64, "num_layers": 2, "attention_head_dim": 32, "num_attention_heads": 2,
         "num_key_value_heads": 1, "intermediate_size": 256, "text_hidden_dim": 48, "num_text_layers": 2,
         "text_num_attention_heads": 3, "text_num_key_value_heads": 3, "text_intermediate_size": 128,
         "axes_dims_rope": (8, 12, 12)},
        by_diffusers("convert_krea2_transformer_checkpoint_to_diffusers"), theirs.krea_backbone,
    ),
    "AuraFlow": Pair(
        "AuraFlow", "AuraFlowTransformer2DModel",
        {"sample_size": 32, "patch_size": 2, "in_channels": 4, "num_mmdit_layers": 2, "num_single_dit_layers": 2,
         "attention_head_dim": 32, "num_attention_heads": 2, "joint_attention_dim": 48, "caption_projection_dim": 64,
         "out_channels": 4, "pos_embed_max_size": 256},
        by_diffusers("convert_auraflow_transformer_checkpoint_to_diffusers"), theirs.aura_backbone,
    ),
    "Ernie Image": Pair(
        "ErnieImage", "ErnieImageTransformer2DModel",
        {"hidden_size": 64, "num_attention_heads": 2, "num_layers": 2, "ffn_hidden_size": 96, "in_channels": 128,
         "out_channels": 128, "patch_size": 1, "text_in_dim": 48, "rope_theta": 256, "rope_axes_dim": (8, 12, 12)},
        by_diffusers("convert_ernie_image_transformer_checkpoint_to_diffusers"), theirs.ernie_backbone,
    ),
}  # fmt: skip
PAIRS = {
    name: pair
    for name, pair in PAIRS.items()
    if hasattr(diffusers, pair.cls)
    and pair.settings.keys() <= signature(getattr(diffusers, pair.cls)).parameters.keys()
}
"""Of the networks that this diffusers has, with these settings."""


@cache
def both(name):
    """The native backbone, and diffusers' velocity, over the same weights: every weight of both is used."""
    pair = PAIRS[name]
    backbone = fresh_backbone(pair.config, **pair.more)
    native = {key: weight.clone() for key, weight in backbone.network.state_dict().items()}
    network = getattr(diffusers, pair.cls)(**pair.settings).eval()
    network.load_state_dict(pair.convert(native))
    return backbone, pair.backbone(network), network


def question(name, backbone, width, height, count=2, seed=1, references=(), tokens=None):
    """States, times and the same samples for both: of ComfyUI's names, and of the diffusers backbones' names.

    references: sizes of the latents (h, w) of every sample's sources. tokens: of each text.
    """
    pair = PAIRS[name]
    tokens = tokens or pair.text
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    shape = backbone.latent_shape(width, height)
    width_of_text = 96 if pair.config == "Krea2" else 48
    asked, ours = [], []
    for _ in range(count):
        text, pooled = draw(tokens, width_of_text), draw(40)
        sources = [draw(*shape[:-2], *size) for size in references]
        native = {"text": text, "pooled_output": pooled[None]} if pair.config in ("SD3", "Flux") else {"text": text}
        own = {"text": text, "pooled": pooled}
        if sources and pair.config == "ZImage":
            before, after = [draw(tokens, width_of_text) for _ in sources], draw(tokens, width_of_text)
            native["reference_latents_text_embeds"] = tuple(segment[None] for segment in (*before, after))
            own["text"] = (*before, text, after)
        if sources:
            native["reference_latents"] = tuple(backbone.model.process_latent_out(one[None]) for one in sources)
            own["sources"] = tuple(one[:, 0] if one.ndim == 4 else one for one in sources)
        ours.append(Sample(native))
        asked.append(Sample(own))
    return draw(count, *shape), torch.linspace(0.9, 0.2, count), Conditioning(tuple(ours)), Conditioning(tuple(asked))
