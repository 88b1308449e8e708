"""The whole method in one command: a student that edits, but draws worse for it, learns to draw and keeps editing.

The student starts as the `edit` teacher's LoRA. Prompts are routed to the guided base (whose guidance the student
absorbs), edits to the `edit` teacher; every state that a teacher is asked about is one of the student's own.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..recipe.schema import Bucket, Optimizer, Query, Recipe, Route, Student, Teacher
from ..runs.loop import follow
from ..runs.plots import SheetRow, contact_sheet, loss_plot
from ..runs.run_dir import RunFolder
from ..runs.session import open_session
from ..shapes import GUIDANCE
from ..shapes.language import EDIT, T2I, Edit
from ..shapes.render import render
from ..shapes.score import HeldOutSet, ScoreTable, item_scores, score_markdown, score_table
from ..weights.adapters import STUDENT

STEPS = 200
# Held-out items a category: more of what changes more, and costs less.
ASKED: dict[tuple[str, ...], int] = {T2I: 48, EDIT: 16}
SHOWN = ("colour", "count", "position", "colour_attribute", *EDIT)


def demo_recipe(out: Path, seed: int, steps: int) -> Recipe:
    """The demo's run, as anyone could write it in a recipe file."""
    return Recipe(
        model="shapes",
        teachers={"base": Teacher(guidance=GUIDANCE), "edit": Teacher(lora="shapes:edit")},
        routes=(
            Route("text-to-image", "base", Bucket(shapes="t2i", count=480), weight=4.0),
            Route("edit", "edit", Bucket(shapes="edit", count=240), weight=1.0),
        ),
        student=Student(start="shapes:edit"),
        optimizer=Optimizer(lr=5e-4, schedule="cosine", warmup=5),
        # The middle of a path does here as well as its end, and its rollout is shorter.
        query=Query(bias="mid"),
        steps=steps,
        batch=16,
        accumulate=1,
        rollout_steps=4,  # of the student's own paths; pictures are scored at 8
        width=64,
        height=64,
        seed=seed,
        save_every=steps,
        dtype="float32",
        device="cpu",
        out=str(out),
    )


def run_demo(out: Path, seed: int, steps: int | None, tell: Callable[[str], None]) -> dict:
    """Leaves student.safetensors, samples.png, loss.png and report.json in `out`, and returns the report."""
    began = time.perf_counter()
    recipe = demo_recipe(out, seed, steps or STEPS)
    if (out / "recipe.yaml").exists():
        raise InputError(f"{out} already holds a run: give another folder with --out")
    folder = RunFolder(out)
    folder.claim(recipe, resume=False)
    run = open_session(recipe, tell=tell)
    exam = HeldOutSet.of(run.backbone, ASKED, seed=7)
    tables: dict[str, ScoreTable] = {}
    shots: dict[str, list[np.ndarray]] = {}

    def look(name: str, field: str) -> None:
        tell(f"scoring {name} on {len(exam.items)} held-out captions and edits")
        shots[name] = list(exam.generate(run.backbone, run.fields[field]))
        tables[name] = score_table(exam, shots[name])

    look("base", "base")
    look("teacher_edit", "edit")
    # The student starts as this teacher's LoRA, so its first pictures are the teacher's.
    shots["student_before"], tables["student_before"] = shots["teacher_edit"], tables["teacher_edit"]
    folder.begin(run, resume=False)
    tell(f"training {recipe.steps} updates of {recipe.batch} samples")
    follow(run, folder)
    look("student_after", STUDENT)
    contact_sheet(*_sheet(exam, shots)).save(out / "samples.png")
    loss_plot(folder.history(), out / "loss.png", "Distance of the student to its teachers, on its own paths")
    report = {
        "seed": seed,
        "steps": recipe.steps,
        "seconds": round(time.perf_counter() - began, 1),
        "peak_rss_mb": round(peak_rss_mb()),
        "scores": {name: {c: round(mark.mean, 4) for c, mark in table.items()} for name, table in tables.items()},
        "intervals": {
            name: {c: [round(mark.low, 4), round(mark.high, 4)] for c, mark in table.items()}
            for name, table in tables.items()
        },
        "items_per_category": {category: each for kind, each in ASKED.items() for category in kind},
        "guidance_of_base": GUIDANCE,
    }
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(score_markdown({name: {kind: table[kind] for kind in ("t2i", "edit")} for name, table in tables.items()}))
    tell(f"{report['seconds']:.0f} s, {report['peak_rss_mb']} MB; look at {out / 'samples.png'}")
    return report


def _sheet(exam: HeldOutSet, shots: dict[str, list[np.ndarray]]) -> tuple[Sequence[str], list[SheetRow]]:
    """Of each category the first item that one teacher does better than the other, whatever the student does."""
    base, edit = item_scores(exam, shots["base"]), item_scores(exam, shots["teacher_edit"])
    rows = []
    for category in SHOWN:
        numbers = [number for number, item in enumerate(exam.items) if item.category == category]
        gaps = [abs(one - other) for one, other in zip(base[category], edit[category], strict=True)]
        number = numbers[next((place for place, gap in enumerate(gaps) if gap > 0.5), 0)]
        item = exam.items[number]
        source = render(item.source, exam.size) if isinstance(item, Edit) else None
        rows.append(SheetRow(item.text, [source, *(shots[name][number] for name in shots)]))
    return ("source", "base", "edit teacher", "student before", "student after"), rows


def peak_rss_mb() -> float:
    """The most memory that this process has held, in MB of 10^6 bytes."""
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / 1e6
    # Linux hands the peak in getrusage down from the process that started this one; VmHWM is this one's own.
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
