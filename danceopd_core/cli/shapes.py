"""`danceopd shapes`: builds the embedded model from a seed, and scores models and LoRAs in the embedded world."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from ..errors import InputError
from .console import log, say
from .options import add_component, open_field, require_research


def add_arguments(subparsers: Any) -> None:
    commands = subparsers.add_parser("shapes", help="the embedded world").add_subparsers(dest="shapes", required=True)
    build = commands.add_parser("build", help="build the embedded model from a seed; resumable")
    build.add_argument("--out", type=Path, required=True)
    build.add_argument("--seed", type=int, default=0)
    build.add_argument("--device", default="auto")
    build.add_argument("--only", nargs="*", help="only these stages")
    build.set_defaults(run_shapes=_build)
    score = commands.add_parser("score", help="a table of scores for a model or LoRAs")
    score.add_argument("--model", default="shapes")
    add_component(score)
    score.add_argument("--lora", action="append", default=[], help="a file or 'shapes:NAME'; may be repeated")
    score.add_argument("--checkpoint", help="a full checkpoint, or 'shapes:realism'")
    score.add_argument("--guidance", type=float, default=1.0)
    score.add_argument("--each", type=int, default=64, help="held-out items per category")
    score.add_argument("--seeds", type=int, nargs="+", default=[0])
    score.add_argument("--steps", type=int, default=8)
    score.add_argument("--size", type=int, default=64)
    score.add_argument("--style", choices=("flat", "shaded"), help="score the style instead of the content")
    score.add_argument("--json", type=Path, help="write the table to this file too")
    score.set_defaults(run_shapes=_score)


def run(args: Namespace) -> None:
    args.run_shapes(args)


def _build(args: Namespace) -> None:
    require_research("danceopd shapes build")
    from ..research.shapes_build.build_context import BuildPlan
    from ..research.shapes_build.stages import STAGES, build
    from ..runs.plans.opening import pick_device

    unknown = sorted(set(args.only or ()) - set(STAGES))
    if unknown:
        raise InputError(f"no stage is named {', '.join(unknown)}: there are {', '.join(STAGES)}")
    build(BuildPlan(seed=args.seed), args.out, str(pick_device(args.device)), log, tuple(args.only or STAGES))


def _score(args: Namespace) -> None:
    import json
    from dataclasses import asdict

    from ..algorithm.fields import guided
    from ..files import write_text
    from ..runs.plans.opening import DTYPES, pick_device
    from ..shapes.language import EDIT, T2I
    from ..shapes.score import HeldOutSet, score_markdown, score_table

    device = pick_device("auto")
    tables = {}
    for lora in args.lora or [None]:
        backbone, unguided = open_field(args, device, DTYPES["float32"], lora, checkpoint=args.checkpoint)
        field = guided(unguided, args.guidance)
        name = Path(lora).stem if lora else (args.checkpoint or "base")
        for seed in args.seeds:
            held_out_set = HeldOutSet.of(backbone, {T2I: args.each, EDIT: args.each}, seed, args.size, args.steps)
            images = list(held_out_set.generate(backbone, field, device=device))
            tables[f"{name}, seed {seed}"] = score_table(held_out_set, images, args.style)
    say(score_markdown(tables))
    if args.json:
        data = {name: {c: asdict(score) for c, score in table.items()} for name, table in tables.items()}
        write_text(args.json, json.dumps(data, indent=1) + "\n")
