"""What a run has published in output/loras: which student that is, and how another one of the run takes its place."""

from __future__ import annotations

from typing import Any, Literal

from ..errors import InputError
from .best import BestFile, update_of
from .numbers import finite
from .records import RunRecord
from .run_id import read_run, run_of_lora

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
