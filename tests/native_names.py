"""Weights under the names of the original models, made from diffusers'; diffusers' own converters hold them to it."""

import re

import torch
from diffusers.loaders.single_file_utils import (
    convert_sd3_transformer_checkpoint_to_diffusers,
    convert_z_image_transformer_checkpoint_to_diffusers,
)

ZIMAGE = {
    "all_x_embedder.2-1.": "x_embedder.",
    "all_final_layer.2-1.": "final_layer.",
    ".attention.to_out.0.": ".attention.out.",
    ".norm_q.": ".q_norm.",
    ".norm_k.": ".k_norm.",
}
SD3 = {
    "pos_embed.pos_embed": "pos_embed",
    "pos_embed.proj.": "x_embedder.proj.",
    "time_text_embed.timestep_embedder.linear_1.": "t_embedder.mlp.0.",
    "time_text_embed.timestep_embedder.linear_2.": "t_embedder.mlp.2.",
    "time_text_embed.text_embedder.linear_1.": "y_embedder.mlp.0.",
    "time_text_embed.text_embedder.linear_2.": "y_embedder.mlp.2.",
    "norm_out.linear.": "final_layer.adaLN_modulation.1.",
    "proj_out.": "final_layer.linear.",
    "transformer_blocks.": "joint_blocks.",
    ".norm1.linear.": ".x_block.adaLN_modulation.1.",
    ".norm1_context.linear.": ".context_block.adaLN_modulation.1.",
    ".attn.qkv": ".x_block.attn.qkv",
    ".attn.add_qkv": ".context_block.attn.qkv",
    ".attn2.qkv": ".x_block.attn2.qkv",
    ".attn.to_out.0.": ".x_block.attn.proj.",
    ".attn2.to_out.0.": ".x_block.attn2.proj.",
    ".attn.to_add_out.": ".context_block.attn.proj.",
    ".attn.norm_q.": ".x_block.attn.ln_q.",
    ".attn.norm_k.": ".x_block.attn.ln_k.",
    ".attn2.norm_q.": ".x_block.attn2.ln_q.",
    ".attn2.norm_k.": ".x_block.attn2.ln_k.",
    ".attn.norm_added_q.": ".context_block.attn.ln_q.",
    ".attn.norm_added_k.": ".context_block.attn.ln_k.",
    ".ff.net.0.proj.": ".x_block.mlp.fc1.",
    ".ff.net.2.": ".x_block.mlp.fc2.",
    ".ff_context.net.0.proj.": ".context_block.mlp.fc1.",
    ".ff_context.net.2.": ".context_block.mlp.fc2.",
}
CONVERTERS = {
    "ZImageTransformer2DModel": (ZIMAGE, convert_z_image_transformer_checkpoint_to_diffusers),
    "SD3Transformer2DModel": (SD3, convert_sd3_transformer_checkpoint_to_diffusers),
}


def to_native(network, copy=True) -> dict[str, torch.Tensor]:
    """The network's weights under the original model's names; without `copy` they share its memory."""
    state = {name: tensor.clone() if copy else tensor for name, tensor in network.state_dict().items()}
    for first in [name for name in state if ".to_q." in name or ".add_q_proj." in name]:
        one, fused = (".to_q.", ".qkv.") if ".to_q." in first else (".add_q_proj.", ".add_qkv.")
        parts = [state.pop(first.replace(one, one.replace("q", letter))) for letter in "qkv"]
        state[first.replace(one, fused)] = torch.cat(parts)
    renames, _ = CONVERTERS[type(network).__name__]
    native = {}
    for name, tensor in state.items():
        last = getattr(network, "config", {}).get("num_layers", 0) - 1
        if name.startswith(("norm_out.linear.", f"transformer_blocks.{last}.norm1_context.linear.")):
            scale, shift = tensor.chunk(2)
            tensor = torch.cat([shift, scale])
        for theirs, original in renames.items():
            name = name.replace(theirs, original)
        native[name] = tensor
    return native


def from_native(network, native) -> dict[str, torch.Tensor]:
    """The same under diffusers' names, as diffusers' own converter has them."""
    return CONVERTERS[type(network).__name__][1](dict(native))


VAE = {
    ".mid_block.resnets.0.": ".mid.block_1.",
    ".mid_block.resnets.1.": ".mid.block_2.",
    ".mid_block.attentions.0.group_norm.": ".mid.attn_1.norm.",
    ".mid_block.attentions.0.to_q.": ".mid.attn_1.q.",
    ".mid_block.attentions.0.to_k.": ".mid.attn_1.k.",
    ".mid_block.attentions.0.to_v.": ".mid.attn_1.v.",
    ".mid_block.attentions.0.to_out.0.": ".mid.attn_1.proj_out.",
    ".conv_norm_out.": ".norm_out.",
    ".conv_shortcut.": ".nin_shortcut.",
    ".downsamplers.0.": ".downsample.",
    ".upsamplers.0.": ".upsample.",
    ".resnets.": ".block.",
}


def vae_to_native(vae) -> dict[str, torch.Tensor]:
    """An AutoencoderKL's weights under the original names: the decoder counts its blocks from the picture."""
    last, native = len(vae.config.block_out_channels) - 1, {}
    for name, tensor in vae.state_dict().items():
        if ".attentions." in name and tensor.ndim == 2:
            tensor = tensor[:, :, None, None]  # there it is a convolution
        for theirs, original in VAE.items():
            name = name.replace(theirs, original)
        name = re.sub(r"down_blocks\.(\d+)", r"down.\1", name)
        name = re.sub(r"up_blocks\.(\d+)", lambda match: f"up.{last - int(match[1])}", name)
        native[name] = tensor.clone()
    return native


VIDEO_VAE = {
    r"\.mid_block\.resnets\.0\.": ".middle.0.",
    r"\.mid_block\.resnets\.1\.": ".middle.2.",
    r"\.mid_block\.attentions\.0\.": ".middle.1.",
    r"\.down_blocks\.": ".downsamples.",
    r"\.norm1\.": ".residual.0.",
    r"\.conv1\.": ".residual.2.",
    r"\.norm2\.": ".residual.3.",
    r"\.conv2\.": ".residual.6.",
    r"\.conv_shortcut\.": ".shortcut.",
    r"\.norm_out\.": ".head.0.",
    r"\.conv_out\.": ".head.2.",
    r"\.conv_in\.": ".conv1.",
    r"^quant_conv\.": "conv1.",
    r"^post_quant_conv\.": "conv2.",
}


def video_vae_to_native(vae) -> dict[str, torch.Tensor]:
    """An AutoencoderKLQwenImage's weights under the original names, which number the decoder's layers through."""
    native = {}
    for name, tensor in vae.state_dict().items():
        for theirs, original in VIDEO_VAE.items():
            name = re.sub(theirs, original, name)
        name = re.sub(
            r"\.up_blocks\.(\d)\.(resnets|upsamplers)\.(\d)\.",
            lambda match: f".upsamples.{4 * int(match[1]) + (3 if match[2] == 'upsamplers' else int(match[3]))}.",
            name,
        )
        native[name] = tensor.clone()
    return native


FLUX = {
    "time_text_embed.timestep_embedder.linear_1.": "time_in.in_layer.",
    "time_text_embed.timestep_embedder.linear_2.": "time_in.out_layer.",
    "time_text_embed.text_embedder.linear_1.": "vector_in.in_layer.",
    "time_text_embed.text_embedder.linear_2.": "vector_in.out_layer.",
    "time_text_embed.guidance_embedder.linear_1.": "guidance_in.in_layer.",
    "time_text_embed.guidance_embedder.linear_2.": "guidance_in.out_layer.",
    "context_embedder.": "txt_in.",
    "x_embedder.": "img_in.",
    "norm_out.linear.": "final_layer.adaLN_modulation.1.",
    "single_transformer_blocks.": "single_blocks.",
    "transformer_blocks.": "double_blocks.",
    ".norm1.linear.": ".img_mod.lin.",
    ".norm1_context.linear.": ".txt_mod.lin.",
    ".norm.linear.": ".modulation.lin.",
    ".ff.net.0.proj.": ".img_mlp.0.",
    ".ff.net.2.": ".img_mlp.2.",
    ".ff_context.net.0.proj.": ".txt_mlp.0.",
    ".ff_context.net.2.": ".txt_mlp.2.",
    ".attn.to_out.0.": ".img_attn.proj.",
    ".attn.to_add_out.": ".txt_attn.proj.",
    ".attn.norm_added_q.weight": ".txt_attn.norm.query_norm.scale",
    ".attn.norm_added_k.weight": ".txt_attn.norm.key_norm.scale",
    ".attn.add_q_proj.": ".txt_attn.qkv.",
    ".proj_out.": ".linear2.",
}


def flux_to_native(network) -> dict[str, torch.Tensor]:
    """FLUX.1's weights under the original names."""
    state, native = dict(network.state_dict()), {}
    for first in [name for name in state if ".to_q." in name or ".add_q_proj." in name]:
        kin = [first, first.replace("_q", "_k"), first.replace("_q", "_v")]
        if first.startswith("single"):
            kin.append(first.replace("attn.to_q", "proj_mlp"))
        state[first] = torch.cat([state[first], *(state.pop(name) for name in kin[1:])])
    for name, tensor in state.items():
        single = name.startswith("single")
        if name.startswith("norm_out.linear."):
            tensor = torch.cat(tensor.chunk(2)[::-1])
        name = name.replace(".attn.to_q.", ".linear1." if single else ".img_attn.qkv.")
        for short, kind in (("q", "query"), ("k", "key")):
            place = ".norm" if single else ".img_attn.norm"
            name = name.replace(f".attn.norm_{short}.weight", f"{place}.{kind}_norm.scale")
        if name.startswith("proj_out."):
            name = f"final_layer.linear.{name.removeprefix('proj_out.')}"
        for theirs, original in FLUX.items():
            name = name.replace(theirs, original)
        native[name] = tensor
    return native


FLUX2 = {
    "time_guidance_embed.timestep_embedder.linear_1.": "time_in.in_layer.",
    "time_guidance_embed.timestep_embedder.linear_2.": "time_in.out_layer.",
    "_modulation_img.linear.": "_modulation_img.lin.",
    "_modulation_txt.linear.": "_modulation_txt.lin.",
    "single_stream_modulation.linear.": "single_stream_modulation.lin.",
    "context_embedder.": "txt_in.",
    "x_embedder.": "img_in.",
    "norm_out.linear.": "final_layer.adaLN_modulation.1.",
    "single_transformer_blocks.": "single_blocks.",
    "transformer_blocks.": "double_blocks.",
    ".ff.linear_in.": ".img_mlp.0.",
    ".ff.linear_out.": ".img_mlp.2.",
    ".ff_context.linear_in.": ".txt_mlp.0.",
    ".ff_context.linear_out.": ".txt_mlp.2.",
    ".attn.to_qkv_mlp_proj.": ".linear1.",
    ".attn.to_out.0.": ".img_attn.proj.",
    ".attn.to_out.": ".linear2.",
    ".attn.to_add_out.": ".txt_attn.proj.",
    ".attn.norm_added_q.weight": ".txt_attn.norm.query_norm.scale",
    ".attn.norm_added_k.weight": ".txt_attn.norm.key_norm.scale",
    ".attn.to_q.": ".img_attn.qkv.",
    ".attn.add_q_proj.": ".txt_attn.qkv.",
}


def flux2_to_native(network) -> dict[str, torch.Tensor]:
    """FLUX.2's weights under the original names."""
    state, native = dict(network.state_dict()), {}
    for first in [name for name in state if ".to_q." in name or ".add_q_proj." in name]:
        kin = [first, first.replace("_q", "_k"), first.replace("_q", "_v")]
        state[first] = torch.cat([state[first], *(state.pop(name) for name in kin[1:])])
    for name, tensor in state.items():
        single = name.startswith("single_transformer")
        if name.startswith("norm_out.linear."):
            tensor = torch.cat(tensor.chunk(2)[::-1])
        for short, kind in (("q", "query"), ("k", "key")):
            place = ".norm" if single else ".img_attn.norm"
            name = name.replace(f".attn.norm_{short}.weight", f"{place}.{kind}_norm.scale")
        if name.startswith("proj_out."):
            name = f"final_layer.linear.{name.removeprefix('proj_out.')}"
        for theirs, original in FLUX2.items():
            name = name.replace(theirs, original)
        native[name] = tensor
    return native


def flux2_vae_to_native(vae) -> dict[str, torch.Tensor]:
    """An AutoencoderKLFlux2's weights under the original names."""
    native = {}
    for name, tensor in vae_to_native(vae).items():
        half = {"quant_conv": "encoder.", "post_quant_conv": "decoder."}.get(name.split(".")[0], "")
        native[half + name] = tensor
    return native


def tiny_flux2():
    """A transformer of FLUX.2 klein's kind, tiny and random."""
    from diffusers import Flux2Transformer2DModel

    from .tiny import randomize

    network = Flux2Transformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=32,
        num_attention_heads=2,
        joint_attention_dim=24,
        guidance_embeds=False,
        axes_dims_rope=(8, 8, 8, 8),
    )
    return randomize(network, seed=4).eval().requires_grad_(False)


KREA2 = {
    "img_in.": "first.",
    "time_embed.linear_1.": "tmlp.0.",
    "time_embed.linear_2.": "tmlp.2.",
    "time_mod_proj.": "tproj.1.",
    "txt_in.norm.weight": "txtmlp.0.scale",
    "txt_in.linear_1.": "txtmlp.1.",
    "txt_in.linear_2.": "txtmlp.3.",
    "text_fusion.": "txtfusion.",
    "transformer_blocks.": "blocks.",
    "final_layer.linear.": "last.linear.",
    "final_layer.norm.weight": "last.norm.scale",
    "final_layer.scale_shift_table": "last.modulation.lin",
    ".scale_shift_table": ".mod.lin",
    ".attn.to_q.": ".attn.wq.",
    ".attn.to_k.": ".attn.wk.",
    ".attn.to_v.": ".attn.wv.",
    ".attn.to_out.0.": ".attn.wo.",
    ".attn.to_gate.": ".attn.gate.",
    ".attn.norm_q.weight": ".attn.qknorm.qnorm.scale",
    ".attn.norm_k.weight": ".attn.qknorm.knorm.scale",
    ".ff.": ".mlp.",
    ".norm1.weight": ".prenorm.scale",
    ".norm2.weight": ".postnorm.scale",
}


def krea2_to_native(network) -> dict[str, torch.Tensor]:
    """Krea 2's weights under the original names."""
    native = {}
    for name, tensor in network.state_dict().items():
        flat = name.startswith("transformer_blocks.") and name.endswith("scale_shift_table")
        for theirs, original in KREA2.items():
            name = name.replace(theirs, original)
        native[name] = tensor.flatten() if flat else tensor
    return native


def tiny_krea2():
    """A transformer of Krea 2's kind, tiny and random."""
    from diffusers import Krea2Transformer2DModel

    from .tiny import randomize

    network = Krea2Transformer2DModel(
        in_channels=16,
        num_layers=2,
        attention_head_dim=32,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=48,
        timestep_embed_dim=32,
        text_hidden_dim=16,
        num_text_layers=6,
        text_num_attention_heads=2,
        text_num_key_value_heads=2,
        text_intermediate_size=24,
        axes_dims_rope=(8, 12, 12),
    )
    return randomize(network, seed=4).eval().requires_grad_(False)


def qwen21_to_native(network) -> dict[str, torch.Tensor]:
    """Qwen-Image-2.1's weights as ComfyUI has them, with two layers of each block in one."""
    native = dict(network.state_dict())
    for gate in [name for name in native if ".gate_layer." in name]:
        parts = [native.pop(gate), native.pop(gate.replace(".gate_layer.", ".proj."))]
        native[gate.replace(".gate_layer.", ".gate_up.")] = torch.cat(parts)
    return native


def tiny_qwen21():
    """A transformer of Qwen-Image-2.1's kind, tiny and random."""
    from diffusers import QwenImage21Transformer2DModel

    from .tiny import randomize

    network = QwenImage21Transformer2DModel(
        in_channels=16,
        out_channels=16,
        num_layers=2,
        attention_head_dim=32,
        num_attention_heads=2,
        context_in_dim=16,
        axes_dims_rope=(8, 12, 12),
    )
    return randomize(network, seed=4).eval().requires_grad_(False)


def tiny_sd3():
    """A transformer of SD3.5-medium's kind, tiny and random."""
    from diffusers import SD3Transformer2DModel

    from .tiny import randomize

    network = SD3Transformer2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=24,
        caption_projection_dim=32,
        pooled_projection_dim=40,
        pos_embed_max_size=8,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    return randomize(network, seed=4).eval().requires_grad_(False)


def tiny_flux():
    """A transformer of FLUX.1 dev's kind, tiny and random."""
    from diffusers import FluxTransformer2DModel

    from .tiny import randomize

    network = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=32,
        num_attention_heads=2,
        joint_attention_dim=24,
        pooled_projection_dim=40,
        guidance_embeds=True,
        axes_dims_rope=(4, 12, 16),
    )
    return randomize(network, seed=4).eval().requires_grad_(False)


def sd3_velocity(network):
    """The network as a function of nothing: its answer to one fixed question."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(2, 4, 8, 8, generator=generator)
    text = torch.randn(2, 3, 24, generator=generator)
    pooled = torch.randn(2, 40, generator=generator)
    with torch.no_grad():
        return network(x, text, pooled, torch.tensor([800.0, 300.0]), return_dict=False)[0]
