"""The one loop of every bench: train a cell, score its student at its milestones, keep the result; go on."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ...algorithm.fields import guided
from ...algorithm.trainer import Diverged
from ...errors import InputError
from ...files import write_text
from ...shapes import locate
from ...shapes.language import T2I
from ...shapes.score import scored
from .cells import SETTINGS, BenchPlan, Trial
from .schedule import FORWARDS, UPDATES, milestones, planned_seconds
from .stage import BenchContext, OpenedTrial
from .workers import workers

Tell = Callable[[str], None]
Result = dict[str, Any]
"""What a cell's file holds: `cell` (what was asked, as text), setting, row, data, seed, the update at which it
diverged (or None), and points: update, forwards, seconds, beta, inference (forwards of a picture), marks
(schedule.UPDATES, FORWARDS; empty: of the curve only), scores by category (and "lit")."""


def run_cells(
    cells: Sequence[Trial], plan: BenchPlan, out: Path, device: torch.device, tell: Tell, jobs: int = 1
) -> list[Result]:
    """The results of all cells, in order; those that have a file in `out` are not run again. jobs: cells at a time.

    InputError if a file there is of another plan, or of another cell of that name, or if a teacher is not here.
    """
    for setting in {cell.setting for cell in cells}:
        _weights(setting)
    out.mkdir(parents=True, exist_ok=True)
    done = len(finished(cells, plan, out))
    waiting = [cell for cell in cells if not (out / cell.file).exists()]
    if waiting:
        jobs = min(jobs, len(waiting))
        with workers(plan, device, jobs) as (stage, run):
            pace = stage.pace()
            minutes = sum(planned_seconds(cell, plan, stage.sigmas, pace) for cell in waiting) / 60 / jobs
            planned = f"{minutes / 60:.1f} hours" if minutes > 90 else f"{minutes:.0f} minutes"
            tell(f"{len(cells)} cells, {done} of them finished; about {planned} for the rest")
            for number, (cell, result, seconds) in enumerate(run(run_cell, waiting), 1):
                write_text(out / cell.file, json.dumps(result) + "\n")
                tell(f"{number}/{len(waiting)}: {cell.file}, {seconds:.0f} s")
    return finished(cells, plan, out)


def finished(cells: Sequence[Trial], plan: BenchPlan, out: Path) -> list[Result]:
    """The results that are there, in order; InputError as of `run_cells`."""
    return [_read(cell, plan, out) for cell in cells if (out / cell.file).exists()]


def run_cell(cell: Trial, stage: BenchContext) -> Result:
    """Trains the cell's student and scores it, or scores the field of a cell that trains none."""
    began = time.perf_counter()
    opened = stage.open(cell)
    seconds, points, diverged = time.perf_counter() - began, [], None
    if opened.trainer is None:
        at = {"update": 0, "forwards": 0, "seconds": 0.0, "marks": (UPDATES, FORWARDS)[: 1 + cell.budget]}
        points = _look(cell, stage, opened, at)
    else:
        updates, ends = iter(opened.trainer), milestones(cell, stage.plan, stage.sigmas)
        for update, marks in ends.items():
            while diverged is None and opened.trainer.update < update:
                try:
                    seconds += next(updates).seconds["total"]
                except Diverged:
                    diverged = opened.trainer.update + 1
            at = {"update": update, "forwards": opened.tally.count, "seconds": round(seconds, 2), "marks": marks}
            points += _look(cell, stage, opened, at, update == max(ends))
    return {
        "cell": _told(cell, stage.plan),
        "setting": cell.setting,
        "row": cell.row,
        "data": cell.approach.data if cell.approach.trains else "",
        "seed": cell.seed,
        "diverged": diverged,
        "points": points,
    }


def _look(
    cell: Trial, stage: BenchContext, opened: OpenedTrial, at: dict[str, Any], last: bool = True
) -> list[dict[str, Any]]:
    """The point at the cell's first inference guidance; of the last student of a run, points at all of them."""
    exam = stage.exam(cell, brief=not at["marks"])
    points = []
    for beta in cell.approach.betas[: None if last else 1]:
        field = guided(opened.fields[cell.approach.field], beta)
        with opened.averaged():
            before = opened.tally.count
            shots = list(exam.shots(stage.backbone, field, device=stage.device))
            spent, opened.tally.count = opened.tally.count - before, before
        scores = scored(exam, shots)
        if style := SETTINGS[cell.setting].style:
            lit = scored(exam, shots, style)
            scores["lit"] = [score for category in T2I for score in lit.get(category, [])]
        rounded = {name: [round(score, 4) for score in found] for name, found in scores.items()}
        points.append({**at, "beta": beta, "inference": spent / len(shots), "scores": rounded})
    return points


def _told(cell: Trial, plan: BenchPlan) -> str:
    return f"{cell} under {plan} with weights {_weights(cell.setting):08x}"


@cache
def _weights(setting: str) -> int:
    """A checksum of all weights that a setting uses; InputError for those that are not there."""
    found = SETTINGS[setting]
    names = {name for teacher in found.teachers.values() for name in (teacher.lora, teacher.checkpoint) if name}
    folders = [locate("shapes") / "transformer", *map(locate, sorted(names))]
    total = 0
    for folder in folders:
        for file in sorted(folder.glob("*.safetensors")) if folder.is_dir() else [folder]:
            total = zlib.crc32(file.read_bytes(), total)
    return total


def _read(cell: Trial, plan: BenchPlan, out: Path) -> Result:
    file = out / cell.file
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
        told = result["cell"]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{file} is no result of a bench ({error!r}): remove it, or choose another --out") from error
    if told != _told(cell, plan):
        raise InputError(
            f"{file} is the result of another bench, {told}; this one is {_told(cell, plan)}: "
            "give the same options, or choose another --out"
        )
    return result
