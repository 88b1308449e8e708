"""`danceopd bench`: options to trials, and results to report files."""

from __future__ import annotations

import json
import math
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace

from ...errors import InputError
from ...lookup import lookup
from ...runs.plans.opening import pick_device
from .benches import BENCHES, trials_of
from .figure import draw_curves
from .identity import plan_record
from .markdown import as_markdown
from .report_rows import as_record, report_rows
from .results import finished_results
from .runner import run_trials
from .trials import TASKS, BenchPlan


def run_bench(args: Namespace, log: Callable[[str], None]) -> None:
    """Runs the trials that are not finished, or none with --finished; writes NAME.json, .md and .png in --out."""
    bench = lookup(BENCHES, args.bench, "bench")
    tasks = _names(args.setting) or bench.tasks
    for task in tasks:
        lookup(TASKS, task, "setting")
    for name in ("steps", "each", "brief", "jobs"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name} {getattr(args, name)}: give at least 1")
    lr, rates = _rates(args.lr)
    plan = BenchPlan(args.steps, args.each, min(args.each, args.brief), lr=lr, dtype=args.dtype)
    seeds = _seeds(args.seeds)
    if args.quick:
        seeds = seeds[:1]
        plan = replace(plan, steps=min(args.steps, 4), items=min(args.each, 2), curve_items=1, batch=4, prompts=8)
    trials = list(trials_of(bench, tasks, seeds))
    only = _names(args.only)
    for row in (*only, *rates):
        lookup({trial.row: trial for trial in trials}, row, "row of this bench")
    trials = [replace(trial, config=replace(trial.config, lr=rates.get(trial.row))) for trial in trials]
    trials = [trial for trial in trials if not only or trial.row in only]
    if args.finished:
        results = finished_results(trials, plan, args.out)
        if not results:
            raise InputError(f"none of these trials is finished in {args.out}: run the bench without --finished")
    else:
        results = run_trials(trials, plan, args.out, pick_device(args.device), log, args.jobs)
    rows = report_rows(results)
    report = {"bench": args.bench, "plan": plan_record(plan), "lines": [as_record(row) for row in rows]}
    (args.out / f"{args.bench}.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    text = as_markdown(args.bench, plan, rows)
    (args.out / f"{args.bench}.md").write_text(text, encoding="utf-8")
    draw_curves(results, rows, args.out / f"{args.bench}.png", f"{args.bench}: held-out scores in the embedded world")
    print(text)
    log(f"wrote {args.out / args.bench}.json, .md and .png")


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _rates(text: str) -> tuple[float, dict[str, float]]:
    """The learning rate of all rows, and those of single ones: `5e-4` or `5e-4,danceopd=2e-4`."""
    lr, rates = BenchPlan.lr, {}
    for part in _names(text):
        row, _, number = part.rpartition("=")
        try:
            rate = float(number)
        except ValueError:
            rate = 0.0
        if not 0 < rate < math.inf:
            raise InputError(f"--lr {part!r}: give a number above 0, or ROW=NUMBER, as in 5e-4,danceopd=2e-4")
        if row:
            rates[row] = rate
        else:
            lr = rate
    return lr, rates


def _seeds(text: str) -> list[int]:
    try:
        seeds = list(dict.fromkeys(int(name) for name in _names(text)))
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0:
        raise InputError(f"--seeds {text!r}: give whole numbers from 0 on, as in 0,1,2")
    return seeds
