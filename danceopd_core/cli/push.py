"""`danceopd push`: a run's LoRA with its model card, to a repository on Hugging Face."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from .console import log, say


def add_arguments(subparsers: Any) -> None:
    parser = subparsers.add_parser("push", help="push a run's LoRA with its model card to Hugging Face")
    parser.add_argument("run", type=Path, help="folder of the run, e.g. output/danceopd/NAME")
    parser.add_argument("repository", help="owner/name")
    parser.add_argument("--name", help="of the LoRA there; default: the folder's")
    parser.add_argument("--private", action="store_true", help="create a private repository")
    parser.add_argument("--dry-run", action="store_true", help="list what would be pushed, and show the card")


def run(args: Namespace) -> None:
    from ..errors import InputError
    from ..models.hub import ID
    from ..runs.cards.pushing import planned_push, push

    if not ID.fullmatch(args.repository) or "@" in args.repository:
        raise InputError(f"{args.repository} names no repository: give owner/name")
    planned = planned_push(args.run, args.name)
    if args.dry_run:
        say("\n".join([f"would push to {args.repository}:", *planned.lines(), "", planned.card]))
    else:
        log(f"pushing {len(planned.files) + 1} files to {args.repository}")
        say(push(planned, args.repository, args.private))
