"""`danceopd recipes`: lists or prints the recipes that are shipped."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from ..errors import InputError


def add_arguments(subparsers: Any) -> None:
    parser = subparsers.add_parser("recipes", help="list the recipes there are, or print one to fill in")
    parser.add_argument("name", nargs="?", help="of the recipe to print, e.g. into recipe.yaml")
    parser.add_argument("--fast", action="store_true", help="with 8 rollout steps, nearly as good in the paper")
    parser.add_argument("--reference", action="store_true", help="every setting of a recipe, as Markdown")


def run(args: Namespace) -> None:
    from ..recipe.presets import preset_text, presets
    from ..recipe.reference import reference

    if args.reference:
        print(reference(), end="")
        return
    if args.name:
        print(preset_text(args.name, args.fast), end="")
        return
    if args.fast:
        raise InputError(f"--fast belongs to one recipe: give its name, one of {', '.join(presets())}")
    for name, title in presets().items():
        print(f"{name:<22} {title}")
