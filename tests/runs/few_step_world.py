"""A base of two steps in the embedded world, and a student over it; one of its routes lights objects as a LoRA does."""

import copy

import torch

from danceopd_core.algorithm.fields import guided
from danceopd_core.algorithm.flow import euler
from danceopd_core.algorithm.methods import method
from danceopd_core.algorithm.query import Uniform
from danceopd_core.algorithm.routers import RoundRobin
from danceopd_core.algorithm.trainer import RouteData, Settings, Trainer
from danceopd_core.models.registry import open_backbone
from danceopd_core.models.sampling import integrate, seeded_noise
from danceopd_core.shapes import GUIDANCE, MODEL
from danceopd_core.shapes.language import T2I, items
from danceopd_core.shapes.score import HeldOutSet, score_table
from danceopd_core.weights.adapters import STUDENT, Adapters
from danceopd_core.weights.linear_like import linear_shapes
from danceopd_core.weights.lora import fresh_lora
from danceopd_core.weights.lora_io import read_lora

from ..loras import merged

SIZE, STEPS, FINE, COUNT, BATCH = 64, 2, 8, 96, 16
KEPT, LIT = "two", "single"
"""The route of the base itself and that of the teacher that lights its objects."""


def captions(kind, count, seed):
    return [item.text for item in items(kind, count, seed)]


def made_to_two_steps(updates=60, lr=3e-3):
    """The embedded model, whose velocities at the two sigmas of its own schedule now lead along its guided path."""
    backbone, generator = open_backbone(MODEL), torch.Generator().manual_seed(0)
    adapters = Adapters(backbone.network)
    taught = guided(adapters.field(backbone.velocity, None), GUIDANCE)
    cond, sigmas = backbone.encode(captions(T2I, COUNT // len(T2I), 77), None, [""]), backbone.sigmas(FINE, SIZE, SIZE)
    x, states = torch.randn(COUNT, *backbone.latent_shape(SIZE, SIZE), generator=generator), []
    with torch.no_grad():
        for step in range(FINE):
            states += [x] if step % (FINE // STEPS) == 0 else []
            now, after = sigmas[step].expand(COUNT), sigmas[step + 1].expand(COUNT)
            parts = [list(range(first, first + BATCH)) for first in range(0, COUNT, BATCH)]
            v = torch.cat([taught(x[rows], now[rows], cond.select(rows)) for rows in parts])
            x = euler(x, v, now, after)
    states.append(x)
    few = backbone.sigmas(STEPS, SIZE, SIZE)
    adapters.start_student(fresh_lora(adapters.shapes, 16, 16, backbone.default_targets, generator))
    student = adapters.field(backbone.velocity, STUDENT)
    optimizer = torch.optim.AdamW(adapters.parameters(), lr=lr, weight_decay=0)
    for update in range(updates):
        optimizer.param_groups[0]["lr"] = lr * (1 - update / updates)
        rows, step = torch.randperm(COUNT, generator=generator)[:BATCH].tolist(), update % STEPS
        v = (states[step + 1][rows] - states[step][rows]) / (few[step + 1] - few[step])
        loss = (student(states[step][rows], few[step].expand(BATCH), cond.select(rows)) - v).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    lora = adapters.student()
    adapters.remove()
    return backbone.with_network(merged(backbone.network, lora))


def lit(base):
    """The base with the LoRA that lights objects."""
    lora = read_lora(MODEL / "loras" / "lit.safetensors", linear_shapes(base.network))
    return base.with_network(merged(base.network, lora))


def trained(base, updates=60):
    """The base with a student on it, whose paths have the base's own few steps."""
    backbone, generator = base.with_network(copy.deepcopy(base.network)), torch.Generator().manual_seed(1)
    adapters = Adapters(backbone.network)
    teacher = adapters.add_teacher(read_lora(MODEL / "loras" / "lit.safetensors", adapters.shapes))
    adapters.start_student(fresh_lora(adapters.shapes, 16, 16, backbone.default_targets, generator))
    routes = [
        RouteData(kind, adapters.field(backbone.velocity, field), backbone.encode(captions((kind,), 40, 5)))
        for kind, field in ((KEPT, None), (LIT, teacher))
    ]
    trainer = Trainer(
        adapters,
        adapters.field(backbone.velocity, STUDENT),
        routes,
        RoundRobin(2),
        method("danceopd", query=Uniform(1)),
        backbone.sigmas(STEPS, SIZE, SIZE),
        backbone.latent_shape(SIZE, SIZE),
        Settings(steps=updates, batch=8, accumulate=1, lr=5e-4),
    )
    for _ in trainer:
        pass
    lora = adapters.student()
    adapters.remove()
    return backbone.with_network(merged(backbone.network, lora))


def scored(backbone):
    """Text-to-image by the judge, of pictures of few steps."""
    held_out = HeldOutSet.of(backbone, {T2I: 8}, seed=11, steps=STEPS)
    return score_table(held_out, list(held_out.generate(backbone, backbone.velocity)))["t2i"].mean


def distance(backbone, teacher, kind):
    """Mean squared difference of the latents that both make in few steps of the same noises and unseen captions."""
    texts, noise = captions((kind,), BATCH, 123), seeded_noise(backbone.latent_shape(SIZE, SIZE), range(BATCH))
    ends = [
        integrate(model.velocity, noise, model.sigmas(STEPS, SIZE, SIZE), model.encode(texts))
        for model in (backbone, teacher)
    ]
    return (ends[0] - ends[1]).square().mean().item()
