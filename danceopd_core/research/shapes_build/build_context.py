"""What building the embedded model works with: its plan, its finished parts, a quick look at a network's quality."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...shapes.language import T2I, Caption, items
from ..shapes_build import architecture as parts
from ..shapes_build import batched
from .fit import Fit, Latents
from .projection import Projection
from .training_data import Pool, pool


@dataclass(frozen=True)
class BuildPlan:
    """How much work each stage does; the defaults made the weights that are shipped."""

    seed: int = 0
    pictures: int = 48_000
    vae_steps: int = 2800
    # How shapes look is learned first, and at little noise; what stands where is learned at much noise, and long:
    # from scenes that stand loosely, then from the world's own.
    loose: Fit = field(
        default_factory=lambda: Fit(7500, batch=64, lr=2e-3, muon=4e-3, warmup=150, shift=5.0, early=(2000, 2.0))
    )
    base: Fit = field(default_factory=lambda: Fit(2000, batch=64, lr=8e-4, muon=1.6e-3, warmup=100, shift=5.0))
    edit: Fit = field(default_factory=lambda: Fit(3000, batch=32, lr=2e-3, muon=1e-2, warmup=50, dropout=0.05))
    calm: Fit = field(
        default_factory=lambda: Fit(4500, batch=32, lr=2e-3, muon=6e-3, decay=0.15, warmup=20, dropout=0.05, ema=0.995)
    )
    realism: Fit = field(default_factory=lambda: Fit(600, batch=64, lr=4e-4, warmup=50))
    width: int = parts.WIDTH
    heads: int = parts.HEADS
    layers: int = parts.LAYERS
    compiled: bool = True
    looked: int = 32
    """Held-out items a category of the looks while building."""


def tensor(pictures: np.ndarray, device: torch.device) -> Tensor:
    """(n, H, W, 3) uint8 -> (n, 3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def latents(project: Projection, pictures: np.ndarray, device: torch.device) -> Tensor:
    groups = range(0, len(pictures), 512)
    return torch.cat([project(tensor(pictures[first : first + 512], device)) for first in groups])


def projection(plan: BuildPlan) -> Projection:
    """The latent space, from pictures of both styles."""
    both = [pool(T2I, min(1000, plan.pictures), plan.seed + 3, style).pictures for style in ("flat", "shaded")]
    return Projection.of(tensor(np.concatenate(both), torch.device("cpu")))


class BuildContext:
    """The finished parts, opened to make the next one."""

    def __init__(self, plan: BuildPlan, out: Path, device: torch.device) -> None:
        self.plan, self.out, self.device = plan, out, device
        self.project = projection(plan)
        torch.manual_seed(plan.seed)
        self.tokenizer = parts.tokenizer()
        self.text_encoder = parts.text_encoder(len(self.tokenizer)).to(device)

    def segments(self, prompt: str, edit: bool) -> tuple[Tensor, ...]:
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
        """The prompts and the empty prompt; each distinct prompt is encoded once."""
        unique = sorted({*prompts, ""})
        latent = torch.zeros(parts.CHANNELS, parts.SIDE // 4, parts.SIDE // 4)
        encoded = batched.Texts.of(network, [self.segments(p, edit) for p in unique], latent, self.device)
        place = {prompt: row for row, prompt in enumerate(unique)}
        rows = torch.tensor([place[p] for p in prompts], device=self.device)
        return _Indexed(encoded, rows), encoded[torch.tensor([place[""]], device=self.device)]

    def data(self, network: Any, made: Pool) -> Latents:
        source = None if made.sources is None else latents(self.project, made.sources, self.device).half()
        texts, null = self.texts(network, made.texts, made.sources is not None)
        return Latents(latents(self.project, made.pictures, self.device).half(), texts, source, null)

    def decode(self, z: Tensor) -> Tensor:
        """Latents as pictures (n, 3, H, W): by the VAE if it is there yet."""
        from diffusers import AutoencoderKL

        if not (self.out / "vae" / "config.json").exists():
            return self.project.invert(z)
        vae = AutoencoderKL.from_pretrained(self.out / "vae").to(self.device).eval()
        return torch.cat([vae.decode(part, return_dict=False)[0] for part in z.split(128)])

    def network(self) -> Any:
        torch.manual_seed(self.plan.seed + 2)
        return parts.transformer(self.plan.width, self.plan.heads, self.plan.layers).to(self.device)

    def base(self, folder: str = "transformer") -> Any:
        from diffusers import ZImageTransformer2DModel

        network = ZImageTransformer2DModel.from_pretrained(self.out / folder)
        config = dict(network.config)
        config.pop("_name_or_path", None)  # this machine's folder, which would be written into the next part's config
        network._internal_dict = type(network.config)(config)
        return network.to(self.device).eval()


class _Indexed(batched.Texts):
    """Captions stored once and looked up by row: many pictures share a caption."""

    def __init__(self, texts: batched.Texts, rows: Tensor) -> None:
        super().__init__(texts.text, texts.padding, texts.caption_rope, texts.picture_rope)
        self.rows = rows

    def __getitem__(self, rows: Tensor) -> batched.Texts:
        return super().__getitem__(self.rows[rows])


@torch.no_grad()
def quick_score(
    shop: BuildContext, network: Any, categories: tuple[str, ...], scale: float, steps: int, style: str = ""
) -> dict[str, float]:
    """The judge's mean a category on held-out items, sampled through the batched forward: a look while building."""
    from ...shapes.judge import score_caption, score_edit, score_style
    from ...shapes.render import render

    found = items(categories, shop.plan.looked, seed=99)
    edit = not isinstance(found[0], Caption)
    texts, null = shop.texts(network, [item.text for item in found], edit)
    rows = torch.arange(len(found), device=shop.device)
    batch = texts[rows]
    none = null[torch.zeros_like(rows)]
    source = None
    if edit:
        pictures = np.stack([render(item.source, parts.SIDE) for item in found])  # type: ignore[union-attr]
        source = latents(shop.project, pictures, shop.device)
    generator = torch.Generator(shop.device).manual_seed(5)
    side = parts.SIDE // 4
    x = torch.randn(len(found), parts.CHANNELS, side, side, generator=generator, device=shop.device)
    t = torch.linspace(1, 0, steps + 1, device=shop.device)
    grid = parts.SHIFT * t / (1 + (parts.SHIFT - 1) * t)
    for now, then in pairwise(grid):
        sigma = now.expand(len(found))
        v = batched.velocity(network, x, sigma, batch, source)
        if scale != 1:
            v_null = batched.velocity(network, x, sigma, none, source)
            v = v_null + scale * (v - v_null)
        x = x + (then - now) * v
    shots = ((shop.decode(x).clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    marks: dict[str, list[float]] = {c: [] for c in categories}
    for item, shot in zip(found, shots, strict=True):
        score = score_caption(item, shot) if isinstance(item, Caption) else score_edit(item, shot)
        marks[item.category].append(score_style(style, shot) if style else score)
    table = {c: float(np.mean(m)) for c, m in marks.items()}
    return table | {"mean": float(np.mean(list(table.values())))}
