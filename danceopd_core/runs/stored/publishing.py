"""What a run has published in output/loras: which student that is, and how another one of the run takes its place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from ...errors import InputError
from ...recipe.io import comments_of, read_stored_recipe, write_recipe
from ..files.numbers import finite
from ..files.run_id import read_run, run_of_lora
from ..files.student_metadata import copy_student
from ..training.best import BestFile, update_of
from .records import RunRecord

Which = Literal["best", "last"]


def publish_kept(record: RunRecord, which: Which) -> dict[str, Any]:
    """Puts the best or the last student of a run where its LoRA is, with its model card: "lora" and "update".

    InputError while the run is training, if there is no such student, or if the file in its place is of another run.
    """
    with record.folder.lock():
        record.find_lora()
        file = BestFile(record.path).path if which == "best" else record.folder.student
        update = update_of(file)
        if update is None:
            way_out = "it was not validated after an update" if which == "best" else "it was not saved yet"
            raise InputError(f"{record.name} has no {which} checkpoint: {way_out}")
        if run_of_lora(file) != read_run(record.path).id:
            raise InputError(f"{file.name} in the folder of {record.name} was written by another run: remove the file")
        record.publish_file(file, update)
        if status := record.status():
            record.write("status.json", {**status, "saved": saved_facts(record)})
    return {"lora": record.lora.name, "update": update}


def publish_as_asked(record: RunRecord, private: bool) -> None:
    """Publishes what a finished run has published anew, if its recipe says otherwise about privacy than is asked now.

    The students that can be published or pushed later follow. InputError while the run is training, or for a damaged
    recipe of a run that is to be private.
    """
    file = record.path / "recipe.yaml"
    try:
        stored = read_stored_recipe(file)
    except InputError:
        if private:
            raise
        return
    if stored.private == private:
        return
    recipe = replace(stored, private=private)
    with record.folder.lock():
        record.find_lora()
        last, best = record.folder.student, BestFile(record.path).path
        published = update_of(record.lora)
        for student in filter(Path.is_file, (last, best)):
            copy_student(student, student, {}, recipe)
        chosen = best if published is not None and published == update_of(best) != update_of(last) else last
        if (update := update_of(chosen)) is not None:
            record.publish_file(chosen, update, recipe)
        # Last: who is interrupted before is asked again, by the recipe that is still as it was.
        write_recipe(file, recipe, comments_of(file), stored=True)
        if update is not None:
            record.write_card()


def saved_facts(record: RunRecord) -> dict[str, Any] | None:
    """What the end of a run tells of what it saved, as the status has it; None if nothing of it is published."""
    published = update_of(record.lora) if record.lora.is_file() else None
    if published is None:
        return None
    best = BestFile(record.path).update
    return {
        "lora": record.lora.name,
        "folder": record.path.relative_to(record.path.parents[2]).as_posix(),
        "update": published,
        "seconds": _seconds(record),
        "best_kept": best is not None and best != published,
    }


def _seconds(record: RunRecord) -> float:
    """Of all updates; those of version 0.1.0 were not timed."""
    times = (entry.get("seconds") for entry in record.folder.history())
    totals = [finite(time.get("total")) for time in times if isinstance(time, dict)]
    return finite(sum(total for total in totals if total is not None)) or 0.0
