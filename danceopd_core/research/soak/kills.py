"""Kills a training at random moments and resumes it: the student is that of the run that nobody killed, bit for bit."""

from __future__ import annotations

import json
import os
import random
import runpy
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

from ...runs.files.run_lock import HOLDER
from ...weights.safetensors_io import open_safetensors

RECIPE = """\
model: shapes
teachers: {base: {guidance: 2}, edit: {lora: 'shapes:edit'}}
routes:
  - {name: draw, teacher: base, bucket: {prompts: [a red circle, a blue square, a green star]}}
  - {name: edit, teacher: edit, bucket: {shapes: edit, count: 4}}
student: {rank: 4}
optimizer: {lr: 1e-3, ema: 0.9}
router: round_robin
steps: 12
batch: 1
accumulate: 1
rollout_steps: 2
width: 64
height: 64
save_every: 1
dtype: float32
device: cpu
"""
"""Two routes, a moving average and many saves: a run in which every kind of counter moves."""
KILLED = ("SIGKILL",)
MOST_KILLS = 6
"""Of one run, which is then left to end."""
EARLY = 0.25
"""Share of the kills that come before a process has made an update; the others come after it."""
LIBRARIES = (
    "danceopd_core.cli.train", "danceopd_core.runs.training.session", "danceopd_core.runs.training.loop",
    "diffusers.pipelines.z_image",
    "diffusers.models.transformers.transformer_z_image", "diffusers.optimization", "transformers.models.qwen3",
)  # fmt: skip
"""Imported once, by the process from which the runs are forked: an import takes longer than the run."""
PATIENCE = 600.0
"""Seconds that one process of a run may take."""


def kills(
    count: int,
    seed: int,
    folder: Path,
    signals: tuple[str, ...] = KILLED,
    log: Callable[[str], None] = lambda text: None,
) -> dict[str, int]:
    """Sends `count` signals to trainings at random moments, and resumes each run until it has ended.

    folder: for the runs; those that differ, and what their processes said, stay there. signals: names, one of which is
    drawn each time. Returns counts: "kills"; of them "before the first update" and "in the training"; "runs";
    "differ", runs whose student, history or states are not those of the run that nobody killed; "failed", processes
    that ended otherwise than they were told to.
    """
    draw, counts = random.Random(seed), Counter[str]()
    folder.mkdir(parents=True, exist_ok=True)
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE, encoding="utf-8")
    whole = folder / "whole"
    process = _train(recipe, whole, False)
    _await(process, lambda: HOLDER in _names(whole))
    held = time.monotonic()
    _await(process, lambda: bool(_updates(whole)))
    begun = time.monotonic()
    if (status := _ended(process)) != 0:
        raise RuntimeError(f"the run that nobody kills ended with {status}: see {_said(whole)}")
    updating, opening, steps = time.monotonic() - begun, begun - held, _updates(whole)
    while counts["kills"] < count:
        counts["runs"] += 1
        run = folder / f"killed-{counts['runs']:03d}"
        fine = True
        for _ in range(min(MOST_KILLS, count - counts["kills"])):
            process = _train(recipe, run, run.exists())
            chosen = getattr(signal, draw.choice(signals))
            early, moment, before = draw.random() < EARLY, draw.random(), _stamp(run)
            _await(process, lambda: HOLDER in _names(run) if early else _stamp(run) != before)  # noqa: B023
            process.join(moment * (opening if early else updating))
            if process.exitcode is not None:
                fine &= process.exitcode == 0
                break  # it was done before
            os.kill(process.pid or 0, chosen)
            status = _ended(process)
            counts["kills"] += 1
            counts["in the training" if _updates(run) else "before the first update"] += 1
            fine &= status in (0, -chosen, 128 + chosen)
            log(f"{chosen.name} after {_updates(run)} updates: status {status}")
            if _updates(run) >= steps:
                break
        fine &= _ended(_train(recipe, run, run.exists())) == 0
        same = fine and equal_runs(whole, run)
        counts["failed"] += not fine
        counts["differ"] += not same
        if same:
            shutil.rmtree(run)
            _said(run).unlink()
    names = ("kills", "before the first update", "in the training", "runs", "differ", "failed")
    return {name: counts[name] for name in names}


def equal_runs(one: Path, other: Path) -> bool:
    """Whether two runs have the same students, states and histories, but for times."""
    files = ["student.safetensors", *(f"checkpoints/{file.name}" for file in (one / "checkpoints").iterdir())]
    files += [path.name for path in one.glob("state*.safetensors")]
    left = [path for path in other.rglob("*") if path.name.endswith(".part") or path.name.startswith(".tmp")]
    return not left and _history(one) == _history(other) and all(_same(one / file, other / file) for file in files)


def _same(one: Path, other: Path) -> bool:
    import torch

    if not other.exists():
        return False
    with open_safetensors(one) as a, open_safetensors(other) as b:
        same = list(a.keys()) == list(b.keys())
        return same and all(torch.equal(a.get_tensor(key), b.get_tensor(key)) for key in list(a.keys()))


def _history(run: Path) -> list[dict[str, object]]:
    lines = (run / "history.jsonl").read_text(encoding="utf-8").splitlines()
    return [{**json.loads(line), "seconds": None} for line in lines]


def _await(process: BaseProcess, condition: Callable[[], bool]) -> None:
    """Waits until the condition holds, or the process has ended."""
    while process.exitcode is None and not condition():
        time.sleep(0.005)


def _ended(process: BaseProcess) -> int:
    """The status of a process, once it has ended."""
    process.join(PATIENCE)
    if process.exitcode is None:
        process.kill()
        process.join()
        return -1
    return process.exitcode


def _names(run: Path) -> list[str]:
    return os.listdir(run) if run.exists() else []


def _stamp(run: Path) -> tuple[int, int]:
    """Changes when the history does."""
    file = run / "history.jsonl"
    return (file.stat().st_size, file.stat().st_mtime_ns) if file.exists() else (0, 0)


def _updates(run: Path) -> int:
    file = run / "history.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def _said(run: Path) -> Path:
    return run.with_name(f"{run.name}.log")


def _train(recipe: Path, run: Path, resume: bool) -> BaseProcess:
    context = get_context("forkserver")
    context.set_forkserver_preload(list(LIBRARIES))
    words = ["train", str(recipe), f"out={run}", *["--resume"] * resume]
    process = context.Process(target=_command, args=(words, str(_said(run))))
    process.start()
    return process


def _command(words: list[str], log: str) -> None:
    """The command line, in this process."""
    from torch import set_num_threads

    set_num_threads(1)
    with open(log, "ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    sys.argv = ["danceopd", *words]
    runpy.run_module("danceopd_core", run_name="__main__")
