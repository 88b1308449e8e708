"""Runs trials: trains each student, scores it at its milestones, and writes one result file per trial."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from ...algorithm.fields import guided
from ...algorithm.trainer import Diverged
from ...shapes.language import T2I
from ...shapes.score import item_scores
from .context import BenchContext, OpenedTrial
from .identity import weights_checksum
from .results import ScoredPoint, TrialResult, finished_results, write_result
from .schedule import compared, milestones, planned_seconds
from .trials import TASKS, BenchPlan, Trial
from .workers import workers

Log = Callable[[str], None]


def run_trials(
    trials: Sequence[Trial], plan: BenchPlan, out: Path, device: torch.device, log: Log, jobs: int = 1
) -> list[TrialResult]:
    """The results of all trials, in order; a trial with a file in `out` is not run again. jobs: trials at a time.

    InputError if a teacher is missing, or if a file in `out` belongs to another plan or trial.
    """
    for task in {trial.task for trial in trials}:
        weights_checksum(task)
    out.mkdir(parents=True, exist_ok=True)
    finished = len(finished_results(trials, plan, out))
    remaining = [trial for trial in trials if not (out / trial.file_name).exists()]
    if remaining:
        jobs = min(jobs, len(remaining))
        with workers(plan, device, jobs) as (context, run):
            speed = context.seconds_per_forward()
            minutes = sum(planned_seconds(trial, plan, context.sigmas, speed) for trial in remaining) / 60 / jobs
            estimate = f"{minutes / 60:.1f} hours" if minutes > 90 else f"{minutes:.0f} minutes"
            log(f"{len(trials)} trials, {finished} of them finished; estimated time for the rest: {estimate}")
            for number, (trial, result, seconds) in enumerate(run(run_trial, remaining), 1):
                write_result(trial, plan, out, result)
                log(f"{number}/{len(remaining)}: {trial.file_name}, {seconds:.0f} s")
    return finished_results(trials, plan, out)


def run_trial(trial: Trial, context: BenchContext) -> TrialResult:
    """Trains the trial's student and scores it; without training, scores the trial's field."""
    began = time.perf_counter()
    opened = context.open(trial)
    seconds, diverged = time.perf_counter() - began, None
    points: list[ScoredPoint] = []
    if opened.trainer is None:
        points = score_point(trial, context, opened, 0, 0.0, compared(trial))
    else:
        updates, stops = iter(opened.trainer), milestones(trial, context.plan, context.sigmas)
        for update, comparisons in stops.items():
            while diverged is None and opened.trainer.update < update:
                try:
                    seconds += next(updates).seconds["total"]
                except Diverged:
                    diverged = opened.trainer.update + 1
            last = update == max(stops)
            points += score_point(trial, context, opened, update, round(seconds, 2), comparisons, last)
    regime = trial.config.regime if trial.config.trains else ""
    return TrialResult(trial.task, trial.row, regime, trial.seed, diverged, tuple(points))


def score_point(
    trial: Trial,
    context: BenchContext,
    opened: OpenedTrial,
    update: int,
    seconds: float,
    comparisons: tuple[str, ...],
    last: bool = True,
) -> list[ScoredPoint]:
    """The field's scores at the trial's first inference guidance; at the last update, one point for each of them.

    Forwards of scoring are not counted as training.
    """
    held_out_set = context.held_out_set(trial, curve_only=not comparisons)
    points = []
    for beta in trial.config.betas[: None if last else 1]:
        field = guided(opened.fields[trial.config.field], beta)
        with opened.averaged():
            trained = opened.counter.count
            images = list(held_out_set.generate(context.backbone, field, device=context.device))
            sampling, opened.counter.count = opened.counter.count - trained, trained
        scores = item_scores(held_out_set, images)
        if style := TASKS[trial.task].style:
            style_scores = item_scores(held_out_set, images, style)
            scores["lit"] = [score for category in T2I for score in style_scores.get(category, [])]
        rounded = {name: [round(score, 4) for score in of_name] for name, of_name in scores.items()}
        points.append(ScoredPoint(update, trained, seconds, comparisons, beta, sampling / len(images), rounded))
    return points
