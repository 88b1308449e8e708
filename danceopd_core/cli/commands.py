"""What each command of the command line does; the only part of the core that prints."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from dataclasses import asdict, replace
from pathlib import Path

import torch

from ..algorithm.fields import VelocityField, guided
from ..algorithm.query import query_text
from ..algorithm.trainer import Diverged
from ..data.buckets import load_bucket
from ..data.csv_rows import Item
from ..data.prompt_assignment import describe_assignment
from ..errors import InputError
from ..lookup import lookup
from ..models.backbone import COMPONENTS
from ..models.hub import is_hub_id
from ..models.sampling import sample_pictures
from ..recipe.io import read_recipe
from ..recipe.presets import preset_text, presets
from ..runs.distributed import join_process_group
from ..runs.loop import follow
from ..runs.preflight import preflight
from ..runs.run_dir import RunFolder
from ..runs.session import DTYPES, build_method, encode_items, open_model, open_session, pick_device, query_sigmas
from ..shapes import locate
from ..weights.adapters import Adapters
from ..weights.full_checkpoints import load_full_checkpoint
from ..weights.lora_io import read_lora

__all__ = ["Diverged", "bench", "data", "demo", "eval", "memory", "quiet", "recipes", "sample", "shapes", "train"]


def quiet() -> None:
    """No bars of the libraries' own among ours."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


def _tell(text: str) -> None:
    print(f"danceopd: {text}", file=sys.stderr, flush=True)


def train(args: Namespace) -> None:
    recipe = read_recipe(args.recipe, args.overrides)
    folder = RunFolder(recipe.out)
    folder.claim(recipe, args.resume)
    build_method(recipe)
    if args.dry_run:
        preflight(recipe)
        shares = ", ".join(f"{route.name} (weight {route.weight:g})" for route in recipe.routes)
        print(f"{recipe.method}, {recipe.steps} updates over {shares} -> {recipe.out}: nothing is missing")
        if recipe.learned_router is not None:
            *own, asked = (load_bucket(bucket, recipe.seed) for bucket in recipe.buckets())
            print(describe_assignment(own, asked, recipe.learned_router.holdout))
        if not is_hub_id(recipe.model):  # whose configuration may have to be fetched first
            print(query_text(query_sigmas(recipe)))
        return
    world, place = join_process_group(recipe.device)
    if place is not None:
        recipe = replace(recipe, device=str(place))
    main = world.rank == 0
    run = open_session(recipe, world, _tell if main else lambda text: None)
    if main:
        folder.begin(run, args.resume)
    elif args.resume:
        from ..runs.train_state import load_state

        run.trainer.load_state_dict(load_state(folder.state))
    follow(run, folder, main)
    if main:
        _tell(f"wrote {folder.student}")


def memory(args: Namespace) -> None:
    from ..runs.memory import planned_memory
    from ..runs.released import memory_table

    if (args.recipe is None) == (args.like is None):
        raise InputError("memory: give a recipe, or --like with the name of a released model")
    if args.like is not None:
        print("\n".join(memory_table(args.like)))
        return
    print("\n".join(planned_memory(read_recipe(args.recipe, args.overrides)).lines()))


def recipes(args: Namespace) -> None:
    if args.name:
        print(preset_text(args.name, args.fast), end="")
        return
    if args.fast:
        raise InputError(f"--fast belongs to one recipe: give its name, one of {', '.join(presets())}")
    for name, title in presets().items():
        print(f"{name:<22} {title}")


def _open_field(
    args: Namespace, lora: str | None, checkpoint: str | None, strength: float, device: torch.device, dtype: torch.dtype
) -> tuple:
    """(backbone, unguided field) of a model with a checkpoint or LoRA in place."""
    backbone = open_model(args.model, _components(args.component), dtype, device)
    if checkpoint:
        backbone = backbone.with_network(load_full_checkpoint(backbone.network, locate(checkpoint)))
    adapters = Adapters(backbone.network)
    name = adapters.add_teacher(read_lora(locate(lora), adapters.shapes)) if lora else None
    return backbone, adapters.field(backbone.velocity, name, strength)


def _components(given: list[str]) -> dict[str, str]:
    """PART=FILE words as a mapping."""
    parts = dict(word.partition("=")[::2] for word in given)
    for part, file in parts.items():
        lookup(dict.fromkeys(COMPONENTS), part, "part of a model")
        if not Path(file).is_file():
            raise InputError(f"--component {part}={file}: there is no such file")
    return parts


def sample(args: Namespace) -> None:
    from PIL import Image

    device = pick_device(args.device)
    backbone, field = _open_field(args, args.lora, None, args.strength, device, DTYPES[args.dtype])
    side = 64 if args.model == "shapes" else 1024
    width, height = args.width or side, args.height or side
    backbone.latent_shape(width, height)
    if args.source and not args.source.is_file():
        raise InputError(f"--source {args.source} does not exist")
    item = Item(args.prompt, args.source)
    cond = encode_items(backbone, [item], width, height, [args.negative])
    field = guided(field, args.guidance, args.negative)
    (made,) = sample_pictures(
        backbone, field, cond, [args.seed], steps=args.steps, width=width, height=height, device=device
    )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((made[0] * 255).round().to(torch.uint8).numpy()).save(args.out)
    _tell(f"wrote {args.out}")


def demo(args: Namespace) -> None:
    from .demo_run import run_demo

    run_demo(args.out, args.seed, args.steps, _tell)


def bench(args: Namespace) -> None:
    from ..research.bench.command import run_bench

    run_bench(args, _tell)


def eval(args: Namespace) -> None:
    from ..evaluation.command import run_eval

    device, components = pick_device(args.device), _components(args.component)
    run_eval(
        args,
        components,
        device,
        lambda: _open_field(args, args.lora, None, args.strength, device, DTYPES[args.dtype]),
        _tell,
    )


def data(args: Namespace) -> None:
    {"omniedit": _omniedit}[args.data](args)


def _omniedit(args: Namespace) -> None:
    from ..data.omniedit import convert_omniedit

    made = convert_omniedit(
        args.metadata,
        args.out,
        split=args.split,
        limit=args.limit,
        min_score=args.min_score,
        skip_bad=args.skip_bad,
    )
    for fault in made.left_out:
        _tell(f"left out {fault}")
    counts = ", ".join(f"{count} {task}" for task, count in sorted(made.tasks.items()))
    _tell(f"wrote {args.out / 'edits.csv'}: {counts}")


def shapes(args: Namespace) -> None:
    {"build": _build, "score": _score}[args.shapes](args)


def _build(args: Namespace) -> None:
    from ..research.shapes_build.build_context import BuildPlan
    from ..research.shapes_build.stages import STAGES, build

    unknown = sorted(set(args.only or ()) - set(STAGES))
    if unknown:
        raise InputError(f"no stage is named {', '.join(unknown)}: there are {', '.join(STAGES)}")
    build(BuildPlan(seed=args.seed), args.out, str(pick_device(args.device)), _tell, tuple(args.only or STAGES))


def _score(args: Namespace) -> None:
    from ..shapes.language import EDIT, T2I
    from ..shapes.score import HeldOutSet, score_markdown, score_table

    device = pick_device("auto")
    tables = {}
    for lora in args.lora or [None]:
        backbone, plain = _open_field(args, lora, args.checkpoint, 1.0, device, torch.float32)
        field: VelocityField = guided(plain, args.guidance)
        for seed in args.seeds:
            exam = HeldOutSet.of(backbone, {T2I: args.each, EDIT: args.each}, seed, args.size, args.steps)
            shots = list(exam.generate(backbone, field, device=device))
            name = Path(lora).stem if lora else (args.checkpoint or "base")
            tables[f"{name}, seed {seed}"] = score_table(exam, shots, args.style)
    print(score_markdown(tables))
    if args.json:
        data = {name: {c: asdict(mark) for c, mark in table.items()} for name, table in tables.items()}
        args.json.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
