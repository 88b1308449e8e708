"""Makes the embedded model from a seed: VAE, base, edit teachers, realism checkpoint. Finished stages are kept.

`danceopd shapes build --out DIR`: resumable, stage by stage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...shapes import GUIDANCE
from ...shapes.language import EDIT, GLOBAL, LOCAL, T2I
from ...weights.adapters import STUDENT, Adapters
from ...weights.lora import fresh_lora
from ...weights.lora_io import read_lora, write_lora
from ..shapes_build import architecture as parts
from .build_context import BuildContext, BuildPlan, projection, quick_score
from .card import write_card
from .fit import Fit, Latents, Reminder, fit_flow
from .projection import FACTOR
from .training_data import pool

LOOSE = ".loose"  # folder of the network that the base starts from
ROUGH = ".{}_rough.safetensors"
RANK = 32
TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "w1", "w2", "w3")
# Which thing is which is learned last, so captions of two different things come twice as often.
MIX = (*T2I, "two", "position", "colour_attribute")
Log = Callable[[str], None]


def _half(module: Any) -> Any:
    return module.half()  # 10 bits of mantissa hold these weights better than bfloat16, in the same space


def build_vae(plan: BuildPlan, out: Path, device: torch.device, log: Log) -> None:
    """An AutoencoderKL whose encoder is the projection and whose decoder draws sharp pictures from it."""
    project = projection(plan)
    seed = plan.seed + 1
    flat = pool(T2I, plan.pictures // 4, seed)
    shaded = pool(T2I, plan.pictures // 4, seed + 1, "shaded")
    data = torch.from_numpy(np.concatenate([flat.pictures, shaded.pictures])).to(device)
    vae = parts.vae().to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(vae.parameters(), lr=3e-3, betas=(0.9, 0.99), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=plan.vae_steps)
    generator = torch.Generator(device).manual_seed(seed)
    for step in range(plan.vae_steps):
        # Quarters of pictures are as instructive and four times as cheap; the last steps see whole ones, because
        # the group norms take their statistics over the picture.
        side = parts.SIDE if step > 0.8 * plan.vae_steps else parts.SIDE // 2
        rows = torch.randint(len(data), (16 if side == parts.SIDE else 32,), generator=generator, device=device)
        top, left = (FACTOR * torch.randint((parts.SIDE - side) // FACTOR + 1, (2,), generator=generator)).tolist()
        x = data[rows, top : top + side, left : left + side].permute(0, 3, 1, 2).float() / 127.5 - 1
        wanted = project(x)
        mean = vae.encode(x).latent_dist.mean
        # The decoder is shown latents as inexact as a sampler's.
        noise = torch.randn(mean.shape, generator=generator, device=device)
        strength = 0.12 * torch.rand(len(x), 1, 1, 1, generator=generator, device=device)
        error = (vae.decode(wanted + strength * noise, return_dict=False)[0] - x).abs()
        off = (mean - wanted).square().mean()
        loss = error.mean() + 2 * error.square().mean() + off
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 250 == 0:
            log(f"vae {step}: mean error {error.mean().item() * 127.5:.2f} of 255, latents {off.item() ** 0.5:.4f}")
    with torch.no_grad():
        # Half of the last layer's outputs are the log-variance of the posterior, which the projection has not.
        channels = vae.config.latent_channels
        vae.encoder.conv_out.weight[channels:] = 0
        vae.encoder.conv_out.bias[channels:] = -20
    _half(vae.eval()).cpu().to(memory_format=torch.contiguous_format).save_pretrained(out / "vae")


def _fit(
    shop: BuildContext,
    name: str,
    network: Any,
    parameters: dict[str, Tensor],
    data: Latents,
    fit: Fit,
    log: Log,
    look: Callable[[], dict[str, float]] | None = None,
    second: Reminder | None = None,
) -> None:
    """Trains in place and leaves the averaged weights in `parameters`."""
    state = shop.out / f".{name}.state.safetensors"
    last = None
    # On a CPU without bfloat16 instructions, autocast to it would be many times slower than float32.
    autocast = shop.device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    torch._dynamo.config.recompile_limit = 64  # one for every kind of block, with and without sources
    if shop.plan.compiled:  # half as fast again on a CPU
        for one in (network, second.network) if second else (network,):
            for block in (*one.noise_refiner, *one.context_refiner, *one.layers):
                block.compile()
    recent = 0.0
    for step, loss, average in fit_flow(network, parameters, data, fit, autocast, state, second=second):
        last = average
        recent += (loss.item() - recent) / min(step, 100)  # type: ignore[attr-defined]
        if step % 100 == 0 or step == fit.steps:
            log(f"{name} {step}/{fit.steps}: loss {recent:.4f}")  # type: ignore[attr-defined]
        if look and step % 500 == 0 and step < fit.steps:
            kept = {n: p.detach().clone() for n, p in parameters.items()}
            _set(parameters, average())
            log(f"{name} {step}: {_row(look())}")
            _set(parameters, kept)
    if last is not None:
        _set(parameters, last())
    state.unlink(missing_ok=True)


def _set(parameters: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(values[name])


def _row(table: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in table.items())


def build_loose(shop: BuildContext, log: Log) -> None:
    """What the base starts from."""
    plan = shop.plan
    network = shop.network()
    data = shop.data(network, pool(MIX, plan.pictures, plan.seed + 10, loose=True))
    fit = replace(plan.loose, seed=plan.seed + 11)
    look = partial(quick_score, shop, network, T2I, GUIDANCE, 8)
    _fit(shop, "loose", network, dict(network.named_parameters()), data, fit, log, look)
    network.cpu().save_pretrained(shop.out / LOOSE)


def build_base(shop: BuildContext, log: Log) -> None:
    plan = shop.plan
    network = shop.base(LOOSE)
    data = shop.data(network, pool(MIX, plan.pictures, plan.seed + 12))
    fit = replace(plan.base, seed=plan.seed + 13)
    look = partial(quick_score, shop, network, T2I, GUIDANCE, 8)
    _fit(shop, "base", network, dict(network.named_parameters()), data, fit, log, look)
    for scale in (1.0, 1.5, 2.0, 3.0):
        log(f"base, guidance {scale}: {_row(quick_score(shop, network, T2I, scale, 8))}")
    _half(network).cpu().save_pretrained(shop.out / "transformer")
    rmtree(shop.out / LOOSE)


def build_teacher(shop: BuildContext, name: str, log: Log) -> None:
    """A LoRA on the frozen base that edits through the multi-image path: learned roughly, then calmed.

    Learning fast, without weight decay and from edits alone, leaves a LoRA longer than the weights that it is
    added to, and nothing of text-to-image, so a student that starts from it hardly gets that or learns other edits.
    The second phase makes it short, and now and then a step reminds it of the base's own velocities for captions.
    """
    plan, teacher = shop.plan, TEACHERS[name]
    (shop.out / "loras").mkdir(exist_ok=True)
    network = shop.base()
    data = shop.data(network, pool(teacher.categories, plan.pictures, plan.seed + 20))
    adapters = Adapters(network)
    rough = shop.out / ROUGH.format(name)
    if rough.exists() or teacher.start:
        lora = read_lora(rough if rough.exists() else shop.out / ROUGH.format(teacher.start), adapters.shapes)
    else:
        lora = fresh_lora(adapters.shapes, RANK, RANK, TARGETS, torch.Generator().manual_seed(plan.seed + 21))
    adapters.start_student(lora)
    parameters = {f"{n}": p for n, p in network.named_parameters() if f".{STUDENT}." in n}

    def look() -> dict[str, float]:
        drawn = quick_score(shop, network, T2I, 1.0, 8)["mean"]
        return quick_score(shop, network, teacher.categories, 1.0, 8) | {"text-to-image": drawn}

    first, then = teacher.steps(plan)
    if first and not rough.exists():
        fit = replace(plan.edit, seed=plan.seed + 22, steps=first)
        _fit(shop, f"{name}_rough", network, parameters, data, fit, log, look)
        write_lora(rough, adapters.student(), dtype=torch.float16)
    if then:
        captions = shop.data(network, pool(MIX, plan.pictures // 4, plan.seed + 23))
        fit = replace(plan.calm, seed=plan.seed + 24, steps=then, aside=teacher.aside)
        _fit(shop, name, network, parameters, data, fit, log, look, Reminder(captions, shop.base()))
    for scale in (1.0, 1.5):
        log(f"{name}, guidance {scale}: {_row(quick_score(shop, network, EDIT, scale, 8))}")
    log(f"{name}, text-to-image: {_row(quick_score(shop, network, T2I, 1.0, 8))}")
    write_lora(shop.out / "loras" / f"{name}.safetensors", adapters.student(), dtype=torch.float16)


def build_realism(shop: BuildContext, log: Log) -> None:
    """A full checkpoint, trained on from the base on shaded pictures of the same captions."""
    plan = shop.plan
    network = shop.base().requires_grad_(True)
    data = shop.data(network, pool(T2I, plan.pictures, plan.seed + 30, "shaded"))
    parameters = dict(network.named_parameters())
    fit = replace(plan.realism, seed=plan.seed + 31)
    _fit(shop, "realism", network, parameters, data, fit, log)
    log(f"realism: {_row(quick_score(shop, network, T2I, GUIDANCE, 8))}")
    log(f"realism, lit: {_row(quick_score(shop, network, T2I, GUIDANCE, 8, style='shaded'))}")
    _half(network).cpu().save_pretrained(shop.out / "realism")


def write_pipeline(out: Path, tokenizer: Any, text_encoder: Any) -> None:
    """The untrained parts of the folder, and the index that makes it a diffusers pipeline."""
    import json

    import diffusers

    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(out / "tokenizer")
    text_encoder.save_pretrained(out / "text_encoder")
    parts.scheduler().save_pretrained(out / "scheduler")
    index = {
        "_class_name": "ZImagePipeline",
        "_diffusers_version": diffusers.__version__,
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "Qwen3Model"],
        "tokenizer": ["transformers", "Qwen2Tokenizer"],
        "transformer": ["diffusers", "ZImageTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (out / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


class Lesson(NamedTuple):
    """How an edit teacher is made: what it learns, the shares of the plan's steps that its two phases take, every
    how many steps the second reminds it of the base, and the teacher whose rough phase it begins from: whoever
    edits locally has learned most of what editing is."""

    categories: tuple[str, ...]
    rough: float
    calm: float = 0.0
    aside: int = 0
    start: str = ""

    def steps(self, plan: BuildPlan) -> tuple[int, int]:
        return round(self.rough * plan.edit.steps), round(self.calm * plan.calm.steps)


TEACHERS = {
    "local_edit": Lesson(LOCAL, 1.0, 0.6, 4),
    "edit": Lesson(EDIT, 0.6, 1.0, 3, "local_edit"),
    "global_edit": Lesson(GLOBAL, 0.0, 0.08, 8),
}
STAGES = ("vae", "loose", "base", *TEACHERS, "realism")


def _finished(out: Path, stage: str) -> bool:
    if stage == "loose" and _finished(out, "base"):
        return True
    where = {"vae": "vae", "loose": LOOSE, "base": "transformer", "realism": "realism"}.get(stage)
    return (out / where / "config.json").exists() if where else (out / "loras" / f"{stage}.safetensors").exists()


def build(plan: BuildPlan, out: Path, device: str, log: Log, stages: tuple[str, ...] = STAGES) -> None:
    """Makes every stage that is not finished yet, in order."""
    out.mkdir(parents=True, exist_ok=True)
    place = torch.device(device)
    if device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    for stage in stages:
        if _finished(out, stage):
            log(f"{stage}: already there")
            continue
        torch.manual_seed(plan.seed)
        if stage == "vae":
            build_vae(plan, out, place, log)
            continue
        shop = BuildContext(plan, out, place)
        if stage == "loose":
            write_pipeline(out, shop.tokenizer, shop.text_encoder)
            build_loose(shop, log)
        elif stage == "base":
            build_base(shop, log)
        elif stage == "realism":
            build_realism(shop, log)
        else:
            build_teacher(shop, stage, log)
    if all(_finished(out, stage) for stage in STAGES):
        steps = {name: one.steps(plan) for name, one in TEACHERS.items()}
        write_card(plan, out, RANK, steps, {name: one.aside for name, one in TEACHERS.items()})
