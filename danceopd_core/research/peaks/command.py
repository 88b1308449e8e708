"""`danceopd bench peaks`: updates at the size of released models on a GPU, beside what `danceopd memory` computes."""

from __future__ import annotations

import json
import time
import traceback
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from ...algorithm.relief import empty_caches
from ...errors import InputError, shown
from ...files import write_text
from ...runs.budget.ladder import LADDER_KINDS, loads
from ...runs.budget.memory import GIB
from ...runs.budget.released import RELEASED, released_pass
from ...runs.budget.walk_inputs import Pass
from ...runs.plans.opening import pick_device
from .cases import CASES, LIMITED, QUICK, QUICK_LIMITED, SMALL, PeakCase
from .computed import Computing
from .networks import filled_network
from .report import markdown, record, with_computed
from .update import measured


def run_peaks(args: Namespace, log: Callable[[str], None]) -> None:
    """Writes peaks.json, peaks.md and the tracebacks of what failed in --out, after every case."""
    cases = chosen(args.quick, args.limits, args.only)
    device = pick_device(args.device)
    if device.type != "cuda":
        raise InputError(
            f"bench peaks measures the memory of an NVIDIA GPU, and the device is {device}: run it on a machine with "
            "one, or take what `danceopd memory --like` computes"
        )
    device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
    name = torch.cuda.get_device_name(device)
    card = {
        "device": name,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "total": round(torch.cuda.get_device_properties(device).total_memory / GIB, 2),
    }
    computing = Computing(cases, [kind for kind in LADDER_KINDS if loads(kind, device)])
    rows: dict[PeakCase, dict[str, Any]] = {}

    def write() -> list[dict[str, Any]]:
        known = [_beside(case, row, computing) for case, row in rows.items()]
        write_text(args.out / "peaks.json", json.dumps({**card, "cases": known}, indent=1) + "\n")
        write_text(args.out / "peaks.md", markdown(name, known))
        return known

    begin = time.monotonic()
    try:
        for case, row in measurements(cases, device, computing, args.out / "peaks.log", begin + args.within):
            rows[case] = row
            write()
            log(f"{time.monotonic() - begin:.0f} s, {json.dumps(row)}")
        for case in cases:
            _wait_for(case, computing)
        write()
    finally:
        computing.close()
    print(markdown(name, write()))
    log(f"wrote {args.out / 'peaks.json'} and peaks.md")


def chosen(quick: bool, limits: bool, only: str) -> list[PeakCase]:
    """The cases of these options; InputError for a model that has none."""
    wanted, limited = (QUICK, QUICK_LIMITED) if quick else (CASES, LIMITED)
    # Limited cards after the small models: the large ones are what --within may leave out.
    small = [case for case in wanted if case.model in SMALL]
    cases = [*small, *(limited if limits else ()), *(case for case in wanted if case.model not in SMALL)]
    names = {name.strip() for name in only.split(",") if name.strip()}
    if unknown := names - {case.model for case in cases}:
        there = ", ".join(dict.fromkeys(case.model for case in cases))
        raise InputError(f"--only {', '.join(sorted(unknown))}: there are cases of {there}")
    return [case for case in cases if not names or case.model in names]


def measurements(
    cases: Sequence[PeakCase], device: torch.device, computing: Computing, faults: Path, until: float
) -> Iterator[tuple[PeakCase, dict[str, Any]]]:
    """A record for each case; what fails in one is in its record, with the traceback in `faults`.

    until: of the monotonic clock, after which no case begins.
    """
    # A limited card is a network of its own, of the base that is chosen for it.
    for _, group in groupby(cases, lambda case: (case.model, case.base, case if case.free else None)):
        alike, network, of = list(group), cast(nn.Module | None, None), cast(Pass | None, None)
        with _no_more_than(alike[0].free, device):
            for case in alike:
                if time.monotonic() > until:
                    yield case, record(case, None, "left out, as --within was over")
                    continue
                row = None
                try:
                    # A card with less memory gets what `memory: auto` chooses for it.
                    case_made = case if case.free is None else computing.of(case).case
                    if network is None:
                        network = filled_network(RELEASED[case.model], device, case_made.base)
                    of = released_pass(case.model, network, case.edit)
                    row = record(case, measured(of, case.rank, device, case_made.checkpointing, case.full))
                except torch.OutOfMemoryError as error:
                    row = record(case, None, shown(f"out of memory: {str(error).split('. ')[0]}", 300))
                    _keep(faults, case)
                except Exception as error:
                    row = record(case, None, shown(f"{type(error).__name__}: {' '.join(str(error).split())}", 300))
                    _keep(faults, case)
                # Out of the handlers, where the error's frames would hold the tensors of the update.
                empty_caches()
                yield case, row
        network = of = None
        empty_caches()


@contextmanager
def _no_more_than(free: float | None, device: torch.device) -> Iterator[None]:
    """As on a card with so many GiB free, for this process."""
    if free is None:
        yield
        return
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, free * GIB / total), device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


def _beside(case: PeakCase, row: dict[str, Any], computing: Computing) -> dict[str, Any]:
    if not computing.done(case):
        return row
    try:
        found = computing.of(case)
    except Exception as error:
        return {**row, "computing": shown(str(error), 200)}
    made = {"base": found.case.base, "checkpointing": found.case.checkpointing}
    return with_computed({**row, **made}, found.peak, found.choice)


def _wait_for(case: PeakCase, computing: Computing) -> None:
    try:
        computing.of(case)
    except Exception:
        return  # it is in the record


def _keep(faults: Path, case: PeakCase) -> None:
    faults.parent.mkdir(parents=True, exist_ok=True)
    with faults.open("a", encoding="utf-8") as file:
        file.write(f"{case}\n{traceback.format_exc()}\n")
