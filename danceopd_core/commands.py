"""What each command of the command line does; the only part of the core that prints."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from dataclasses import asdict, replace
from pathlib import Path

import torch

from .adapters import Adapters
from .backbones import COMPONENTS
from .data import Item, load_bucket
from .errors import InputError
from .fields import VelocityField, guided
from .full_checkpoints import load_full_checkpoint
from .hub import is_hub_id
from .joining import plan
from .lora_files import read_lora
from .names import lookup
from .preflight import preflight
from .presets import preset_text, presets
from .processes import join_world
from .query import asked_text
from .recipe import read_recipe
from .run import DTYPES, Run, asked_sigmas, build_method, encode_items, open_model, open_run, pick_device
from .runfolder import RunFolder
from .sampling import pictures
from .shapes import locate
from .training import Diverged

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
            print(plan(own, asked, recipe.learned_router.holdout))
        if not is_hub_id(recipe.model):  # whose configuration may have to be fetched first
            print(asked_text(asked_sigmas(recipe)))
        return
    world, place = join_world(recipe.device)
    if place is not None:
        recipe = replace(recipe, device=str(place))
    main = world.rank == 0
    run = open_run(recipe, world, _tell if main else lambda text: None)
    if main:
        folder.begin(run, args.resume)
    elif args.resume:
        from .checkpoint import load_state

        run.trainer.load_state_dict(load_state(folder.state))
    follow(run, folder, main)
    if main:
        _tell(f"wrote {folder.student}")


def memory(args: Namespace) -> None:
    from .memory import planned_memory
    from .released import memory_table

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


def follow(run: Run, folder: RunFolder, main: bool = True) -> None:
    """Trains to the end with a progress bar, saving as the recipe asks; an interrupt saves first."""
    from tqdm import tqdm

    recipe, trainer = run.recipe, run.trainer
    bar = tqdm(total=recipe.steps, initial=trainer.update, unit="update", disable=not main, dynamic_ncols=True)
    try:
        for result in trainer:
            if not main:
                continue
            folder.add(result)
            bar.set_postfix(loss=f"{result.loss:.4f}", lr=f"{result.lr:.1e}", refresh=False)
            bar.update()
            if trainer.update % recipe.save_every == 0 and trainer.update < recipe.steps:
                folder.save(run)
    finally:
        bar.close()
        # Whatever ended the run, what it has learned so far is kept and can be resumed.
        if main and trainer.update:
            folder.save(run)


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
    (made,) = pictures(backbone, field, cond, [args.seed], steps=args.steps, width=width, height=height, device=device)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((made[0] * 255).round().to(torch.uint8).numpy()).save(args.out)
    _tell(f"wrote {args.out}")


def demo(args: Namespace) -> None:
    from .shapes.demo import run_demo

    run_demo(args.out, args.seed, args.steps, _tell)


def bench(args: Namespace) -> None:
    from .bench.command import run_bench

    run_bench(args, _tell)


def eval(args: Namespace) -> None:
    from .evaluation.command import run_eval

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
    from .omniedit import convert_omniedit

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
    from .shapes.build import STAGES, Plan, build

    unknown = sorted(set(args.only or ()) - set(STAGES))
    if unknown:
        raise InputError(f"no stage is named {', '.join(unknown)}: there are {', '.join(STAGES)}")
    build(Plan(seed=args.seed), args.out, str(pick_device(args.device)), _tell, tuple(args.only or STAGES))


def _score(args: Namespace) -> None:
    from .shapes.language import EDIT, T2I
    from .shapes.score import Exam, as_text, judge

    device = pick_device("auto")
    tables = {}
    for lora in args.lora or [None]:
        backbone, plain = _open_field(args, lora, args.checkpoint, 1.0, device, torch.float32)
        field: VelocityField = guided(plain, args.guidance)
        for seed in args.seeds:
            exam = Exam.of(backbone, {T2I: args.each, EDIT: args.each}, seed, args.size, args.steps)
            shots = list(exam.shots(backbone, field, device=device))
            name = Path(lora).stem if lora else (args.checkpoint or "base")
            tables[f"{name}, seed {seed}"] = judge(exam, shots, args.style)
    print(as_text(tables))
    if args.json:
        data = {name: {c: asdict(mark) for c, mark in table.items()} for name, table in tables.items()}
        args.json.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
