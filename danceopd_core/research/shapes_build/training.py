"""Runs one fit of a stage: compiled blocks, logging, intermediate scores, and the averaged weights at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .build_context import BuildContext
from .fit import BaseReplay, FitConfig, Latents, fit_flow

Log = Callable[[str], None]


def train(
    context: BuildContext,
    name: str,
    network: Any,
    parameters: dict[str, Tensor],
    data: Latents,
    config: FitConfig,
    log: Log,
    evaluate: Callable[[], dict[str, float]] | None = None,
    replay: BaseReplay | None = None,
) -> None:
    """Trains in place and leaves the averaged weights in `parameters`; resumes if interrupted.

    evaluate: scores of the network as it is, logged every 500 steps with the averaged weights.
    """
    state = context.out / f".{name}.state.safetensors"
    average: Callable[[], dict[str, Tensor]] | None = None
    # On a CPU without bfloat16 instructions, autocast to it would be many times slower than float32.
    autocast = context.device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    torch._dynamo.config.recompile_limit = 64  # one for each kind of block, with and without sources
    if context.plan.compiled:  # 1.5 times as fast on a CPU
        for compiled in (network, replay.network) if replay else (network,):
            for block in (*compiled.noise_refiner, *compiled.context_refiner, *compiled.layers):
                block.compile()
    smoothed = 0.0
    for step, loss, average in fit_flow(network, parameters, data, config, autocast, state, replay=replay):
        smoothed += (loss.item() - smoothed) / min(step, 100)
        if step % 100 == 0 or step == config.steps:
            log(f"{name} {step}/{config.steps}: loss {smoothed:.4f}")
        if evaluate and step % 500 == 0 and step < config.steps:
            current = {n: p.detach().clone() for n, p in parameters.items()}
            _set(parameters, average())
            log(f"{name} {step}: {score_text(evaluate())}")
            _set(parameters, current)
    if average is not None:
        _set(parameters, average())
    state.unlink(missing_ok=True)


def score_text(table: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in table.items())


def _set(parameters: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(values[name])
