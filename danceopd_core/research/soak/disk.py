"""The part `disk` of the soak: trainings whose disk fails, and the same trainings gone on with afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

from .outcomes import DIFFERENT, FREEZE, OK, REFUSED, TRACEBACK, Counts

ROOT = Path(__file__).parents[3]
RECIPE = """\
model: shapes
teachers: {{base: {{guidance: 2}}}}
routes: [{{name: draw, teacher: base, bucket: {{shapes: t2i, count: 6}}}}]
student: {{rank: 4}}
optimizer: {{lr: 1e-3}}
steps: {steps}
batch: 1
accumulate: 1
rollout_steps: 3
save_every: 2
width: 64
height: 64
dtype: float32
device: cpu
out: {out}
"""
LIMITED = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0})); "
STARTED = "from danceopd_core.cli import main; sys.exit(main(sys.argv[1:]))"
STEPS = 6


class Ended(NamedTuple):
    """How a command ended; status is None if it took too long."""

    status: int | None
    error: str


def soak_disk(counts: Counts, seed: int, each: int, freeze: float, folder: Path, log: Callable[[str], None]) -> None:
    """Adds the outcomes of `each` trainings under each fault. freeze: seconds that a training may take."""
    whole = folder / "whole"
    ended = command(_written(whole, STEPS), "import sys; ", freeze)
    if ended.status:
        counts.add("disk: none", TRACEBACK, ended.error)
        return
    for number in range(each):
        for kind, fault in FAULTS.items():
            rng, run = Random(f"{kind} {seed} {number}"), folder / f"{kind.replace(' ', '-')}-{number}"
            outcome, told = _under(fault, run, rng, whole, freeze)
            counts.add(f"disk: {kind}", outcome, f"--seed {seed}, number {number}\n{told}")
            log(f"disk: {kind} {number}: {outcome}")


def command(arguments: list[str], before: str, seconds: float, meanwhile: Callable[[], None] | None = None) -> Ended:
    """Runs `danceopd` in a process of its own. before: Python to run first. meanwhile: is called while it runs."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", before + STARTED, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        if meanwhile is not None:
            meanwhile()
        try:
            _, error = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return Ended(None, "")
    return Ended(process.returncode, error)


def _written(out: Path, steps: int) -> list[str]:
    out.parent.mkdir(parents=True, exist_ok=True)
    recipe = out.with_suffix(".yaml")
    recipe.write_text(RECIPE.format(steps=steps, out=out), encoding="utf-8")
    return ["train", str(recipe)]


def _under(fault: Fault, run: Path, rng: Random, whole: Path, freeze: float) -> tuple[str, str]:
    arguments = _written(run, STEPS)
    ended = fault(run, arguments, rng, freeze)
    if ended.status is None:
        return FREEZE, f"more than {freeze:g} s"
    if "Traceback (most recent call last)" in ended.error or ended.status < 0:
        return TRACEBACK, f"status {ended.status}\n{ended.error[-2000:]}"
    if run.is_file():  # what the fault put there is taken away
        run.unlink()
    elif not (run / "recipe.yaml").exists():  # what was saved after the folder was removed is no run
        shutil.rmtree(run, ignore_errors=True)
    again = command(arguments + ["--resume"] * (run / "recipe.yaml").exists(), "import sys; ", freeze)
    if again.status is None:
        return FREEZE, f"gone on with: more than {freeze:g} s"
    if again.status:
        return TRACEBACK, f"gone on with: status {again.status}\n{again.error[-2000:]}"
    if not same_students(run, whole):
        return DIFFERENT, f"{run} was gone on with and is another run than {whole}"
    shutil.rmtree(run, ignore_errors=True)
    return (REFUSED if ended.status else OK), ""


def same_students(one: Path, other: Path) -> bool:
    """Whether the students of two run folders hold the same bits."""
    from safetensors.torch import load_file

    a, b = (load_file(folder / "student.safetensors") for folder in (one, other))
    return a.keys() == b.keys() and all((a[key] == b[key]).all().item() for key in a)


Fault = Callable[[Path, list[str], Random, float], Ended]


def _small_files(run: Path, arguments: list[str], rng: Random, freeze: float) -> Ended:
    limit = rng.choice((300, 2_000, 50_000, 200_000, 400_000, 600_000))
    return command(arguments, LIMITED.format(limit), freeze)


def _removed(run: Path, arguments: list[str], rng: Random, freeze: float) -> Ended:
    lines, deadline = rng.randint(1, 4), time.monotonic() + freeze

    def remove() -> None:
        history = run / "history.jsonl"
        while time.monotonic() < deadline:
            try:
                if history.read_bytes().count(b"\n") >= lines:
                    break
            except OSError:
                pass
            time.sleep(0.01)
        shutil.rmtree(run, ignore_errors=True)

    return command(arguments, "import sys; ", freeze, remove)


def _file_in_place(run: Path, arguments: list[str], rng: Random, freeze: float) -> Ended:
    run.write_bytes(b"not a folder")
    return command(arguments, "import sys; ", freeze)


def _read_only(run: Path, arguments: list[str], rng: Random, freeze: float) -> Ended:
    run.mkdir()
    run.chmod(0o555)
    ended = command(arguments, "import sys; ", freeze)
    run.chmod(0o755)
    return ended


FAULTS: dict[str, Fault] = {"removed": _removed, "file in place": _file_in_place}
if sys.platform != "win32":
    FAULTS |= {"small files": _small_files}
    if os.geteuid():  # nothing is read-only for root
        FAULTS["read-only"] = _read_only
