"""`danceopd eval`: from options to prompts, and from prompts to a folder of pictures."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..algorithm.fields import VelocityField
from ..errors import InputError
from ..models.backbone import Backbone
from ..models.hub import is_hub_id
from ..models.registry import family_of
from ..models.sigma_schedule import size_multiple
from ..recipe.parsing import refuse
from ..runs.preflight import check_lora
from ..shapes import locate
from .folder import EvalFolder, lora_digest, prompts_digest
from .gedit import PAPER, attach_images, read_gedit
from .generate import GenerationConfig, generate, plan_generation
from .geneval import read_geneval
from .layouts import LAYOUTS, BenchmarkPrompt, name_fault, path_collisions, select_prompts
from .tables import open_table

Opened = tuple[Backbone, VelocityField]
TOLD = 50
"""Faults that are told one by one."""


class PromptSelection(NamedTuple):
    """Those that were asked for, the digest of the whole file's, and where their pictures go."""

    asked: list[BenchmarkPrompt]
    digest: str
    out: Path
    faults: list[str]


def run_eval(
    args: Namespace,
    components: Mapping[str, str],
    device: torch.device,
    open_field: Callable[[], Opened],
    tell: Callable[[str], None],
) -> None:
    """Everything that can be found wrong is one InputError before `open_field` is called."""
    from tqdm import tqdm

    how = _how(args, device)
    found = READERS[args.eval](args)
    faults = [*_faults(args, how), *found.faults]
    more = [f"and {len(faults) - TOLD} more"] if len(faults) > TOLD else []
    refuse(f"eval {args.eval}", [*faults[:TOLD], *more])
    model = {"model": args.model, "components": dict(components), "dtype": args.dtype}
    folder = EvalFolder(found.out, settings(args.eval, how, found.digest, model, args.lora, args.strength))
    folder.check()
    layout = LAYOUTS[args.eval]
    total = len(found.asked) * how.samples
    missing = sum(
        not folder.has(picture) for one in found.asked for picture in layout(one, how.samples).pictures
    )  # a file of another kind that was removed is made again with its batch
    if all(folder.finished(layout(one, how.samples)) for one in found.asked):
        tell(f"all {total} pictures are in {found.out}")
        return
    backbone, field = open_field()
    plan = plan_generation(found.asked, layout, how, backbone.size_multiple)
    with tqdm(total=total, initial=total - missing, unit="picture", dynamic_ncols=True) as bar:
        for _ in generate(backbone, field, plan, how, folder):
            bar.update()
    tell(f"wrote {missing} pictures, of {total}, into {found.out}")


def settings(
    layout: str, how: GenerationConfig, prompts: str, model: Mapping[str, Any], lora: str | None, strength: float
) -> dict[str, Any]:
    """What decides the pictures; not how many of the prompts are asked for, nor how many at once."""
    told = {name: value for name, value in asdict(how).items() if name not in ("batch", "device")}
    idle = ("pixels",) if layout == "geneval" else ("width", "height")
    return {
        "layout": layout,
        **model,
        "lora": lora_digest(lora),
        "strength": strength if lora else 1.0,
        **{name: value for name, value in told.items() if name not in idle},
        "prompts": prompts,
    }


def _how(args: Namespace, device: torch.device) -> GenerationConfig:
    common = (args.steps, args.guidance, args.negative, args.seed)
    if args.eval == "gedit":
        return GenerationConfig(1, *common, pixels=args.pixels, batch=args.batch, device=device)
    side = 64 if args.model == "shapes" else 1024
    return GenerationConfig(
        args.samples, *common, args.width or side, args.height or side, batch=args.batch, device=device
    )


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _geneval(args: Namespace) -> PromptSelection:
    asked, faults = read_geneval(args.prompts)
    wanted = [] if faults else select_prompts(asked, _names(args.only), args.limit)
    return PromptSelection(wanted, prompts_digest(asked), args.out, [f"{args.prompts}, {fault}" for fault in faults])


def _gedit(args: Namespace) -> PromptSelection:
    if fault := name_fault(args.name):
        raise InputError(f"--name {fault}")
    table = open_table(args.source)
    asked, faults = read_gedit(table)
    digest = prompts_digest(asked)
    faults += path_collisions(asked, LAYOUTS["gedit"], 1)
    tasks = PAPER if args.tasks == "paper" else _names(args.tasks)
    if not faults:
        spoken = [one for one in asked if args.language in (one.language, "all")]
        asked, faults = attach_images(select_prompts(spoken, tasks, args.limit), table)
    return PromptSelection(asked, digest, args.out / args.name, [f"{args.source}, {fault}" for fault in faults])


READERS: dict[str, Callable[[Namespace], PromptSelection]] = {"geneval": _geneval, "gedit": _gedit}


def _faults(args: Namespace, how: GenerationConfig) -> Iterator[str]:
    """Of the options, the model's configuration and the LoRA; a model that is to be fetched is known only then."""
    if args.limit is not None and args.limit < 1:
        yield f"--limit {args.limit}: give at least 1"
    if not math.isfinite(args.strength):
        yield f"--strength {args.strength}: give a number"
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
            yield f"--model: a {index['_class_name']} takes no source picture: give a model that edits"
        multiple = size_multiple(folder)
        for name, side in (("width", how.width), ("height", how.height)) if args.eval == "geneval" else ():
            if side % multiple:
                near = max(1, round(side / multiple)) * multiple
                yield f"--{name}: {side} is not a multiple of {multiple}: take {near}"
    except InputError as error:
        yield f"--model: {error}"
