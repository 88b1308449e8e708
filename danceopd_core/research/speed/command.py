"""`danceopd bench speed`: one process, all trainers in turns, ratios of what they took in the same repeat."""

from __future__ import annotations

import json
import math
import traceback
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch

from ...errors import InputError, shown
from ...files import write_text
from ...lookup import lookup
from ...runs.budget.memory import GIB
from ...runs.plans.opening import DTYPES, pick_device
from ...runs.training.session import TrainingSession
from .device import Footprint, busy_share
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
    began: dict[str, Any] = {
        "size": args.size, "pixels": args.pixels, "dtype": args.dtype, **_told(device),
        "threads": torch.get_num_threads(), "accumulate": args.accumulate,
        "checkpointing": args.checkpointing, "updates": args.updates,
    }  # fmt: skip
    text = ""

    def write(found: Timed) -> None:
        nonlocal text
        table = ratios(found.seconds)
        record = {
            **began, "rollout_steps": plan.rollout_steps, "seconds": found.seconds,
            "ratios": {what: [_or_none(part) for part in value] for what, value in table.items()},
            "peak_gib": {name: round(size / GIB, 3) for name, size in found.footprint.peaks.items()},
            "busy": found.busy, "faults": found.faults,
        }  # fmt: skip
        write_text(args.out / "speed.json", json.dumps(record, indent=1) + "\n")
        text = markdown(found, table)
        write_text(args.out / "speed.md", text)

    with TemporaryDirectory() as name:
        plan = SpeedPlan(
            Path(name) / "pipeline", args.pixels, device, DTYPES[args.dtype],
            accumulate=args.accumulate, checkpointing=args.checkpointing,
        )  # fmt: skip
        log(f"building a pipeline of random weights ({args.size})")
        build_pipeline(plan.folder, args.size, plan.dtype, device)
        asked = Asked(args.official, args.repeats, args.updates, args.compile, args.profile)
        write(measured(plan, asked, log, write))
    print(text)
    log(f"wrote {args.out / 'speed.json'} and speed.md")


class Asked(NamedTuple):
    """What is timed. checkout: the official trainer's. compiled: ours with compiled blocks too. profile: also the
    share of an update in which a GPU is busy."""

    checkout: Path | None
    repeats: int
    updates: int
    compiled: bool = False
    profile: bool = False


@dataclass(frozen=True)
class Timed:
    """By trainer: seconds of an update in each repeat, the share of one in which the GPU was busy, and what failed."""

    footprint: Footprint
    seconds: dict[str, list[float]] = field(default_factory=dict)
    busy: dict[str, float] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)


def measured(plan: SpeedPlan, asked: Asked, log: Callable[[str], None], write: Callable[[Timed], None]) -> Timed:
    """Times each trainer and the floor in turns; the first update of each is not counted. write: after each repeat.

    A path ends at its queried state, so our updates differ in their forwards: their seconds are those of the expected
    number of them. A trainer that fails is left out from then on, and the others go on.
    """
    found = Timed(Footprint(plan.device))
    timers: dict[str, Callable[[], float]] = {}

    def add(name: str, build: Callable[[], Callable[[], float]]) -> None:
        try:
            timers[name] = found.footprint.built(name, build)
        except InputError:
            raise
        except Exception as error:
            _failed(found, name, error, log)

    def added(name: str, steps: int, compiled: bool = False) -> TrainingSession:
        session = found.footprint.built(name, lambda: ours(plan, steps, compiled))
        timers[name] = lambda: _ours(session, steps, asked.updates, plan)
        return session

    if asked.checkout is not None:
        checkout = asked.checkout
        add("official", lambda: _official(official(plan, checkout), asked.updates, plan))
    exact, _ = added("ours", plan.rollout_steps), added("fast", FAST_STEPS)
    if asked.compiled:
        log("compiling")
        for name, steps in (("compiled", plan.rollout_steps), ("compiled fast", FAST_STEPS)):
            try:
                added(name, steps, compiled=True)
            except InputError:
                raise
            except Exception as error:
                _failed(found, name, error, log)
    forward, both = bare_calls(exact.backbone, exact.trainer)
    count = 8 if plan.device == "cpu" else 4

    def floor(steps: int) -> float:
        bare, graded = (repeated(call, count, plan.device) for call in (forward, both))
        return plan.accumulate * ((expected_rollout(steps) + 1) * bare + graded)

    timers |= {"floor": lambda: floor(plan.rollout_steps), "fast floor": lambda: floor(FAST_STEPS)}
    found.seconds.update({name: [] for name in timers})
    for repeat in range(asked.repeats + 1):
        for name, timer in list(timers.items()):
            try:
                value = found.footprint.timed(name, timer, first=repeat == 0)
            except Exception as error:
                del timers[name], found.seconds[name]
                _failed(found, name, error, log)
                continue
            if repeat:
                found.seconds[name].append(value)
        log(f"repeat {repeat} of {asked.repeats}" if repeat else "warmed up")
        if repeat:
            write(found)
    if asked.profile and plan.device != "cpu":
        for name in timers.keys() - {"floor", "fast floor"}:
            try:
                if share := busy_share(timers[name]):
                    found.busy[name] = round(share, 4)
            except Exception as error:
                _failed(found, f"profile of {name}", error, log)
    return found


def _failed(found: Timed, name: str, error: Exception, log: Callable[[str], None]) -> None:
    found.faults[name] = shown("".join(traceback.format_exception(error)), 4000)
    log(f"{name} failed and is left out: {type(error).__name__}: {error}")


def _official(update: Callable[[], None], updates: int, plan: SpeedPlan) -> Callable[[], float]:
    return lambda: repeated(update, updates, plan.device)


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


def markdown(found: Timed, table: dict[str, Spread]) -> str:
    lines = ["| seconds of an update | |", "|---|---|"]
    lines += [f"| {name} | {spread(each)} |" for name, each in found.seconds.items() if each]
    lines += ["", "| ratio | |", "|---|---|", *(f"| {what} | {value} |" for what, value in table.items())]
    if found.footprint.peaks:
        lines += ["", "| most memory of an update, GiB | |", "|---|---|"]
        lines += [f"| {name} | {size / GIB:.2f} |" for name, size in found.footprint.peaks.items()]
    if found.busy:
        lines += ["", "| share of an update in which the GPU is busy | |", "|---|---|"]
        lines += [f"| {name} | {share:.2f} |" for name, share in found.busy.items()]
    lines += [f"\n{name} failed; speed.json has the traceback" for name in found.faults]
    return "\n".join(lines) + "\n"


def _told(device: str) -> dict[str, str | None]:
    if not device.startswith("cuda"):
        return {"device": device, "torch": torch.__version__}
    return {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "cuda": torch.version.cuda}


def _or_none(value: float) -> float | None:
    """JSON has no NaN, which half an interval of one repeat is."""
    return value if math.isfinite(value) else None
