"""Run by a test in a Python that has ComfyUI's requirements: files for its stock loaders, of its own classes, with
random weights and as small as its detection of files lets them be.

Usage: stand_ins.py COMFYUI MODELS. CLIP-L and T5 for CLIPLoader are smaller than any that people have, and Qwen3 is
thinner; ComfyUI builds them so by the settings that `main` leaves for the pack `small_encoders`.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

CLIP_L = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2, "num_hidden_layers": 2}
T5 = {"d_model": 48, "d_ff": 64, "d_kv": 16, "num_heads": 2, "num_layers": 2}
QWEN3 = {"num_hidden_layers": 28, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 64}
"""The width of Qwen3 is what ComfyUI knows it by, and FLUX.2 reads its layers 9, 18 and 27."""
FLUX = {
    "vec_in_dim": 64, "context_in_dim": 48, "hidden_size": 128, "mlp_ratio": 4.0, "num_heads": 1, "depth": 2,
    "depth_single_blocks": 2, "axes_dim": [16, 56, 56], "theta": 10000, "patch_size": 2, "qkv_bias": True,
    "in_channels": 16, "out_channels": 16, "txt_ids_dims": [], "guidance_embed": True,
}  # fmt: skip
FLUX2 = {
    **FLUX, "vec_in_dim": None, "context_in_dim": 3 * 2560, "in_channels": 128, "out_channels": 128, "patch_size": 1,
    "axes_dim": [32, 32, 32, 32], "mlp_ratio": 3.0, "theta": 2000, "qkv_bias": False, "ops_bias": False,
    "global_modulation": True, "mlp_silu_act": True, "guidance_embed": False, "txt_ids_dims": [3],
}  # fmt: skip
SD3 = {
    "in_channels": 16, "patch_size": 2, "out_channels": 16, "depth": 2, "num_blocks": 2, "input_size": None,
    "adm_in_channels": 2048, "num_patches": 256, "pos_embed_max_size": 16, "qk_norm": "rms",
    "pos_embed_scaling_factor": None, "x_block_self_attn_layers": [0],
    "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 128}},
}  # fmt: skip
ZIMAGE = {
    "patch_size": 2, "in_channels": 16, "dim": 3840, "cap_feat_dim": 2560, "n_layers": 1, "n_refiner_layers": 2,
    "qk_norm": True, "n_heads": 30, "n_kv_heads": 30, "axes_dims": [32, 48, 48], "axes_lens": [1536, 512, 512],
    "rope_theta": 256.0, "ffn_dim_multiplier": 8.0 / 3.0, "z_image_modulation": True, "time_scale": 1000.0,
    "pad_tokens_multiple": 32,
}  # fmt: skip
VAE = {
    "double_z": True, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2,
    "attn_resolutions": [], "dropout": 0.0,
}  # fmt: skip


def weights(module, seed, dtype=torch.bfloat16):
    """Random weights in the shapes of a module on the meta device, by its names."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, like in module.state_dict().items():
        if not like.is_floating_point():
            continue
        drawn = torch.randn(like.shape, generator=generator)
        if like.ndim >= 2:
            found[name] = (drawn / like[0].numel() ** 0.5).to(dtype)
        else:
            found[name] = (0.1 * drawn + float("norm" in name and name.endswith(("weight", "scale")))).to(dtype)
    return found


def flux(settings, seed):
    import comfy.ops
    from comfy.ldm.flux.model import Flux

    return weights(Flux(**settings, dtype=torch.float32, device="meta", operations=comfy.ops.disable_weight_init), seed)


def zimage(seed):
    """ComfyUI knows Z-Image by its width: one layer of the real one, and its four refiners, in 8 bits."""
    import comfy.ops
    from comfy.ldm.lumina.model import NextDiT

    network = NextDiT(**ZIMAGE, dtype=torch.float32, device="meta", operations=comfy.ops.disable_weight_init)
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, like in network.state_dict().items():
        if like.ndim >= 2 and like.shape[0] > 1:
            drawn = torch.empty(like.shape, dtype=torch.bfloat16).uniform_(-1, 1, generator=generator)
            found[name] = drawn.mul_((3 / like[0].numel()) ** 0.5).to(torch.float8_e4m3fn)
        else:
            found[name] = torch.rand(like.shape, generator=generator).mul(0.2).add(float("norm" in name)).bfloat16()
    return found


def vae(channels, normed, seed):
    """FLUX's, or FLUX.2's with its statistics of 2 x 2 patches: a narrow decoder, and the encoder as it is."""
    from comfy.ldm.modules.diffusionmodules.model import Decoder, Encoder

    with torch.device("meta"):
        parts = {
            "encoder": Encoder(**VAE, z_channels=channels, ch=128),
            "decoder": Decoder(**VAE, z_channels=channels, ch=32),
        }
    found = {f"{part}.{name}": w for part, module in parts.items() for name, w in weights(module, seed).items()}
    if normed:
        found |= {"bn.running_mean": torch.zeros(4 * channels), "bn.running_var": torch.ones(4 * channels)}
        for name, size in (("quant_conv", 2 * channels), ("post_quant_conv", channels)):
            found |= {f"{name}.weight": torch.eye(size)[:, :, None, None], f"{name}.bias": torch.zeros(size)}
    return {name: tensor.contiguous() for name, tensor in found.items()}


def clip_l(config, seed, dtype=torch.float16):
    import comfy.ops
    from comfy.clip_model import CLIPTextModel

    settings = {**json.loads((Path(sys.argv[1]) / "comfy" / "sd1_clip_config.json").read_text()), **config}
    return weights(CLIPTextModel(settings, torch.float32, "meta", comfy.ops.disable_weight_init), seed, dtype)


def t5(seed):
    import comfy.ops
    from comfy.text_encoders.t5 import T5 as Model

    settings = json.loads((Path(sys.argv[1]) / "comfy" / "text_encoders" / "t5_config_xxl.json").read_text())
    made = weights(Model({**settings, **T5}, torch.float32, "meta", comfy.ops.disable_weight_init), seed)
    # ComfyUI knows T5-XXL by the size of this layer, which the small one has not.
    return made | {"encoder.block.23.layer.1.DenseReluDense.wi_1.weight": torch.zeros(10240, 1, dtype=torch.bfloat16)}


def qwen3(seed):
    """At its width in 8 bits: the words alone are 389 MB, and ComfyUI's tokenizer uses the last of them."""
    import comfy.ops
    from comfy.text_encoders.llama import Qwen3_4B

    model = Qwen3_4B(dict(QWEN3), torch.float32, "meta", comfy.ops.disable_weight_init)
    words = model.model.embed_tokens.weight.shape
    del model.model.embed_tokens.weight
    found = {name: w.to(torch.float8_e4m3fn) if w.ndim > 1 else w for name, w in weights(model, seed).items()}
    bits = torch.randint(0, 60, words, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return {**found, "model.embed_tokens.weight": bits.view(torch.float8_e4m3fn)}


def sd3_checkpoint():
    """Network, the one text encoder at its true size, and VAE, as in a file for Load Checkpoint."""
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.mmdit import MMDiT

    network = MMDiT(**SD3, dtype=torch.float32, device="meta", operations=comfy.ops.disable_weight_init)
    parts = {
        "model.diffusion_model.": weights(network, 1),
        "text_encoders.clip_l.transformer.": clip_l({}, 2),
        "first_stage_model.": vae(16, False, 3),
    }
    return {prefix + name: w for prefix, part in parts.items() for name, w in part.items()}


def main(comfyui: Path, models: Path) -> None:
    sys.path.insert(0, str(comfyui))
    from comfy.cli_args import args

    args.cpu = True
    files = {
        "checkpoints/sd35.safetensors": sd3_checkpoint,
        "diffusion_models/flux1.safetensors": lambda: flux(FLUX, 4),
        "diffusion_models/klein.safetensors": lambda: flux(FLUX2, 5),
        "diffusion_models/z_image.safetensors": lambda: zimage(11),
        "text_encoders/clip_l.safetensors": lambda: clip_l(CLIP_L, 6),
        "text_encoders/t5xxl.safetensors": lambda: t5(7),
        "text_encoders/qwen3_4b.safetensors": lambda: qwen3(8),
        "vae/ae.safetensors": lambda: vae(16, False, 9),
        "vae/flux2.safetensors": lambda: vae(32, True, 10),
    }
    for name, make in files.items():
        (models / name).parent.mkdir(parents=True, exist_ok=True)
        save_file(make(), models / name)
    # Under the names by which ComfyUI's text encoders ask for settings.
    settings = {"model_config": CLIP_L, "t5xxl_model_config": T5, "qwen3_4b_model_config": QWEN3}
    (models / "small_encoders.json").write_text(json.dumps(settings), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
