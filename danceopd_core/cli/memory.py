"""`danceopd memory`: how much memory a recipe takes at its peak."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .console import say

if TYPE_CHECKING:
    from ..runs.budget.memory import Estimate


def add_arguments(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "memory", help="the memory that a recipe takes at its peak, without reading any weight"
    )
    parser.add_argument("recipe", type=Path, nargs="?")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument(
        "--like",
        metavar="NAME",
        help="a table for the shape of a released model: zimage, sd35m, flux, klein4b, klein9b, qwen, krea2 or qwen21",
    )
    parser.add_argument("--rank", type=int, action="append", help="with --like: ranks of the table; 16 and 128")
    parser.add_argument("--edits", action="store_true", help="with --like: every prompt has a source picture")
    parser.add_argument(
        "--free", type=float, metavar="GIB", help="what `memory: auto` would choose where this much is free on the GPU"
    )


def run(args: Namespace) -> None:
    from ..recipe.io import read_recipe
    from ..runs.budget.memory import checkpoints_by_default, estimate
    from ..runs.budget.released import RANKS, memory_table, released_estimate
    from ..runs.stored.queueing import refuse_live

    if (args.recipe is None) == (args.like is None):
        raise InputError("memory: give a recipe, or --like with the name of a released model")
    ranks = args.rank or RANKS
    if min(ranks) < 1:
        raise InputError(f"memory: a rank of {min(ranks)} is none: give --rank 1 or more")
    if args.like is not None and args.free is None:
        lines = memory_table(args.like, ranks, args.edits)
    elif args.like is not None:
        lines = [f"rank {rank}: {_chosen(released_estimate(args.like, rank, args.edits), args.free)}" for rank in ranks]
    else:
        recipe = read_recipe(args.recipe, args.overrides)
        refuse_live(recipe, args.recipe)
        found = estimate(recipe)
        lines = found.memory(recipe, checkpoints_by_default(recipe), recipe.batch).lines()
        lines += [] if args.free is None else [_chosen(found, args.free)]
    say("\n".join(lines))


def _chosen(found: Estimate, free: float) -> str:
    """As on a GPU that has the libraries of every quantisation."""
    from ..models.quantise import QUANTISATIONS
    from ..runs.budget.ladder import choose
    from ..runs.budget.memory import GIB

    if not free > 0:
        raise InputError(f"memory: --free {free:g} is no memory: give the free GiB of the GPU")
    return choose(found, int(free * GIB), tuple(QUANTISATIONS)).text()
