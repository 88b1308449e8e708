"""The embedded model's text encoder as a CLIP: a Qwen3 of two layers in ComfyUI's own classes, with its tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from comfy import sd1_clip
from comfy.sd import CLIP
from comfy.supported_models_base import ClipTarget
from comfy.text_encoders.llama import BaseLlama, Llama2_, Qwen3_4BConfig
from comfy.text_encoders.z_image import ZImageTokenizer
from comfy.utils import load_torch_file
from transformers import Qwen2Tokenizer

from ...danceopd_core.models.part_files import read_settings
from ...danceopd_core.shapes import locate

NAME = "shapes_qwen3"
PAD = "<|endoftext|>"


@dataclass
class ShapesQwen3Config(Qwen3_4BConfig):
    """Qwen3's settings at the embedded encoder's size."""

    head_dim: int = 32
    rope_theta: float = 10000.0


class ShapesQwen3(BaseLlama, torch.nn.Module):
    """Named as ComfyUI's text encoders are, so that its wrappers find the layers."""

    def __init__(self, config: dict[str, Any], dtype: torch.dtype, device: Any, operations: Any) -> None:
        super().__init__()
        settings = ShapesQwen3Config(**config)
        self.num_layers = settings.num_hidden_layers
        self.model = Llama2_(settings, device=device, dtype=dtype, ops=operations)
        self.dtype = dtype


class ShapesWordTokenizer(sd1_clip.SDTokenizer):
    """The embedded tokenizer as ComfyUI wraps Z-Image's."""

    def __init__(self, embedding_directory: str | None = None, tokenizer_data: Any = None) -> None:
        folder = str(locate("shapes") / "tokenizer")
        tokenizer = Qwen2Tokenizer.from_pretrained(folder, trust_remote_code=False)  # nosec B615
        pad = tokenizer.convert_tokens_to_ids(PAD)
        super().__init__(
            folder, pad_with_end=False, embedding_directory=embedding_directory, embedding_size=128, embedding_key=NAME,
            tokenizer_class=Qwen2Tokenizer, has_start_token=False, has_end_token=False, pad_to_max_length=False,
            max_length=99999999, min_length=1, pad_token=pad, tokenizer_data=tokenizer_data or {},
        )  # fmt: skip


class ShapesTokenizer(ZImageTokenizer):
    """Prompts in Z-Image's chat template."""

    def __init__(self, embedding_directory: str | None = None, tokenizer_data: Any = None) -> None:
        sd1_clip.SD1Tokenizer.__init__(
            self, embedding_directory, tokenizer_data or {}, name=NAME, tokenizer=ShapesWordTokenizer
        )
        self.llama_template = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


class ShapesTextModel(sd1_clip.SDClipModel):
    """The hidden states before the last layer, as Z-Image takes them."""

    def __init__(self, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: Any = None) -> None:
        config = read_settings(locate("shapes") / "text_encoder" / "config.json")
        names = (
            "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
            "num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "head_dim",
        )  # fmt: skip
        settings = {name: config[name] for name in names} | {"rope_theta": config["rope_parameters"]["rope_theta"]}
        super().__init__(
            device=device, dtype=dtype, layer="hidden", layer_idx=config["num_hidden_layers"] - 2,
            textmodel_json_config=settings, special_tokens={"pad": -1}, layer_norm_hidden_state=False,
            model_class=ShapesQwen3, enable_attention_masks=True, return_attention_masks=True,
            model_options=model_options or {},
        )  # fmt: skip


class ShapesClipModel(sd1_clip.SD1ClipModel):
    def __init__(self, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: Any = None) -> None:
        super().__init__(
            device=device, dtype=dtype, model_options=model_options or {}, name=NAME, clip_model=ShapesTextModel
        )


def shapes_clip() -> CLIP:
    """The text encoder and its tokenizer, in float32."""
    state = load_torch_file(str(locate("shapes") / "text_encoder" / "model.safetensors"), safe_load=True)
    state = {f"model.{name}": tensor for name, tensor in state.items()}
    parameters = sum(tensor.numel() for tensor in state.values())
    target = ClipTarget(ShapesTokenizer, ShapesClipModel)
    return CLIP(target, parameters=parameters, state_dict=[state], model_options={"dtype": torch.float32})
