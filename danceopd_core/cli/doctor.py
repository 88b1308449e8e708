"""`danceopd doctor`: what a LoRA file holds, which loaders take it, what it changes, and a verdict."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .console import log, say
from .options import LORA, MODEL, add_component, add_device_and_dtype, components_of

if TYPE_CHECKING:
    from ..doctor.effect import Effect


def add_arguments(subparsers: Any) -> None:
    parser = subparsers.add_parser("doctor", help="what a LoRA holds and changes, with a verdict")
    parser.add_argument("lora", help=LORA)
    parser.add_argument("--model", help=f"also measure what it changes in this model: {MODEL}")
    add_component(parser)
    parser.add_argument("--prompt", action="append", help="for the effect, may be repeated; default: 'a photograph'")
    parser.add_argument("--source", type=Path, help="picture that the prompts edit, for a LoRA of edits")
    parser.add_argument("--width", type=int)
    parser.add_argument("--height", type=int)
    add_device_and_dtype(parser)
    parser.add_argument("--all", action="store_true", help="list every layer")
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="draw the spectra of all layers")
    parser.add_argument("--json", action="store_true", help="print the verdict and its figures as JSON")


def run(args: Namespace) -> int:
    """Prints the report; 0 for a LoRA that is healthy or doubtful, 1 for one that is dead or broken."""
    import json

    from ..doctor.lora_file import read_for_examination
    from ..doctor.report import report_text, spectrum_picture
    from ..shapes import locate

    file = read_for_examination(locate(args.lora))
    health = file.health()
    try:
        effects = _effect(args) if args.model and not health.broken else []
    except InputError:  # the file itself can be told of, whatever the model takes of it
        say(report_text(file, health, (), args.all))
        raise
    if args.json:
        measured = [{"sigma": effect.sigma, "change": effect.change} for effect in effects]
        say(json.dumps({**health.to_dict(), "keys": file.keys_text(), "effect": measured}, indent=1))
    else:
        say(report_text(file, health, effects, args.all))
    if args.picture:
        args.picture.parent.mkdir(parents=True, exist_ok=True)
        spectrum_picture(health, file.path.name).save(args.picture)
        log(f"wrote {args.picture}")
    return int(health.state in ("dead", "broken"))


def _effect(args: Namespace) -> list[Effect]:
    from ..data.csv_rows import Item
    from ..runs.pictures.lora_effect import PROMPT, field_effect
    from ..runs.plans.opening import DTYPES, FILES, open_model, pick_device, size_or_default

    if args.source and not args.source.is_file():
        raise InputError(f"--source {args.source} does not exist: give the path of a picture")
    device = pick_device(args.device)
    backbone = open_model(args.model, components_of(args.component), DTYPES[args.dtype], device)
    size = size_or_default(args.model, args.width, args.height)
    backbone.latent_shape(*size)
    adapters = FILES.adapters(backbone)
    base = adapters.field(backbone.velocity, None)
    changed = adapters.field(
        backbone.velocity, adapters.add_teacher(FILES.read_lora(args.lora, backbone, adapters.shapes))
    )
    items = [Item(prompt, args.source) for prompt in args.prompt or [PROMPT]]
    return field_effect(backbone, base, changed, items, size, device)
