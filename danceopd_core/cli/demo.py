"""`danceopd demo`: a student that edits but generates worse for it learns to generate and keeps editing.

The student starts as the LoRA of the teacher `edit`. Prompts are routed to the guided base, whose guidance the
student absorbs, and edits to the teacher `edit`. Every state at which a teacher is queried is one of the student's own.
"""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .console import log, say

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from ..recipe.schema import Recipe
    from ..shapes.score import HeldOutSet

STEPS = 200
HELD_OUT = {"t2i": 48, "edit": 16}
"""Held-out items per category, by kind: more of the kind that changes more and costs less."""
SHOWN_CAPTIONS = ("colour", "count", "position", "colour_attribute")
"""Categories of captions with a row in samples.png; every category of edits has one."""


def add_arguments(subparsers: Any) -> None:
    parser = subparsers.add_parser("demo", help="the whole method in minutes on a CPU, in the embedded world")
    parser.add_argument("--out", type=Path, default=Path("danceopd-demo"), help="folder for the results")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="updates, instead of the demo's default")


def run(args: Namespace) -> None:
    """Leaves student.safetensors, samples.png, loss.png and report.json in --out."""
    from ..files import write_text
    from ..recipe.io import checked
    from ..runs.live.plots import loss_plot
    from ..runs.training.loop import train_loop
    from ..runs.training.run_dir import RunFolder
    from ..runs.training.session import open_session
    from ..shapes import GUIDANCE
    from ..shapes.language import KINDS
    from ..shapes.score import HeldOutSet, ScoreTable, score_markdown, score_table
    from ..signals import raised
    from ..weights.adapters import STUDENT
    from .progress import ProgressBar

    began, out = time.perf_counter(), args.out
    recipe = checked(demo_recipe(out, args.seed, args.steps or STEPS))
    if (out / "recipe.yaml").exists():
        raise InputError(f"{out} already holds a run: give another folder with --out")
    folder = RunFolder(out)
    folder.claim(recipe, resume=False)
    session = open_session(recipe, log=log)
    held_out_set = HeldOutSet.of(session.backbone, {KINDS[kind]: count for kind, count in HELD_OUT.items()}, seed=7)
    tables: dict[str, ScoreTable] = {}
    images: dict[str, list[np.ndarray]] = {}

    def score(name: str, field: str) -> None:
        log(f"scoring {name} on {len(held_out_set.items)} held-out captions and edits")
        images[name] = list(held_out_set.generate(session.backbone, session.fields[field]))
        tables[name] = score_table(held_out_set, images[name])

    score("base", "base")
    score("teacher_edit", "edit")
    # The student starts as this teacher's LoRA, so its first pictures are the teacher's.
    images["student_before"], tables["student_before"] = images["teacher_edit"], tables["teacher_edit"]
    with raised(), folder.lock():
        folder.begin(session, resume=False)
        log(f"training {recipe.steps} updates of {recipe.batch} samples")
        with ProgressBar(session, folder) as bar:
            train_loop(session, folder, bar)
    score("student_after", STUDENT)
    _sheet(held_out_set, images).save(out / "samples.png")
    loss_plot(folder.history(), out / "loss.png", "Distance of the student to its teachers, on its own paths")
    report = {
        "seed": args.seed,
        "steps": recipe.steps,
        "seconds": round(time.perf_counter() - began, 1),
        "peak_rss_mb": round(peak_rss_mb()),
        "scores": _by_category(tables, lambda score: round(score.mean, 4)),
        "intervals": _by_category(tables, lambda score: [round(score.low, 4), round(score.high, 4)]),
        "items_per_category": {category: count for kind, count in HELD_OUT.items() for category in KINDS[kind]},
        "guidance_of_base": GUIDANCE,
    }
    write_text(out / "report.json", json.dumps(report, indent=1) + "\n")
    say(score_markdown({name: {kind: table[kind] for kind in HELD_OUT} for name, table in tables.items()}))
    log(f"{report['seconds']:.0f} s, {report['peak_rss_mb']} MB; look at {out / 'samples.png'}")


def demo_recipe(out: Path, seed: int, steps: int) -> Recipe:
    """The demo's run, as it could be written in a recipe file."""
    from ..recipe.schema import Bucket, Optimizer, Query, Recipe, Route, Student, Teacher
    from ..shapes import GUIDANCE

    return Recipe(
        model="shapes",
        teachers={"base": Teacher(guidance=GUIDANCE), "edit": Teacher(lora="shapes:edit")},
        routes=(
            Route("text-to-image", "base", Bucket(shapes="t2i", count=480), weight=4.0),
            Route("edit", "edit", Bucket(shapes="edit", count=240), weight=1.0),
        ),
        student=Student(start="shapes:edit"),
        optimizer=Optimizer(lr=5e-4, schedule="cosine", warmup=5),
        # Queries in the middle of the path do as well here as at its end, and need a shorter rollout.
        query=Query(bias="mid"),
        steps=steps,
        batch=16,
        accumulate=1,
        rollout_steps=4,  # of the student's paths in training; pictures are scored at 8
        width=64,
        height=64,
        seed=seed,
        save_every=steps,
        dtype="float32",
        device="cpu",
        out=str(out),
    )


def _by_category(tables: dict[str, Any], value: Callable[[Any], object]) -> dict[str, dict[str, object]]:
    return {name: {category: value(score) for category, score in table.items()} for name, table in tables.items()}


def _sheet(held_out_set: HeldOutSet, images: dict[str, list[np.ndarray]]) -> Image.Image:
    """Of each category the first item that one teacher does better than the other, whatever the student does."""
    from ..runs.live.plots import SheetRow, contact_sheet
    from ..shapes.language import EDIT, Edit
    from ..shapes.render import render
    from ..shapes.score import item_scores

    base, edit = item_scores(held_out_set, images["base"]), item_scores(held_out_set, images["teacher_edit"])
    rows = []
    for category in (*SHOWN_CAPTIONS, *EDIT):
        numbers = [number for number, item in enumerate(held_out_set.items) if item.category == category]
        gaps = [abs(one - other) for one, other in zip(base[category], edit[category], strict=True)]
        number = numbers[next((place for place, gap in enumerate(gaps) if gap > 0.5), 0)]
        item = held_out_set.items[number]
        source = render(item.source, held_out_set.size) if isinstance(item, Edit) else None
        rows.append(SheetRow(item.text, [source, *(images[name][number] for name in images)]))
    return contact_sheet(("source", "base", "edit teacher", "student before", "student after"), rows)


def peak_rss_mb() -> float:
    """The peak resident memory of this process, in MB of 10^6 bytes."""
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / 1e6
    # On Linux getrusage inherits the peak of the process that started this one; VmHWM does not.
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
