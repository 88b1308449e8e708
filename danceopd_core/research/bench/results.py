"""Results of trials as typed records, and the JSON files that keep them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...files import write_text
from .identity import trial_identity
from .trials import BenchPlan, Trial


@dataclass(frozen=True)
class ScoredPoint:
    """A student scored after `update` updates.

    forwards: of the transformer, in samples, during training. seconds: of training. comparisons: schedule.UPDATES or
    FORWARDS where the point enters a table; none if it is a point of the curve only. beta: guidance scale at inference.
    inference_forwards: per image. scores: category -> score per item; "lit": of the task's style.
    """

    update: int
    forwards: int
    seconds: float
    comparisons: tuple[str, ...]
    beta: float
    inference_forwards: float
    scores: dict[str, list[float]]


@dataclass(frozen=True)
class TrialResult:
    """regime: empty if nothing was trained. diverged: the update with a loss that is not finite, or None."""

    task: str
    row: str
    regime: str
    seed: int
    diverged: int | None
    points: tuple[ScoredPoint, ...]


# Attribute -> key in the file, in the file's order. The keys are those of every result written so far.
_POINT_KEYS = {
    "update": "update",
    "forwards": "forwards",
    "seconds": "seconds",
    "comparisons": "marks",
    "beta": "beta",
    "inference_forwards": "inference",
    "scores": "scores",
}
_RESULT_KEYS = {"task": "setting", "row": "row", "regime": "data", "seed": "seed", "diverged": "diverged"}


def as_record(result: TrialResult, identity: str) -> dict[str, Any]:
    """The JSON object of a result file."""
    points = [{key: getattr(point, name) for name, key in _POINT_KEYS.items()} for point in result.points]
    return {"cell": identity, **{key: getattr(result, name) for name, key in _RESULT_KEYS.items()}, "points": points}


def from_record(record: dict[str, Any]) -> TrialResult:
    """The result in the JSON object of a file; KeyError or TypeError if it is not one."""
    points = [{name: point[key] for name, key in _POINT_KEYS.items()} for point in record["points"]]
    scored = [ScoredPoint(**{**point, "comparisons": tuple(point["comparisons"])}) for point in points]
    return TrialResult(**{name: record[key] for name, key in _RESULT_KEYS.items()}, points=tuple(scored))


def write_result(trial: Trial, plan: BenchPlan, folder: Path, result: TrialResult) -> None:
    """Writes the file as a whole or not at all."""
    write_text(folder / trial.file_name, json.dumps(as_record(result, trial_identity(trial, plan))) + "\n")


def read_result(trial: Trial, plan: BenchPlan, folder: Path) -> TrialResult:
    """InputError if the file is not a result, or belongs to another trial, plan or weights."""
    file = folder / trial.file_name
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        identity, result = record["cell"], from_record(record)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{file} is not a bench result ({error!r}): remove it, or choose another --out") from error
    if identity != trial_identity(trial, plan):
        raise InputError(
            f"{file} is the result of another trial, {identity}; this one is {trial_identity(trial, plan)}: "
            "give the same options, or choose another --out"
        )
    return result


def finished_results(trials: Sequence[Trial], plan: BenchPlan, folder: Path) -> list[TrialResult]:
    """The results that are in the folder, in the order of the trials; errors as of `read_result`."""
    return [read_result(trial, plan, folder) for trial in trials if (folder / trial.file_name).exists()]
