"""`danceopd train`: trains what a recipe file describes."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .console import log, say

if TYPE_CHECKING:
    from ..recipe.schema import Recipe
    from ..runs.training.run_dir import RunFolder


def add_arguments(subparsers: Any) -> None:
    parser = subparsers.add_parser("train", help="train what a recipe file describes")
    parser.add_argument("recipe", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. optimizer.lr=1e-4 steps=500")
    parser.add_argument("--resume", action="store_true", help="continue the run in the recipe's 'out' folder")
    parser.add_argument(
        "--stalled", type=float, default=60.0, metavar="SECONDS", help="when to say which other process is waited for"
    )
    parser.add_argument("--cache", metavar="FOLDER", help="where encoded prompts are kept between runs; off: nowhere")
    parser.add_argument("--fsdp", action="store_true", help="processes share the base model's weights, each a part")
    parser.add_argument("--dry-run", action="store_true", help="check everything, open no model, write nothing")


def run(args: Namespace) -> None:
    from ..recipe.io import read_recipe
    from ..runs.stored.queueing import refuse_live
    from ..runs.training.run_dir import RunFolder

    recipe = read_recipe(args.recipe, args.overrides)
    refuse_live(recipe, args.recipe)
    folder = RunFolder(recipe.out)
    if args.resume:
        recipe = folder.base_kept(recipe)
    if args.dry_run:
        folder.claim(recipe, args.resume)
        _check(recipe)
    else:
        _train(recipe, folder, args)


def _check(recipe: Recipe) -> None:
    from ..algorithm.query import query_text
    from ..data.bucket_text import bucket_text
    from ..data.prompt_assignment import describe_assignment
    from ..data.stream_items import StreamItems
    from ..models.hub import is_hub_id
    from ..runs.plans.planning import plan_run

    planned = plan_run(recipe)
    shares = ", ".join(f"{route.name} (weight {route.weight:g})" for route in recipe.routes)
    say(f"{recipe.method}, {recipe.steps} updates over {shares} -> {recipe.out}: nothing is missing")
    if recipe.learned_router is not None:
        *own, unassigned = (planned.items(bucket) for bucket in recipe.buckets())
        say(describe_assignment(own, unassigned, recipe.learned_router.holdout))
    if not is_hub_id(recipe.model):  # its configuration may not be downloaded yet
        planned = planned.on_own_steps()
        for line in planned.advice():
            say(line)
        say(query_text(planned.query_bins()))
    for route in recipe.routes:
        items = planned.items(route.bucket)
        told = items.text() if isinstance(items, StreamItems) else bucket_text(route.bucket, items)
        say(f"{route.name}: {told}".replace("\n", "; "))


def _train(recipe: Recipe, folder: RunFolder, args: Namespace) -> None:
    from contextlib import ExitStack
    from dataclasses import replace

    from ..runs.training.distributed import by_main, join_process_group
    from ..runs.training.loop import train_loop
    from ..runs.training.session import open_session
    from ..signals import raised
    from .progress import ProgressBar

    with ExitStack() as stack:
        stack.enter_context(raised())
        processes, device = join_process_group(recipe.device, args.stalled, log)

        def claim() -> None:
            folder.claim(recipe, args.resume)
            stack.enter_context(folder.lock())
            folder.claim(recipe, args.resume)  # another process may have begun in between

        by_main(processes, claim)
        if device is not None:
            recipe = replace(recipe, device=str(device))
        main_log = log if processes.rank == 0 else lambda text: None
        session = open_session(recipe, processes, main_log, resumed=args.resume, cache=args.cache, sharded=args.fsdp)
        folder.begin(session, args.resume, main_log)
        with ProgressBar(session, folder) as bar:
            train_loop(session, folder, bar, recipe.save_every)
        main_log(f"wrote {folder.student}")
