"""Flow matching on stored latents: the training loop of the base, the edit teachers and the realism checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...runs.files.train_state import load_state, save_state
from ..shapes_build import batched


@dataclass
class Latents:
    """Training data on its device: clean (n, C, H, W), texts of n rows, source like clean or None."""

    clean: Tensor
    texts: batched.Texts
    source: Tensor | None
    null: batched.Texts | None = None
    """The null prompt, one row: it replaces dropped captions."""


@dataclass
class BaseReplay:
    """Data on which the network is trained towards the velocities of the base, against forgetting.

    A velocity is a less noisy target than noise - clean (Li and Hoiem, "Learning without Forgetting", 2016).
    """

    data: Latents
    network: Any


@dataclass(frozen=True)
class FitConfig:
    """Settings of one training run.

    muon_lr: learning rate of Muon, 0 for AdamW alone. weight_decay: of both optimizers; without it a LoRA grows larger
    than the weights that it is added to. dropout: of captions. shift: of the training sigmas; larger means more noise.
    initial_shift: (steps, shift) of the first steps. replay_every: one step in so many is on the replay data; 0: none.
    """

    steps: int
    batch: int = 512
    lr: float = 1e-3
    muon_lr: float = 0.0
    weight_decay: float = 0.0
    warmup: int = 300
    dropout: float = 0.1
    ema: float = 0.999
    seed: int = 0
    shift: float = 3.0
    initial_shift: tuple[int, float] = (0, 0.0)
    replay_every: int = 0


def _lr_factor(config: FitConfig, step: int) -> float:
    """The learning rate at a step relative to its peak: linear warmup, then cosine decay."""
    warm = min(1.0, (step + 1) / config.warmup)
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / config.steps)))


def _optimizers(parameters: dict[str, Tensor], config: FitConfig) -> list[torch.optim.Optimizer]:
    """AdamW; with `muon_lr`, Muon for the matrices of the transformer's blocks, where it needs fewer steps."""
    hidden = {
        name: p
        for name, p in parameters.items()
        if config.muon_lr and p.ndim == 2 and ("layers." in name or "_refiner." in name) and "adaLN" not in name
    }
    rest = [p for name, p in parameters.items() if name not in hidden]
    optimizers: list[torch.optim.Optimizer] = []
    if rest:
        optimizers.append(torch.optim.AdamW(rest, lr=config.lr, betas=(0.9, 0.99), weight_decay=config.weight_decay))
    if hidden:
        optimizers.append(
            torch.optim.Muon(
                list(hidden.values()),
                lr=config.muon_lr,
                weight_decay=config.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers


def _drop(texts: batched.Texts, null: batched.Texts, dropped: Tensor) -> batched.Texts:
    def pick(kept: Tensor, empty: Tensor) -> Tensor:
        return torch.where(dropped.view(-1, *[1] * (kept.ndim - 1)), empty, kept)

    return batched.Texts(
        pick(texts.text, null.text),
        pick(texts.padding, null.padding),
        pick(texts.caption_rope, null.caption_rope),
        pick(texts.image_rope, null.image_rope),
    )


def fit_flow(
    network: Any,
    parameters: dict[str, Tensor],
    data: Latents,
    config: FitConfig,
    autocast: bool,
    state_file: Path | None = None,
    save_every: int = 500,
    replay: BaseReplay | None = None,
) -> Iterator[tuple[int, Tensor, Callable[[], dict[str, Tensor]]]]:
    """Yields (step, loss, averaged weights) after every step; resumes from `state_file` if it exists.

    The loss is velocity MSE; sigma is uniform in [0, 1], then shifted.
    """
    device = data.clean.device
    generator = torch.Generator(device).manual_seed(config.seed)
    optimizers = _optimizers(parameters, config)
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
    for step in range(start, config.steps):
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * _lr_factor(config, step)
        replayed = replay if config.replay_every and step % config.replay_every == 0 else None
        batch_data = replayed.data if replayed else data
        rows = torch.randint(len(batch_data.clean), (config.batch,), generator=generator, device=device)
        clean, texts = batch_data.clean[rows].float(), batch_data.texts[rows]
        source = None if batch_data.source is None else batch_data.source[rows].float()
        if batch_data.null is not None:
            texts = _drop(
                texts, batch_data.null, torch.rand(config.batch, generator=generator, device=device) < config.dropout
            )
        u = torch.rand(config.batch, generator=generator, device=device)
        shift = config.initial_shift[1] if step < config.initial_shift[0] else config.shift
        sigma = shift * u / (1 + (shift - 1) * u)
        noise = torch.randn(clean.shape, generator=generator, device=device)
        s = sigma.view(-1, 1, 1, 1)
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            x = (1 - s) * clean + s * noise
            v = batched.velocity(network, x, sigma, texts, source)
            target = noise - clean
            if replayed:
                with torch.no_grad():
                    target = batched.velocity(replayed.network, x, sigma, texts, source)
        loss = torch.nn.functional.mse_loss(v, target)
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(parameters.values()), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        decay = min(config.ema, (step + 1) / (step + 10))
        torch._foreach_lerp_([average[n] for n in names], [parameters[n].detach() for n in names], 1 - decay)
        if state_file and (step + 1) % save_every == 0 and step + 1 < config.steps:
            state = {
                "step": step + 1,
                "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                "generator": generator.get_state(),
                "weights": {n: p.detach() for n, p in parameters.items()},
                "average": average,
            }
            save_state(state_file, state)
        yield step + 1, loss, lambda: average
