"""The build's plan, and the shared parts of its stages: tokenizer, text encoder, latent space, saved networks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...shapes.language import T2I
from ..shapes_build import architecture, batched
from .fit import FitConfig, Latents
from .projection import Projection
from .training_data import TrainingItems, sample_items


@dataclass(frozen=True)
class BuildPlan:
    """The size of each stage; the defaults made the shipped weights.

    pretraining and base: the looks of shapes are learned first and at low noise, their places at high noise and over
    many steps; first from scenes of free layout, then from the world's own. edit and regularised: the two phases of the
    edit teachers. evaluated_items: held-out items per category of the scores logged during the build.
    """

    seed: int = 0
    images: int = 48_000
    vae_steps: int = 2800
    pretraining: FitConfig = field(
        default_factory=lambda: FitConfig(
            7500, batch=64, lr=2e-3, muon_lr=4e-3, warmup=150, shift=5.0, initial_shift=(2000, 2.0)
        )
    )
    base: FitConfig = field(
        default_factory=lambda: FitConfig(2000, batch=64, lr=8e-4, muon_lr=1.6e-3, warmup=100, shift=5.0)
    )
    edit: FitConfig = field(
        default_factory=lambda: FitConfig(3000, batch=32, lr=2e-3, muon_lr=1e-2, warmup=50, dropout=0.05)
    )
    regularised: FitConfig = field(
        default_factory=lambda: FitConfig(
            4500, batch=32, lr=2e-3, muon_lr=6e-3, weight_decay=0.15, warmup=20, dropout=0.05, ema=0.995
        )
    )
    realism: FitConfig = field(default_factory=lambda: FitConfig(600, batch=64, lr=4e-4, warmup=50))
    width: int = architecture.WIDTH
    heads: int = architecture.HEADS
    layers: int = architecture.LAYERS
    compiled: bool = True
    evaluated_items: int = 32


def _tensor(images: np.ndarray, device: torch.device) -> Tensor:
    """(n, H, W, 3) uint8 -> (n, 3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def encode_images(project: Projection, images: np.ndarray, device: torch.device) -> Tensor:
    """(n, H, W, 3) uint8 -> latents (n, C, H / 4, W / 4)."""
    starts = range(0, len(images), 512)
    return torch.cat([project(_tensor(images[first : first + 512], device)) for first in starts])


def latent_projection(plan: BuildPlan) -> Projection:
    """The latent space, fitted to images of both styles."""
    both = [sample_items(T2I, min(1000, plan.images), plan.seed + 3, style).images for style in ("flat", "shaded")]
    return Projection.of(_tensor(np.concatenate(both), torch.device("cpu")))


class BuildContext:
    """The finished parts of the model in `out`, opened for the next stage."""

    def __init__(self, plan: BuildPlan, out: Path, device: torch.device) -> None:
        self.plan, self.out, self.device = plan, out, device
        self.project = latent_projection(plan)
        torch.manual_seed(plan.seed)
        self.tokenizer = architecture.tokenizer()
        self.text_encoder = architecture.text_encoder(len(self.tokenizer)).to(device)

    def _segments(self, prompt: str, edit: bool) -> tuple[Tensor, ...]:
        """The prompt as the pipeline encodes it: one segment for text-to-image, three around one source image."""
        from ...models.zimage import edit_segments

        if edit:
            return tuple(self._encode(part) for part in edit_segments(prompt, 1))
        chat = [{"role": "user", "content": prompt}]
        return (self._encode(self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)),)

    @torch.no_grad()
    def _encode(self, text: str) -> Tensor:
        ids = self.tokenizer(text, return_tensors="pt").input_ids.to(self.device)
        return self.text_encoder(input_ids=ids, output_hidden_states=True).hidden_states[-2][0].cpu()

    def texts(self, network: Any, prompts: list[str], edit: bool) -> tuple[batched.Texts, batched.Texts]:
        """The prompts and the null prompt; each distinct prompt is encoded once."""
        unique = sorted({*prompts, ""})
        latent = torch.zeros(architecture.CHANNELS, architecture.SIDE // 4, architecture.SIDE // 4)
        encoded = batched.Texts.of(network, [self._segments(p, edit) for p in unique], latent, self.device)
        index = {prompt: row for row, prompt in enumerate(unique)}
        rows = torch.tensor([index[p] for p in prompts], device=self.device)
        return _Indexed(encoded, rows), encoded[torch.tensor([index[""]], device=self.device)]

    def data(self, network: Any, training: TrainingItems) -> Latents:
        """The items as latents in half precision, with their encoded texts."""
        source = None
        if training.sources is not None:
            source = encode_images(self.project, training.sources, self.device).half()
        texts, null = self.texts(network, training.texts, training.sources is not None)
        return Latents(encode_images(self.project, training.images, self.device).half(), texts, source, null)

    def decode(self, z: Tensor) -> Tensor:
        """Latents -> images (n, 3, H, W): by the VAE if it is finished, else by the inverse projection."""
        from diffusers import AutoencoderKL

        if not (self.out / "vae" / "config.json").exists():
            return self.project.invert(z)
        vae = AutoencoderKL.from_pretrained(self.out / "vae").to(self.device).eval()
        return torch.cat([vae.decode(part, return_dict=False)[0] for part in z.split(128)])

    def new_network(self) -> Any:
        """A transformer with the initial weights of the plan's seed."""
        torch.manual_seed(self.plan.seed + 2)
        return architecture.transformer(self.plan.width, self.plan.heads, self.plan.layers).to(self.device)

    def load_network(self, folder: str = "transformer") -> Any:
        from diffusers import ZImageTransformer2DModel

        network = ZImageTransformer2DModel.from_pretrained(self.out / folder)
        config = dict(network.config)
        config.pop("_name_or_path", None)  # a local path, which would be saved in the config of the next stage
        network._internal_dict = type(network.config)(config)
        return network.to(self.device).eval()


class _Indexed(batched.Texts):
    """Distinct captions stored once, and indexed by item: many items share a caption."""

    def __init__(self, texts: batched.Texts, rows: Tensor) -> None:
        super().__init__(texts.text, texts.padding, texts.caption_rope, texts.image_rope)
        self.rows = rows

    def __getitem__(self, rows: Tensor) -> batched.Texts:
        return super().__getitem__(self.rows[rows])
