"""`danceopd bench`: from options to cells, and from results to files."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict, replace

from ...errors import InputError
from ...lookup import lookup
from ...runs.opening import pick_device
from .benches import BENCHES, cells_of
from .cells import SETTINGS, BenchPlan
from .figure import draw_curves
from .lines import lines
from .loop import finished, run_cells
from .report import as_markdown


def run_bench(args: Namespace, tell: Callable[[str], None]) -> None:
    """Runs what is not finished yet, or with --finished nothing; writes NAME.json, .md and .png in --out."""
    bench = lookup(BENCHES, args.bench, "bench")
    settings = _names(args.setting) or bench.settings
    for setting in settings:
        lookup(SETTINGS, setting, "setting")
    for name in ("steps", "each", "brief", "jobs"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name} {getattr(args, name)}: give at least 1")
    if not args.lr > 0:
        raise InputError(f"--lr {args.lr}: give more than 0")
    plan = BenchPlan(steps=args.steps, each=args.each, brief=min(args.each, args.brief), lr=args.lr, dtype=args.dtype)
    seeds = _seeds(args.seeds)
    if args.quick:
        seeds = seeds[:1]
        plan = replace(plan, steps=min(args.steps, 4), each=min(args.each, 2), brief=1, batch=4, prompts=8)
    cells = list(cells_of(bench, settings, seeds))
    only = _names(args.only)
    for row in only:
        lookup({cell.row: cell for cell in cells}, row, "row of this bench")
    cells = [cell for cell in cells if not only or cell.row in only]
    if args.finished:
        results = finished(cells, plan, args.out)
        if not results:
            raise InputError(f"none of these cells is finished in {args.out}: run the bench without --finished")
    else:
        results = run_cells(cells, plan, args.out, pick_device(args.device), tell, args.jobs)
    table = lines(results)
    report = {"bench": args.bench, "plan": asdict(plan), "lines": table}
    (args.out / f"{args.bench}.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    text = as_markdown(args.bench, plan, table)
    (args.out / f"{args.bench}.md").write_text(text, encoding="utf-8")
    draw_curves(results, table, args.out / f"{args.bench}.png", f"{args.bench}: held-out scores in the embedded world")
    print(text)
    tell(f"wrote {args.out / args.bench}.json, .md and .png")


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _seeds(text: str) -> list[int]:
    try:
        found = list(dict.fromkeys(int(name) for name in _names(text)))
    except ValueError:
        found = []
    if not found or min(found) < 0:
        raise InputError(f"--seeds {text!r}: give whole numbers from 0 on, as in 0,1,2")
    return found
