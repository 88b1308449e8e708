"""Tiny random pipelines of the other families, of their real classes."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from danceopd_core.models.qwen import image_processor_class

from .tiny import byte_alphabet, kl_vae, qwen_tokenizer, randomize, unmerged

DYNAMIC = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}


def clip_tokenizer(pad="<|endoftext|>"):
    from transformers import CLIPTokenizerFast

    tokens = byte_alphabet()
    tokens += [f"{token}</w>" for token in tokens] + ["<|startoftext|>", "<|endoftext|>"]
    return unmerged(CLIPTokenizerFast, tokens, pad_token=pad, model_max_length=77)


def t5_tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import T5TokenizerFast

    scores = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    scores += [(chr(code), -3.0) for code in range(33, 127)]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    with TemporaryDirectory() as folder:
        tokenizer.save(str(Path(folder) / "tokenizer.json"))
        return T5TokenizerFast.from_pretrained(folder, extra_ids=0, model_max_length=512)


def clip_encoder(cls, tokenizer, projection=32):
    from transformers import CLIPTextConfig

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=3,
        num_attention_heads=4,
        projection_dim=projection,
        max_position_embeddings=77,
        bos_token_id=0,
        eos_token_id=2,
    )
    return cls(config)


def t5_encoder(tokenizer):
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=64,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
    )
    return T5EncoderModel(config)


def save_sd3(folder: Path, t5: bool = True, **scheduler) -> Path:
    """In the layout of SD3.5 medium: the first block attends twice."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
    from transformers import CLIPTextModelWithProjection

    tokenizers = clip_tokenizer(), clip_tokenizer(pad="!"), t5_tokenizer()
    modules = {
        "text_encoder": clip_encoder(CLIPTextModelWithProjection, tokenizers[0]),
        "text_encoder_2": clip_encoder(CLIPTextModelWithProjection, tokenizers[1]),
        "text_encoder_3": t5_encoder(tokenizers[2]),
        "transformer": SD3Transformer2DModel(
            sample_size=32,
            patch_size=2,
            in_channels=16,
            num_layers=2,
            attention_head_dim=32,
            num_attention_heads=2,
            joint_attention_dim=64,
            caption_projection_dim=64,
            pooled_projection_dim=64,
            out_channels=16,
            pos_embed_max_size=96,
            dual_attention_layers=(0,),
            qk_norm="rms_norm",
        ),
        "vae": kl_vae(scaling_factor=1.5305, shift_factor=0.0609),
    }
    for seed, module in enumerate(modules.values()):
        randomize(module, seed).eval()
    if not t5:
        modules["text_encoder_3"] = None
    StableDiffusion3Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**(scheduler or {"shift": 3.0})),
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        tokenizer_3=tokenizers[2] if t5 else None,
        **modules,
    ).save_pretrained(folder)
    return folder


def save_flux(folder: Path, pipeline: str = "FluxPipeline", guidance: bool = True) -> Path:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextModel

    tokenizers = clip_tokenizer(), t5_tokenizer()
    modules = {
        "text_encoder": clip_encoder(CLIPTextModel, tokenizers[0]),
        "text_encoder_2": t5_encoder(tokenizers[1]),
        "transformer": FluxTransformer2DModel(
            patch_size=1,
            in_channels=64,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=32,
            num_attention_heads=2,
            joint_attention_dim=64,
            pooled_projection_dim=32,
            guidance_embeds=guidance,
            axes_dims_rope=(4, 12, 16),
        ),
        "vae": kl_vae(scaling_factor=0.3611, shift_factor=0.1159),
    }
    for seed, module in enumerate(modules.values()):
        randomize(module, seed).eval()
    FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**DYNAMIC),
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        **modules,
    ).save_pretrained(folder)
    return _renamed(folder, pipeline)


def save_flux2(folder: Path, distilled: bool = False) -> Path:
    """In the layout of FLUX.2 klein, whose text is of three layers of its encoder, the last being the 27th."""
    from diffusers import (
        AutoencoderKLFlux2,
        FlowMatchEulerDiscreteScheduler,
        Flux2KleinPipeline,
        Flux2Transformer2DModel,
    )
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = qwen_tokenizer()
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=28,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=1024,
    )
    modules = {
        "text_encoder": Qwen3ForCausalLM(config),
        "transformer": Flux2Transformer2DModel(
            patch_size=1,
            in_channels=32,
            num_layers=1,
            num_single_layers=2,
            attention_head_dim=32,
            num_attention_heads=2,
            joint_attention_dim=48,
            guidance_embeds=False,
            axes_dims_rope=(8, 8, 8, 8),
        ),
        "vae": AutoencoderKLFlux2(
            block_out_channels=(8, 8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=8,
            norm_num_groups=4,
            layers_per_block=1,
        ),
    }
    for seed, module in enumerate(modules.values()):
        randomize(module, seed).eval()
    statistics = modules["vae"].bn
    statistics.running_mean.copy_(torch.linspace(-0.3, 0.3, 32))
    statistics.running_var.copy_(torch.linspace(0.5, 1.5, 32))
    Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, **DYNAMIC),
        tokenizer=tokenizer,
        is_distilled=distilled,
        **modules,
    ).save_pretrained(folder)
    return folder


def save_qwen(folder: Path, pipeline: str = "QwenImagePipeline", zero_cond_t: bool = False) -> Path:
    from diffusers import FlowMatchEulerDiscreteScheduler, QwenImagePipeline, QwenImageTransformer2DModel
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    tokenizer = qwen_tokenizer("<|image_pad|>", "<|video_pad|>", "<|vision_pad|>")
    number = tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "vocab_size": len(tokenizer),
            "rope_theta": 1e6,
            "max_position_embeddings": 4096,
            "rope_scaling": {"type": "default", "rope_type": "default", "mrope_section": [1, 1, 2]},
        },
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 16,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "window_size": 56,
            "fullatt_block_indexes": [1],
            "temporal_patch_size": 2,
        },
        vocab_size=len(tokenizer),
        image_token_id=number("<|image_pad|>"),
        video_token_id=number("<|video_pad|>"),
        vision_start_token_id=number("<|vision_start|>"),
        vision_end_token_id=number("<|vision_end|>"),
        vision_token_id=number("<|vision_pad|>"),
    )
    modules = {
        "text_encoder": Qwen2_5_VLForConditionalGeneration(config),
        "transformer": QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=64,
            out_channels=16,
            num_layers=2,
            attention_head_dim=32,
            num_attention_heads=2,
            joint_attention_dim=16,
            axes_dims_rope=(8, 12, 12),
            **({"zero_cond_t": True} if zero_cond_t else {}),
        ),
        "vae": video_vae(),
    }
    for seed, module in enumerate(modules.values()):
        randomize(module, seed).eval()
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02
    )
    QwenImagePipeline(scheduler=scheduler, tokenizer=tokenizer, **modules).save_pretrained(folder)
    image_processor_class()(min_pixels=28 * 28, max_pixels=84 * 84).save_pretrained(folder / "processor")
    return _renamed(folder, pipeline)


def video_vae():
    from diffusers import AutoencoderKLQwenImage

    return AutoencoderKLQwenImage(
        base_dim=12,
        z_dim=16,
        dim_mult=[1, 2, 4, 4],
        num_res_blocks=2,  # the number by which diffusers finds the layers of the original
        temperal_downsample=[False, True, True],
        latents_mean=[0.1 * channel for channel in range(16)],
        latents_std=[1 + 0.05 * channel for channel in range(16)],
    )


def qwen3_vl_config(tokenizer):
    from transformers import Qwen3VLConfig

    number = tokenizer.convert_tokens_to_ids
    return Qwen3VLConfig(
        text_config={
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 8,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 1024,
            "rope_theta": 1e6,
            "rope_scaling": {"rope_type": "default", "mrope_section": [2, 1, 1], "mrope_interleaved": True},
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 16,
            "patch_size": 16,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
        image_token_id=number("<|image_pad|>"),
        video_token_id=number("<|video_pad|>"),
        vision_start_token_id=number("<|vision_start|>"),
        vision_end_token_id=number("<|vision_end|>"),
    )


def save_krea2(folder: Path, distilled: bool = False) -> Path:
    """In the layout of Krea 2, whose text is of several hidden states of its encoder."""
    from diffusers import FlowMatchEulerDiscreteScheduler, Krea2Pipeline, Krea2Transformer2DModel
    from transformers import Qwen3VLModel

    tokenizer = qwen_tokenizer("<|image_pad|>", "<|video_pad|>", "<|vision_pad|>")
    modules = {
        "text_encoder": Qwen3VLModel(qwen3_vl_config(tokenizer)),
        "transformer": Krea2Transformer2DModel(
            num_layers=2,
            attention_head_dim=32,
            num_attention_heads=2,
            num_key_value_heads=1,
            intermediate_size=48,
            timestep_embed_dim=32,
            text_hidden_dim=16,
            num_text_layers=2,
            text_num_attention_heads=2,
            text_num_key_value_heads=2,
            text_intermediate_size=24,
            num_layerwise_text_blocks=1,
            num_refiner_text_blocks=1,
            axes_dims_rope=(8, 12, 12),
        ),
        "vae": video_vae(),
    }
    for seed, module in enumerate(modules.values()):
        randomize(module, seed).eval()
    Krea2Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(max_image_seq_len=6400, **DYNAMIC),
        tokenizer=tokenizer,
        text_encoder_select_layers=(1, 3),
        is_distilled=distilled,
        **modules,
    ).save_pretrained(folder)
    return folder


def save_qwen21(folder: Path, sample_sigmas: list[float] | None = None) -> Path:
    """In the layout of Qwen-Image-2.1, whose folder has a processor and no tokenizer beside it."""
    from diffusers import AutoencoderKLQwenImage21, FlowMatchEulerDiscreteScheduler, QwenImage21Transformer2DModel
    from transformers import Qwen3VLForConditionalGeneration

    tokenizer = qwen_tokenizer("<|image_pad|>", "<|video_pad|>", "<|vision_pad|>")
    modules = {
        "text_encoder": Qwen3VLForConditionalGeneration(qwen3_vl_config(tokenizer)),
        "transformer": QwenImage21Transformer2DModel(
            in_channels=16,
            out_channels=16,
            num_layers=2,
            attention_head_dim=32,
            num_attention_heads=2,
            context_in_dim=16,
            axes_dims_rope=(8, 12, 12),
        ),
        "vae": AutoencoderKLQwenImage21(
            base_dim=8,
            decoder_base_dim=8,
            z_dim=16,
            dim_mult=[1, 2, 2, 2, 2],
            num_res_blocks=1,
            latents_mean=[0.1 * channel for channel in range(16)],
            latents_std=[1 + 0.05 * channel for channel in range(16)],
        ),
    }
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02
    )
    if sample_sigmas:
        scheduler = FlowMatchEulerDiscreteScheduler()
    for seed, (name, module) in enumerate(modules.items()):
        randomize(module, seed).eval().save_pretrained(folder / name)
    scheduler.save_pretrained(folder / "scheduler")
    tokenizer.save_pretrained(folder / "processor")
    image_processor_class()(patch_size=16, min_pixels=32**2, max_pixels=96**2).save_pretrained(folder / "processor")
    libraries = {
        "processor": ["transformers", "Qwen3VLProcessor"],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "Qwen3VLForConditionalGeneration"],
        "transformer": ["diffusers", "QwenImage21Transformer2DModel"],
        "vae": ["diffusers", "AutoencoderKLQwenImage21"],
    }
    index = {"_class_name": "QwenImage21Pipeline", "sample_sigmas": sample_sigmas, **libraries}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def _renamed(folder: Path, pipeline: str) -> Path:
    index = folder / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "_class_name": pipeline}))
    return folder
