"""`danceopd memory`: how much memory a recipe's weights take."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from ..errors import InputError
from .console import say


def add_arguments(subparsers: Any) -> None:
    parser = subparsers.add_parser("memory", help="the memory that a recipe's weights take, without reading any")
    parser.add_argument("recipe", type=Path, nargs="?")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--like", metavar="NAME", help="a table for the shape of a released model: zimage or sd35m")


def run(args: Namespace) -> None:
    from ..recipe.io import read_recipe
    from ..runs.memory import planned_memory
    from ..runs.queueing import refuse_live
    from ..runs.released import memory_table

    if (args.recipe is None) == (args.like is None):
        raise InputError("memory: give a recipe, or --like with the name of a released model")
    if args.like is not None:
        lines = memory_table(args.like)
    else:
        recipe = read_recipe(args.recipe, args.overrides)
        refuse_live(recipe, args.recipe)
        lines = planned_memory(recipe).lines()
    say("\n".join(lines))
