"""Kills a training at random moments and resumes it: the student is that of the run that nobody killed, bit for bit."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from ...runs.run_lock import HOLDER
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
EARLY = 0.2
"""Share of the kills that come while a process starts; the others come from the moment at which it has its run."""
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
    began, whole = time.monotonic(), folder / "whole"
    process = _train(recipe, whole, False)
    _await_run(process, whole)
    start = time.monotonic() - began
    if (status := process.wait(PATIENCE)) != 0:
        raise RuntimeError(f"the run that nobody kills ended with {status}: see {_said(whole)}")
    training = time.monotonic() - began - start
    while counts["kills"] < count:
        counts["runs"] += 1
        run = folder / f"killed-{counts['runs']:03d}"
        fine = True
        for _ in range(min(MOST_KILLS, count - counts["kills"])):
            process = _train(recipe, run, run.exists())
            chosen = getattr(signal, draw.choice(signals))
            early, moment = draw.random() < EARLY, draw.random()
            if not early:
                _await_run(process, run)
            try:
                process.wait(moment * (start if early else training))
                break  # it was done before
            except subprocess.TimeoutExpired:
                process.send_signal(chosen)
            status = process.wait(PATIENCE)
            counts["kills"] += 1
            counts["in the training" if _updates(run) else "before the first update"] += 1
            fine &= status in (0, -chosen, 128 + chosen)
            log(f"{chosen.name} after {_updates(run)} updates: status {status}")
        fine &= _train(recipe, run, run.exists()).wait(PATIENCE) == 0
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


def _await_run(process: subprocess.Popen[bytes], run: Path) -> None:
    """Waits until the process holds the run's folder, or has ended."""
    holder = f'"process": {process.pid},'
    while process.poll() is None:
        try:
            if holder in (run / HOLDER).read_text(encoding="utf-8"):
                return
        except OSError:
            pass
        time.sleep(0.01)


def _updates(run: Path) -> int:
    file = run / "history.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def _said(run: Path) -> Path:
    return run.with_name(f"{run.name}.log")


def _train(recipe: Path, run: Path, resume: bool) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "danceopd_core", "train", str(recipe), f"out={run}", *["--resume"] * resume]
    root = str(Path(__file__).parents[3])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    with _said(run).open("ab") as log:
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
