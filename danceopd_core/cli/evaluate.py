"""`danceopd eval`: generates the pictures of a benchmark's prompts in the folder layout of its official scorer."""

from __future__ import annotations

import math
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .console import log
from .options import LORA, MODEL, add_component, add_device_and_dtype, components_of, open_field

if TYPE_CHECKING:
    from ..evaluation.generate import GenerationConfig
    from ..evaluation.selection import PromptSelection

MAX_FAULTS = 50
"""Faults that are listed one by one; the rest are counted."""


def add_arguments(subparsers: Any) -> None:
    text = "pictures of a benchmark's prompts, laid out for its official scorer"
    benchmarks = subparsers.add_parser("eval", help=text).add_subparsers(dest="eval", required=True)
    geneval = benchmarks.add_parser("geneval", help="GenEval, text-to-image")
    geneval.add_argument("prompts", type=Path, help="its evaluation_metadata.jsonl")
    geneval.add_argument("--samples", type=int, default=4, help="pictures per prompt")
    geneval.add_argument("--width", type=int)
    geneval.add_argument("--height", type=int)
    geneval.add_argument("--only", default="", help="only prompts of these tags, comma-separated: counting,position")
    gedit = benchmarks.add_parser("gedit", help="GEdit-Bench, edits")
    gedit.add_argument("source", help="a .csv, .json, .jsonl or .parquet file, a folder, or stepfun-ai/GEdit-Bench")
    gedit.add_argument("--name", required=True, help="name of the model in the scorer: the folder in --out")
    gedit.add_argument("--language", default="en", choices=("en", "cn", "all"))
    gedit.add_argument("--tasks", default="", help="only these task types, comma-separated; 'paper': DanceOPD's six")
    gedit.add_argument("--pixels", type=int, default=1024 * 1024, help="larger sources are scaled down to this area")
    for parser in (geneval, gedit):
        _add_generation(parser)


def _add_generation(parser: ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="folder; finished pictures in it are kept")
    parser.add_argument("--model", required=True, help=MODEL)
    add_component(parser)
    parser.add_argument("--lora", help=LORA)
    parser.add_argument("--strength", type=float, default=1.0)
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--negative", default="")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=4, help="pictures per batch")
    parser.add_argument("--limit", type=int, help="no more than this many prompts")
    add_device_and_dtype(parser)


def run(args: Namespace) -> None:
    """Reports every fault in one InputError before a model is opened."""
    from tqdm import tqdm

    from ..errors import Fault, refuse
    from ..evaluation.folder import EvalFolder
    from ..evaluation.generate import generate, plan_generation
    from ..evaluation.layouts import LAYOUTS
    from ..evaluation.settings import evaluation_settings
    from ..runs.plans.opening import DTYPES, pick_device

    components, device = components_of(args.component), pick_device(args.device)
    config, selection = _config(args, str(device)), _selection(args)
    faults = [*_faults(args, config), *selection.faults]
    more = [f"and {len(faults) - MAX_FAULTS} more"] if len(faults) > MAX_FAULTS else []
    refuse(f"eval {args.eval}", (Fault("", line) for line in [*faults[:MAX_FAULTS], *more]))
    model = {"model": args.model, "components": components, "dtype": args.dtype}
    settings = evaluation_settings(args.eval, config, selection.digest, model, args.lora, args.strength)
    folder = EvalFolder(selection.out, settings)
    folder.check()
    layout = LAYOUTS[args.eval]
    files = [layout(prompt, config.samples) for prompt in selection.prompts]
    total = len(files) * config.samples
    if all(map(folder.finished, files)):
        log(f"all {total} pictures are in {selection.out}")
        return
    missing = sum(not folder.has(picture) for one in files for picture in one.pictures)
    backbone, field = open_field(args, device, DTYPES[args.dtype], args.lora, args.strength)
    plan = plan_generation(selection.prompts, layout, config, backbone.size_multiple)
    with tqdm(total=total, initial=total - missing, unit="picture", dynamic_ncols=True) as bar:
        for _ in generate(backbone, field, plan, config, folder):
            bar.update()
    log(f"wrote {missing} pictures, of {total}, into {selection.out}")


def _config(args: Namespace, device: str) -> GenerationConfig:
    from ..evaluation.generate import GenerationConfig
    from ..runs.plans.opening import size_or_default

    common = {name: getattr(args, name) for name in ("steps", "guidance", "negative", "seed", "batch")}
    if args.eval == "gedit":
        return GenerationConfig(pixels=args.pixels, device=device, **common)
    width, height = size_or_default(args.model, args.width, args.height)
    return GenerationConfig(samples=args.samples, width=width, height=height, device=device, **common)


def _selection(args: Namespace) -> PromptSelection:
    from ..evaluation.selection import select_gedit, select_geneval

    if args.eval == "geneval":
        return select_geneval(args.prompts, args.out, _names(args.only), args.limit)
    return select_gedit(args.source, args.out, args.name, args.language, _names(args.tasks), args.limit)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _faults(args: Namespace, config: GenerationConfig) -> Iterator[str]:
    """Of the options, the model's configuration and the LoRA; the configuration of a Hugging Face id is not read."""
    from ..models.hub import is_hub_id
    from ..models.registry import family_of
    from ..models.sigma_schedule import size_multiple
    from ..shapes import locate
    from ..weights.lora_header import check_lora

    if args.limit is not None and args.limit < 1:
        yield f"--limit {args.limit}: give at least 1"
    if not math.isfinite(args.strength):
        yield f"--strength {args.strength}: give a finite number"
    try:
        if args.lora:
            check_lora(locate(args.lora))
    except InputError as error:
        yield f"--lora: {error}"
    if is_hub_id(args.model):
        return
    try:
        folder = locate(args.model)
        family, index = family_of(folder)
        if args.eval == "gedit" and not family.pipelines[index["_class_name"]]:
            yield f"--model: a {index['_class_name']} does not take source pictures: choose a model that edits"
        multiple = size_multiple(folder)
        for name, side in (("width", config.width), ("height", config.height)) if args.eval == "geneval" else ():
            if side % multiple:
                near = max(1, round(side / multiple)) * multiple
                yield f"--{name}: {side} is not a multiple of {multiple}: use {near}"
    except InputError as error:
        yield f"--model: {error}"
