"""One loop of flow matching on stored latents: how the base, the teachers and the realism checkpoint are made."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...runs.train_state import load_state, save_state
from ..shapes_build import batched


@dataclass
class Latents:
    """Training data on its device: clean (n, C, H, W), texts of n rows, source like clean or None."""

    clean: Tensor
    texts: batched.Texts
    source: Tensor | None
    null: batched.Texts | None = None
    """The empty caption, one row: what a dropped caption becomes."""


@dataclass
class Reminder:
    """What a network is not to forget: the velocities of another one on other data.

    They say more about a sample than its one noise does (Li and Hoiem, "Learning without Forgetting", 2016).
    """

    data: Latents
    network: Any


@dataclass(frozen=True)
class Fit:
    steps: int
    batch: int = 512
    lr: float = 1e-3
    muon: float = 0.0
    decay: float = 0.0
    """Weight decay, of both optimizers. Without it a LoRA grows longer than the weights that it is added to."""
    warmup: int = 300
    dropout: float = 0.1
    ema: float = 0.999
    seed: int = 0
    shift: float = 3.0
    """Of the sigmas that are trained on; more is more noise."""
    early: tuple[int, float] = (0, 0.0)
    """So many steps first at another shift."""
    aside: int = 0
    """Every so many steps one on the second data; 0: none."""


def _share(fit: Fit, step: int) -> float:
    """The learning rate at a step as a share of its peak: a linear rise, then a cosine fall."""
    warm = min(1.0, (step + 1) / fit.warmup)
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / fit.steps)))


def _optimizers(parameters: dict[str, Tensor], fit: Fit) -> list[torch.optim.Optimizer]:
    """AdamW; with `muon`, the matrices of the transformer's blocks go to Muon, which needs fewer steps there."""
    hidden = {
        name: p
        for name, p in parameters.items()
        if fit.muon and p.ndim == 2 and ("layers." in name or "_refiner." in name) and "adaLN" not in name
    }
    rest = [p for name, p in parameters.items() if name not in hidden]
    found: list[torch.optim.Optimizer] = []
    if rest:
        found.append(torch.optim.AdamW(rest, lr=fit.lr, betas=(0.9, 0.99), weight_decay=fit.decay))
    if hidden:
        found.append(
            torch.optim.Muon(list(hidden.values()), lr=fit.muon, weight_decay=fit.decay, adjust_lr_fn="match_rms_adamw")
        )
    for optimizer in found:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return found


def _drop(texts: batched.Texts, null: batched.Texts, dropped: Tensor) -> batched.Texts:
    def pick(kept: Tensor, empty: Tensor) -> Tensor:
        return torch.where(dropped.view(-1, *[1] * (kept.ndim - 1)), empty, kept)

    return batched.Texts(
        pick(texts.text, null.text),
        pick(texts.padding, null.padding),
        pick(texts.caption_rope, null.caption_rope),
        pick(texts.picture_rope, null.picture_rope),
    )


def fit_flow(
    network: Any,
    parameters: dict[str, Tensor],
    data: Latents,
    fit: Fit,
    autocast: bool,
    state_file: Path | None = None,
    save_every: int = 500,
    second: Reminder | None = None,
) -> Iterator[tuple[int, float, Callable[[], dict[str, Tensor]]]]:
    """Yields (step, loss, averaged weights) after every step; resumes from `state_file` if it is there.

    Velocity MSE, with sigma uniform but for the shift.
    """
    device = data.clean.device
    generator = torch.Generator(device).manual_seed(fit.seed)
    optimizers = _optimizers(parameters, fit)
    average = {name: p.detach().clone() for name, p in parameters.items()}
    start = 0
    if state_file and state_file.exists():
        state = load_state(state_file)
        start = state["step"]
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        generator.set_state(state["generator"])
        for name, p in parameters.items():
            p.data.copy_(state["weights"][name])
            average[name].copy_(state["average"][name])
    names = list(parameters)
    for step in range(start, fit.steps):
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * _share(fit, step)
        reminded = second if fit.aside and step % fit.aside == 0 else None
        now = reminded.data if reminded else data
        rows = torch.randint(len(now.clean), (fit.batch,), generator=generator, device=device)
        clean, texts = now.clean[rows].float(), now.texts[rows]
        source = None if now.source is None else now.source[rows].float()
        if now.null is not None:
            texts = _drop(texts, now.null, torch.rand(fit.batch, generator=generator, device=device) < fit.dropout)
        u = torch.rand(fit.batch, generator=generator, device=device)
        shift = fit.early[1] if step < fit.early[0] else fit.shift
        sigma = shift * u / (1 + (shift - 1) * u)
        noise = torch.randn(clean.shape, generator=generator, device=device)
        s = sigma.view(-1, 1, 1, 1)
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            x = (1 - s) * clean + s * noise
            v = batched.velocity(network, x, sigma, texts, source)
            wanted = noise - clean
            if reminded:
                with torch.no_grad():
                    wanted = batched.velocity(reminded.network, x, sigma, texts, source)
        loss = torch.nn.functional.mse_loss(v, wanted)
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(parameters.values()), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        decay = min(fit.ema, (step + 1) / (step + 10))
        torch._foreach_lerp_([average[n] for n in names], [parameters[n].detach() for n in names], 1 - decay)
        if state_file and (step + 1) % save_every == 0 and step + 1 < fit.steps:
            state = {
                "step": step + 1,
                "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                "generator": generator.get_state(),
                "weights": {n: p.detach() for n, p in parameters.items()},
                "average": average,
            }
            save_state(state_file, state)
        yield step + 1, loss, lambda: average  # type: ignore[misc]
