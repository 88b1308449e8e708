"""A Z-Image pipeline of the real classes, tiny and random, built without a network connection; what others share."""

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

SPECIALS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<think>",
    "</think>",
]
CHAT = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}"
    "{% endif %}{% endif %}"
)


def byte_alphabet() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + rank) for rank in range(len(others))]


def unmerged(cls, tokens: list[str], **settings):
    """A byte-level tokenizer of a class of transformers that merges nothing; by its files, which 4 and 5 both read."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        vocabulary = {token: index for index, token in enumerate(tokens)}
        (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
        return cls.from_pretrained(folder, **settings)


def qwen_tokenizer(*more: str):
    """Knows the specials of Z-Image's text encoder, and `more`."""
    from transformers import Qwen2TokenizerFast

    specials = [*SPECIALS, *more]
    tokenizer = unmerged(
        Qwen2TokenizerFast,
        byte_alphabet() + specials,
        model_max_length=2048,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[t for t in specials if t not in ("<|endoftext|>", "<|im_end|>")],
    )
    tokenizer.chat_template = CHAT
    return tokenizer


@torch.no_grad()
def randomize(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Fills every parameter: gates and output layers start at zero, and zero networks agree with anything."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        drawn = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim >= 2:
            parameter.copy_(drawn / parameter[0].numel() ** 0.5)
        else:
            parameter.copy_(0.1 * drawn + float("norm" in name and name.endswith("weight")))
    return module


def kl_vae(**statistics: float):
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=16,
        norm_num_groups=4,
        layers_per_block=1,
        use_quant_conv=False,
        use_post_quant_conv=False,
        **statistics,
    )


def save_zimage(folder: Path, seed: int = 0, **scheduler) -> Path:
    """The saved pipeline folder; `scheduler` replaces the default static shift of 3."""
    from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
    from transformers import Qwen3Config, Qwen3Model

    tokenizer = qwen_tokenizer()
    text_encoder = Qwen3Model(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=16,
            max_position_embeddings=2048,
        )
    )
    transformer = ZImageTransformer2DModel(
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=32,
        axes_dims=[4, 6, 6],
        axes_lens=[1024, 64, 64],
    )
    vae = kl_vae(scaling_factor=0.3611, shift_factor=0.1159)
    for offset, module in enumerate((text_encoder, transformer, vae)):
        randomize(module, seed + offset).eval()
    ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**(scheduler or {"shift": 3.0})),
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        transformer=transformer,
    ).save_pretrained(folder)
    return folder


def save_twin(folder: Path, of: Path) -> Path:
    """Another model in the latent space of a saved pipeline: its VAE, with other text encoder and transformer."""
    from diffusers import ZImageTransformer2DModel
    from transformers import Qwen3Model

    shutil.copytree(of, folder)
    for seed, (part, kind) in enumerate({"transformer": ZImageTransformer2DModel, "text_encoder": Qwen3Model}.items()):
        randomize(kind.from_pretrained(of / part), 50 + seed).save_pretrained(folder / part)
    return folder
