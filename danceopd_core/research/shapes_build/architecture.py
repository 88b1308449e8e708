"""The untrained parts of the embedded pipeline: tokenizer, text encoder, VAE, transformer, scheduler."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from ...shapes.language import vocabulary
from .projection import CHANNELS

SIDE = 64  # pixels a side of the training images
TEXT_WIDTH = 128
WIDTH, HEADS, LAYERS = 128, 4, 6
SHIFT = 3.0
CHAT = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")


def tokenizer() -> Any:
    """A Qwen2 byte-level BPE tokenizer, trained until every word of the language is one token."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    words = [*vocabulary(), "user", "assistant"]
    corpus = [word for word in words for _ in range(2)] + [f"x {word}" for word in words for _ in range(2)]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe.train_from_iterator(
        corpus, trainers.BpeTrainer(vocab_size=2000, min_frequency=2, initial_alphabet=alphabet, show_progress=False)
    )
    model = json.loads(bpe.to_str())["model"]
    vocab = model["vocab"] | {token: len(model["vocab"]) + n for n, token in enumerate(SPECIALS)}
    result = byte_pairs(
        vocab,
        model["merges"],
        model_max_length=512,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[t for t in SPECIALS if t not in ("<|endoftext|>", "<|im_end|>")],
    )
    result.chat_template = CHAT
    return result


def byte_pairs(vocab: Mapping[str, int], merges: Sequence[Sequence[str]], **settings: Any) -> Any:
    """A Qwen2 tokenizer of a vocabulary; by its files, which transformers 4 and 5 both read."""
    from transformers import Qwen2TokenizerFast  # type: ignore[attr-defined]

    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "vocab.json").write_text(json.dumps(dict(vocab)), encoding="utf-8")
        lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
        (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
        return Qwen2TokenizerFast.from_pretrained(folder, **settings)  # nosec B615


def text_encoder(vocab_size: int) -> Any:
    """A Qwen3 with random weights, never trained: its tokens are distinct, and the transformer's refiner reads them.

    Its embeddings are large relative to the layers' updates, so that a word has nearly the same features in every
    caption: random attention would otherwise mix them more than a small model can separate.
    """
    from transformers import Qwen3Config, Qwen3Model

    config = Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=1024,
        initializer_range=0.05,
        dtype="float32",
    )
    model = Qwen3Model(config).eval()
    with torch.no_grad():
        model.embed_tokens.weight.normal_()
    return model


def vae() -> Any:
    """An AutoencoderKL with 16 x 16 latents for 64 px."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=8,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
        scaling_factor=1.0,
        shift_factor=0.0,
        sample_size=SIDE,
    )


def transformer(width: int = WIDTH, heads: int = HEADS, layers: int = LAYERS) -> Any:
    """Z-Image's own transformer class at a small size; 64 px are 64 tokens."""
    from diffusers import ZImageTransformer2DModel

    head = width // heads
    network: Any = ZImageTransformer2DModel(
        all_patch_size=(2,),
        all_f_patch_size=(1,),
        in_channels=CHANNELS,
        dim=width,
        n_layers=layers,
        n_refiner_layers=1,
        n_heads=heads,
        n_kv_heads=heads,
        cap_feat_dim=TEXT_WIDTH,
        axes_dims=[head // 4, head * 3 // 8, head * 3 // 8],
        axes_lens=[512, 64, 64],
    )
    with torch.no_grad():
        # Zero gates initialise the blocks as the identity; the pad tokens must differ from zero to be distinguishable.
        for name, parameter in network.named_parameters():
            if "adaLN_modulation" in name or "all_final_layer" in name:
                parameter.zero_()
            elif "pad_token" in name:
                parameter.normal_(std=0.02)
    return network.eval()


def scheduler() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=SHIFT, use_dynamic_shifting=False)
