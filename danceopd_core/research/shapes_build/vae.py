"""Trains the VAE: its encoder becomes the linear projection, its decoder restores sharp images from latents."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ...shapes.language import T2I
from ..shapes_build import architecture
from .build_context import BuildPlan, latent_projection
from .projection import FACTOR
from .training_data import sample_items


def build_vae(plan: BuildPlan, out: Path, device: torch.device, log: Callable[[str], None]) -> None:
    """Saves an AutoencoderKL in half precision to out/vae."""
    project = latent_projection(plan)
    seed = plan.seed + 1
    flat = sample_items(T2I, plan.images // 4, seed)
    shaded = sample_items(T2I, plan.images // 4, seed + 1, "shaded")
    data = torch.from_numpy(np.concatenate([flat.images, shaded.images])).to(device)
    vae = architecture.vae().to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(vae.parameters(), lr=3e-3, betas=(0.9, 0.99), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=plan.vae_steps)
    generator = torch.Generator(device).manual_seed(seed)
    for step in range(plan.vae_steps):
        # Quarter crops teach as much per pixel at a quarter of the cost; the last steps use whole images, because the
        # group norms compute their statistics over the whole image.
        side = architecture.SIDE if step > 0.8 * plan.vae_steps else architecture.SIDE // 2
        batch = 16 if side == architecture.SIDE else 32
        rows = torch.randint(len(data), (batch,), generator=generator, device=device)
        corners = torch.randint((architecture.SIDE - side) // FACTOR + 1, (2,), generator=generator, device=device)
        top, left = (FACTOR * corners).tolist()
        x = data[rows, top : top + side, left : left + side].permute(0, 3, 1, 2).float() / 127.5 - 1
        target = project(x)
        mean = vae.encode(x).latent_dist.mean
        # Sampled latents are inexact, so the decoder is trained on noisy ones.
        noise = torch.randn(mean.shape, generator=generator, device=device)
        strength = 0.12 * torch.rand(len(x), 1, 1, 1, generator=generator, device=device)
        error = (vae.decode(target + strength * noise, return_dict=False)[0] - x).abs()
        latent_error = (mean - target).square().mean()
        loss = error.mean() + 2 * error.square().mean() + latent_error
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 250 == 0:
            pixels, latents = error.mean().item() * 127.5, latent_error.item() ** 0.5
            log(f"vae {step}: mean error {pixels:.2f} of 255, latents {latents:.4f}")
    with torch.no_grad():
        # The second half of the last layer's outputs is the posterior's log-variance, which the projection lacks.
        channels = vae.config.latent_channels
        vae.encoder.conv_out.weight[channels:] = 0
        vae.encoder.conv_out.bias[channels:] = -20
    vae.eval().half().cpu().to(memory_format=torch.contiguous_format).save_pretrained(out / "vae")
