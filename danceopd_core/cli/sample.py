"""`danceopd sample`: generates or edits one picture."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from ..errors import InputError, naming
from .console import log
from .options import LORA, MODEL, add_component, add_device_and_dtype, open_field


def add_arguments(subparsers: Any) -> None:
    parser = subparsers.add_parser("sample", help="generate or edit a picture with a model and a LoRA")
    parser.add_argument("prompt")
    parser.add_argument("--model", default="shapes", help=MODEL)
    add_component(parser)
    parser.add_argument("--lora", help=LORA)
    parser.add_argument("--strength", type=float, default=1.0)
    parser.add_argument("--source", type=Path, help="picture to edit")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--negative", default="")
    parser.add_argument("--width", type=int)
    parser.add_argument("--height", type=int)
    parser.add_argument("--seed", type=int, default=0)
    add_device_and_dtype(parser)
    parser.add_argument("--out", type=Path, default=Path("sample.png"))


def run(args: Namespace) -> None:
    import torch
    from PIL import Image

    from ..algorithm.fields import guided
    from ..data.csv_rows import Item
    from ..models.sampling import sample_pictures
    from ..runs.encoded.encoding import encode_items
    from ..runs.files.run_names import check_place
    from ..runs.plans.opening import DTYPES, pick_device, size_or_default

    with naming("--out"):
        check_place(args.out)
    device = pick_device(args.device)
    backbone, field = open_field(args, device, DTYPES[args.dtype], args.lora, args.strength)
    width, height = size_or_default(args.model, args.width, args.height)
    backbone.latent_shape(width, height)
    if args.source and not args.source.is_file():
        raise InputError(f"--source {args.source} does not exist: give the path of a picture")
    samples = encode_items(backbone, [Item(args.prompt, args.source)], width, height, [args.negative])
    field = guided(field, args.guidance, args.negative)
    (images,) = sample_pictures(
        backbone, field, samples, [args.seed], steps=args.steps, width=width, height=height, device=device
    )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((images[0] * 255).round().to(torch.uint8).numpy()).save(args.out)
    log(f"wrote {args.out}")
