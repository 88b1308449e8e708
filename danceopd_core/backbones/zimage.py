"""Z-Image, after diffusers' ZImagePipeline (text) and ZImageOmniPipeline (text and source pictures).

Both paths run on the plain transformer; an edit goes without the optional SigLIP features.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..fields import Conditioning, Sample, Value
from . import Sources
from .parts import load_module, load_part

MAX_TOKENS = 512  # of one text segment, as in the pipeline


@dataclass(frozen=True, eq=False)
class ZImage:
    network: nn.Module
    vae: Any
    text_encoder: Any
    tokenizer: Any
    scheduler: Any
    dtype: torch.dtype  # of the network's inputs; adapters in float32 do not change it

    family: ClassVar[str] = "zimage"
    default_targets: ClassVar[tuple[str, ...]] = ("to_q", "to_k", "to_v", "to_out.0", "w1", "w2", "w3")

    @property
    def _factor(self) -> int:
        """Pixels a latent: 8 in the released VAE."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def size_multiple(self) -> int:
        return 2 * self._factor  # the transformer's patches are 2 x 2

    def velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor:
        edits = [row for row, sample in enumerate(cond.samples) if "sources" in sample.values]
        if not edits:
            return self._from_text(x, sigma, cond)
        if len(edits) == len(cond):
            return self._edit(x, sigma, cond)
        # The two layouts number image positions differently, so a mixed batch is two calls put back in order.
        texts = [row for row in range(len(cond)) if row not in edits]
        parts = [
            self._from_text(x[texts], sigma[texts], cond.select(texts)),
            self._edit(x[edits], sigma[edits], cond.select(edits)),
        ]
        order = torch.tensor(texts + edits, device=x.device).argsort()
        return torch.cat(parts)[order]

    def _from_text(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        texts = [self._cast(sample.values["text"], x)[0] for sample in cond.samples]
        return self._read(self.network(self._latents(x), _clock(sigma), texts, return_dict=False))

    def _edit(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        texts = [self._cast(sample.values["text"], x) for sample in cond.samples]
        sources = [[z.unsqueeze(1) for z in self._cast(sample.values["sources"], x)] for sample in cond.samples]
        answer = self.network(
            [[*clean, noisy] for clean, noisy in zip(sources, self._latents(x), strict=True)],
            _clock(sigma),
            texts,
            siglip_feats=[None] * len(texts),
            image_noise_mask=[[0] * len(clean) + [1] for clean in sources],
            return_dict=False,
        )
        return self._read(answer)

    def _latents(self, x: Tensor) -> list[Tensor]:
        return list(x.to(self.dtype).unsqueeze(2).unbind(0))  # each (C, 1 frame, H, W)

    def _cast(self, value: Value, x: Tensor) -> list[Tensor]:
        parts = (value,) if isinstance(value, Tensor) else value
        return [part.to(x.device, self.dtype) for part in parts]

    @staticmethod
    def _read(answer: tuple[list[Tensor]]) -> Tensor:
        return -torch.stack([v.float() for v in answer[0]]).squeeze(2)  # it answers clean - noise

    @torch.no_grad()
    def encode(
        self, prompts: Sequence[str], sources: Sources | None = None, negatives: Sequence[str] = ()
    ) -> Conditioning:
        pictures = [tuple(given or ()) for given in (sources or [None] * len(prompts))]
        if len(pictures) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts with {len(pictures)} entries of source pictures")
        texts: dict[str, Tensor] = {}  # by segment: edits share theirs, and so do negatives

        def segment(text: str) -> Tensor:
            if text not in texts:
                texts[text] = self._encode_text(text)
            return texts[text]

        def sample(prompt: str, latents: tuple[Tensor, ...]) -> Sample:
            if not latents:
                return Sample({"text": segment(self._chat(prompt))})
            text = tuple(segment(part) for part in _edit_segments(prompt, len(latents)))
            return Sample({"text": text, "sources": latents})

        samples = []
        for prompt, given in zip(prompts, pictures, strict=True):
            latents = tuple(self.encode_image(picture[None])[0] for picture in given)
            nulls = {negative: sample(negative, latents) for negative in negatives}
            samples.append(Sample(sample(prompt, latents).values, nulls))
        return Conditioning(tuple(samples))

    def _chat(self, prompt: str) -> str:
        message = [{"role": "user", "content": prompt}]
        return self.tokenizer.apply_chat_template(
            message, tokenize=False, add_generation_prompt=True, enable_thinking=True
        )

    def _encode_text(self, text: str) -> Tensor:
        # One text a call, so that its embedding does not depend on a neighbour's length. The pipeline pads to
        # 512 instead; the encoder is causal and the padding masked, so the values agree to rounding.
        tokens = self.tokenizer(text, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        ids, mask = tokens.input_ids, tokens.attention_mask
        device = self.text_encoder.device
        answer = self.text_encoder(input_ids=ids.to(device), attention_mask=mask.to(device), output_hidden_states=True)
        return answer.hidden_states[-2][0]

    @torch.no_grad()
    def encode_image(self, images: Tensor) -> Tensor:
        self.latent_shape(images.shape[2], images.shape[1])
        pixels = (images.permute(0, 3, 1, 2) * 2 - 1).to(self.vae.device, self.vae.dtype)
        latents = self.vae.encode(pixels).latent_dist.mode()
        return ((latents - self.vae.config.shift_factor) * self.vae.config.scaling_factor).float()

    @torch.no_grad()
    def decode(self, x: Tensor) -> Tensor:
        latents = x.to(self.vae.device, self.vae.dtype)
        latents = latents / self.vae.config.scaling_factor + self.vae.config.shift_factor
        pixels = self.vae.decode(latents, return_dict=False)[0].float()
        return (pixels / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)

    def latent_shape(self, width: int, height: int) -> tuple[int, ...]:
        if width % self.size_multiple or height % self.size_multiple or min(width, height) <= 0:
            raise InputError(
                f"Z-Image takes no picture of {width} x {height} pixels: "
                f"make width and height multiples of {self.size_multiple}"
            )
        return (self.vae.config.latent_channels, height // self._factor, width // self._factor)

    def sigmas(self, steps: int, width: int, height: int) -> Tensor:
        from diffusers.pipelines.z_image.pipeline_z_image import calculate_shift

        _, rows, columns = self.latent_shape(width, height)
        scheduler = copy.deepcopy(self.scheduler)
        config = scheduler.config
        mu = calculate_shift(
            (rows // 2) * (columns // 2),
            config.base_image_seq_len,
            config.max_image_seq_len,
            config.base_shift,
            config.max_shift,
        )
        scheduler.set_timesteps(sigmas=torch.linspace(1.0, 1 / steps, steps).tolist(), mu=mu)
        return scheduler.sigmas.float()

    def with_network(self, network: nn.Module) -> ZImage:
        return replace(self, network=network)

    def to(self, device: torch.device | str) -> ZImage:
        self.network.to(device)
        self.offload_encoders(device)
        return self

    def offload_encoders(self, device: torch.device | str = "cpu") -> None:
        self.text_encoder.to(device)
        self.vae.to(device)


def _clock(sigma: Tensor) -> Tensor:
    return (1000 - 1000 * sigma.float()) / 1000  # 1 - sigma, rounded as the pipeline rounds it


def _edit_segments(prompt: str, pictures: int) -> list[str]:
    """The text before, between and after the pictures and the target (ZImageOmniPipeline)."""
    between = ["<|vision_end|><|vision_start|>"] * (pictures - 1)
    request = f"<|vision_end|>{prompt}<|im_end|>\n<|im_start|>assistant\n<|vision_start|>"
    return ["<|im_start|>user\n<|vision_start|>", *between, request, "<|vision_end|><|im_end|>"]


def open_zimage(folder: Path, dtype: torch.dtype, device: torch.device | str) -> ZImage:
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, ZImageTransformer2DModel
    from transformers import AutoTokenizer, Qwen3Model

    return ZImage(
        network=load_module(ZImageTransformer2DModel, folder, "transformer", dtype, device),
        vae=load_module(AutoencoderKL, folder, "vae", dtype, device),
        text_encoder=load_module(Qwen3Model, folder, "text_encoder", dtype, device),
        tokenizer=load_part(AutoTokenizer, folder, "tokenizer"),
        scheduler=load_part(FlowMatchEulerDiscreteScheduler, folder, "scheduler"),
        dtype=dtype,
    )
