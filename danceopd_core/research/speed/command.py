"""`danceopd bench speed`: one process, all trainers in turns, ratios of what they took in the same repeat."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from ...errors import InputError
from ...files import write_text
from ...lookup import lookup
from ...runs.plans.opening import DTYPES, pick_device
from ...runs.training.session import TrainingSession
from .floor import bare_calls, expected_rollout
from .pipeline import SIZES, build_pipeline
from .timing import Spread, repeated, seconds, spread
from .trainers import SpeedPlan, official, ours

FAST_STEPS = 8
"""Rollout steps of `--fast` recipes."""


def run_speed(args: Namespace, log: Callable[[str], None]) -> None:
    """Writes speed.json and speed.md in --out."""
    lookup(SIZES, args.size, "size")
    for name in ("repeats", "updates", "pixels", "accumulate"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name} {getattr(args, name)}: give at least 1")
    device = str(pick_device(args.device))
    with TemporaryDirectory() as name:
        plan = SpeedPlan(
            Path(name) / "pipeline", args.pixels, device, DTYPES[args.dtype],
            accumulate=args.accumulate, checkpointing=args.checkpointing,
        )  # fmt: skip
        log(f"building a pipeline of random weights ({args.size})")
        build_pipeline(plan.folder, args.size, plan.dtype)
        taken = measured(plan, args.official, args.repeats, args.updates, log, args.compile)
    table = ratios(taken)
    record = {
        "size": args.size, "pixels": args.pixels, "dtype": args.dtype, "device": _device_name(device),
        "threads": torch.get_num_threads(), "rollout_steps": plan.rollout_steps, "accumulate": plan.accumulate,
        "checkpointing": plan.checkpointing, "updates": args.updates, "seconds": taken,
        "ratios": {what: tuple(value) for what, value in table.items()},
    }  # fmt: skip
    write_text(args.out / "speed.json", json.dumps(record, indent=1) + "\n")
    text = markdown(taken, table)
    write_text(args.out / "speed.md", text)
    print(text)
    log(f"wrote {args.out / 'speed.json'} and speed.md")


def measured(
    plan: SpeedPlan,
    checkout: Path | None,
    repeats: int,
    updates: int,
    log: Callable[[str], None],
    compiled: bool = False,
) -> dict[str, list[float]]:
    """Seconds of an update of each trainer, by repeat, and of the floor; the first update of each is not counted.

    A path ends at its queried state, so our updates differ in their forwards: their seconds are those of the expected
    number of them.
    """
    exact, fast = ours(plan, plan.rollout_steps), ours(plan, FAST_STEPS)
    forward, both = bare_calls(exact.backbone, exact.trainer)
    timers: dict[str, Callable[[], float]] = {
        "ours": lambda: _ours(exact, plan.rollout_steps, updates, plan),
        "fast": lambda: _ours(fast, FAST_STEPS, updates, plan),
    }
    if compiled:
        log("compiling")
        both_ways = ours(plan, plan.rollout_steps, compiled=True), ours(plan, FAST_STEPS, compiled=True)
        timers |= {
            "compiled": lambda: _ours(both_ways[0], plan.rollout_steps, updates, plan),
            "compiled fast": lambda: _ours(both_ways[1], FAST_STEPS, updates, plan),
        }
    if checkout is not None:
        update = official(plan, checkout)
        timers = {
            "official": lambda: seconds(lambda: [update() for _ in range(updates)], plan.device) / updates,
            **timers,
        }

    def floor(steps: int) -> float:
        bare, graded = (repeated(call, 8, plan.device) for call in (forward, both))
        return plan.accumulate * ((expected_rollout(steps) + 1) * bare + graded)

    timers |= {"floor": lambda: floor(plan.rollout_steps), "fast floor": lambda: floor(FAST_STEPS)}
    taken: dict[str, list[float]] = {name: [] for name in timers}
    for repeat in range(repeats + 1):
        for name, timer in timers.items():
            value = timer()
            if repeat:
                taken[name].append(value)
        log(f"repeat {repeat} of {repeats}" if repeat else "warmed up")
    return taken


def _ours(session: TrainingSession, steps: int, updates: int, plan: SpeedPlan) -> float:
    iterator, forwards = iter(session.trainer), 0

    def run() -> None:
        nonlocal forwards
        for _ in range(updates):
            forwards += sum(next(iterator).indices)

    spent = seconds(run, plan.device)
    # What is not the rollout is three forwards and more in each micro-step: the teacher's, the student's, its backward.
    micro_steps = updates * plan.accumulate
    rest = 4 * micro_steps
    return spent / updates * (expected_rollout(steps) * micro_steps + rest) / (forwards + rest)


def ratios(taken: dict[str, list[float]]) -> dict[str, Spread]:
    """Of the same repeat: our updates in the time of one of the official trainer's, and their cost over the floor."""
    pairs = {f"official / {name}": ("official", name) for name in ("ours", "fast", "compiled", "compiled fast")}
    pairs |= {"ours / floor": ("ours", "floor"), "fast / its floor": ("fast", "fast floor")}
    pairs |= {"ours / compiled": ("ours", "compiled"), "compiled / floor": ("compiled", "floor")}
    return {
        what: spread([a / b for a, b in zip(taken[one], taken[other], strict=True)])
        for what, (one, other) in pairs.items()
        if {one, other} <= taken.keys()
    }


def markdown(taken: dict[str, list[float]], table: dict[str, Spread]) -> str:
    lines = [
        "| seconds of an update | |",
        "|---|---|",
        *(f"| {name} | {spread(each)} |" for name, each in taken.items()),
    ]
    lines += ["", "| ratio | |", "|---|---|", *(f"| {what} | {value} |" for what, value in table.items())]
    return "\n".join(lines) + "\n"


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device.startswith("cuda") else device
