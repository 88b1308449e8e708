"""The runs below ComfyUI's output folder: `output/danceopd/<name>`, with the LoRA in `output/loras/<name>.safetensors`.

Beside what the core's RunFolder keeps:
identity.json      what the run was trained from, by which the same graph finds its results again
status.json        the last saved live status
validation.jsonl   one line per validation
pictures/          of the validations, with strip.json as in `strip`
workflow.json      the graph that started it
README.md          the model card; a copy lies beside the LoRA
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from ...files import atomic, is_abandoned, remove_leftovers, write_text
from ...outside import read_json
from ...recipe.io import read_stored_recipe
from ..cards.model_card import is_card_of, write_card
from ..files.history import UpdateLines
from ..files.identity import VERSION, recipe_digest
from ..files.run_id import read_run, run_of_lora, same_weights
from ..files.run_lock import HOLDER, LOCK
from ..files.run_names import check_name, check_twin, is_file_name
from ..files.student_metadata import copy_student, thumbnail, workflow_metadata
from ..live.history_pages import history_page
from ..live.saved_status import is_status, picture_name
from ..live.strip import Strip
from ..training.run_dir import RunFolder
from .queueing import WORKFLOW

if TYPE_CHECKING:  # reading records, as ComfyUI's page does, needs no model
    from ...recipe.schema import Recipe
    from ..training.session import TrainingSession


class RunRecord:
    """The files of the run of that name."""

    def __init__(self, output: Path, name: str) -> None:
        self.name = check_name(name)
        self.path = output / "danceopd" / self.name
        self.lora = output / "loras" / f"{self.name}.safetensors"
        self.folder = RunFolder(self.path)
        self.strip = Strip(self.path)
        self._adopted: tuple[int, int] | None = None
        """Size and time of the LoRA file that was found to be this run's, until it is written."""

    def check_free(self, used: Iterable[str | None] = ()) -> None:
        """InputError if the run's folder or LoRA file exists and is not this run's, or if another differs from it in
        upper and lower case only.

        used: files that the run is trained from, which it must not overwrite.
        """
        check_twin(self.path)
        check_twin(self.lora)
        left = [path.name for path in self.path.iterdir()] if self.path.exists() else []
        if not {"identity.json", LOCK, HOLDER}.intersection(left) and left:
            raise InputError(f"name: {self.path} exists and is not the folder of a run: choose another name")
        for file in filter(None, used):
            if self.lora.exists() and Path(file).exists() and self.lora.samefile(file):
                raise InputError(
                    f"name: '{self.name}' is also a LoRA that the run is trained from: choose another name"
                )
        if self.lora.exists() and not self.owns_lora():
            raise InputError(
                f"name: the LoRA {self.lora} exists and was not trained by this run: choose another name, or move it"
            )
        self._adopted = self._stamp()

    def owns_lora(self) -> bool:
        """Whether the LoRA file is of this run, or of an earlier one of its name that was set aside with a copy of it.

        A file of version 0.1.0 names no run: it is, if it holds what the run's folder holds too.
        """
        return self._owns(self.lora)

    def _owns(self, lora: Path) -> bool:
        folders = [self.path, *self._set_aside()]
        if written := run_of_lora(lora):
            return written in [read_run(folder).id for folder in folders]
        students = [folder / "student.safetensors" for folder in folders]
        return any(student.exists() and same_weights(lora, student) for student in students)

    def publish(self, session: TrainingSession) -> None:
        """Writes the student to output/loras; under a further name if another file came there since the run began."""
        self._choose_place()
        date = datetime.now(timezone.utc).isoformat(timespec="seconds")
        more = self._metadata(session.recipe.private, session.trainer.update)
        session.write_student(self.lora, date, self.folder.id, more)

    def publish_file(self, student: Path, update: int, recipe: Recipe | None = None) -> None:
        """As `publish`, a student of the run's folder, with the model card that tells of that update.

        recipe: None for the one in the run's folder.
        """
        self._choose_place()
        recipe = recipe or read_stored_recipe(self.path / "recipe.yaml")
        copy_student(student, self.lora, self._metadata(recipe.private, update), recipe)
        self.write_card()

    def find_lora(self) -> None:
        """Makes the file that the run has published its LoRA, which may have a further name."""
        if saved := (self.status() or {}).get("saved"):
            file = self.lora.with_name(saved["lora"])
            self.lora = file if file.is_file() and self._owns(file) else self.lora

    def _choose_place(self) -> None:
        if self.lora.exists() and self._stamp() != self._adopted and not self.owns_lora():
            self.lora = next(file for file in self._names() if not file.exists() or self._owns(file))

    def _metadata(self, private: bool, update: int) -> dict[str, str]:
        """What the published file has of the run beside what every student's file has."""
        if private:
            return {}
        more, pictures = dict[str, str](), self.strip.of(update) or self.strip.last()
        if pictures:
            with suppress(InputError):  # a damaged one
                more |= thumbnail(pictures[0])
        return more | workflow_metadata(self._read(WORKFLOW))

    def write_card(self) -> None:
        """Writes the model card of the run into its folder, and beside the LoRA unless another's card lies there."""
        write_card(self.path, self.lora.stem)
        beside = self.lora.with_suffix(".md")
        ids = [read_run(folder).id for folder in (self.path, *self._set_aside())]
        if not beside.exists() or is_card_of(beside, ids):
            write_card(self.path, self.lora.stem, beside, self.lora if self.lora.is_file() else None)

    def _stamp(self) -> tuple[int, int] | None:
        stat = self.lora.stat() if self.lora.exists() else None
        return stat and (stat.st_size, stat.st_mtime_ns)

    def restore_lora(self) -> None:
        """Writes the LoRA of a finished run again if it is gone."""
        if not self.lora.exists():
            with atomic(self.lora) as temporary:
                temporary.write_bytes(self.folder.student.read_bytes())

    def clean_loras(self) -> None:
        """Removes what killed processes of this machine left in output/loras."""
        remove_leftovers(self.lora.parent, is_abandoned)

    def set_aside(self) -> None:
        """Renames an earlier run of this name to `<name>.1`, or the next number that is free."""
        if self.path.exists():
            number = next(n for n in range(1, 10**6) if not self.path.with_name(f"{self.name}.{n}").exists())
            self.path.rename(self.path.with_name(f"{self.name}.{number}"))

    def earlier_lora(self) -> str:
        """The LoRA of the latest run of this name that was set aside, from the output folder on; empty without one."""
        students = [folder / "student.safetensors" for folder in self._set_aside()]
        found = [student for student in students if student.exists()]
        if not found:
            return ""
        latest = max(found, key=lambda student: int(student.parent.name.rpartition(".")[2]))
        return latest.relative_to(self.path.parent.parent.parent).as_posix()

    def _set_aside(self) -> list[Path]:
        """The folders of earlier runs of this name."""
        start = f"{self.name}."
        return [p for p in self.path.parent.glob("*") if p.name.startswith(start) and p.name[len(start) :].isdecimal()]

    def _names(self) -> Iterable[Path]:
        return (self.lora.with_name(f"{self.name}.{number}.safetensors") for number in range(1, 10**6))

    def identity(self) -> dict[str, Any]:
        """What `run_identity` and the validation gave when the run was started; empty if there is no run.

        An identity without a version holds a digest of every setting, defaults included. It is replaced by the digest
        of the run's own recipe.
        """
        found = self._read("identity.json")
        stored = found if isinstance(found, dict) else {}
        recipe = self.path / "recipe.yaml"
        if not stored or "version" in stored or not recipe.exists():
            return stored
        try:
            return {**stored, "version": VERSION, "recipe": recipe_digest(read_stored_recipe(recipe))}
        except InputError:
            return stored  # a damaged file: no recipe has this digest, so the run is set aside

    def status(self) -> dict[str, Any] | None:
        """The last saved status, None without a readable one; a training that ended with the server counts as
        cancelled."""
        status = self._read("status.json")
        if not is_status(status):
            return None
        pictures = [{**one, "url": self.url(name)} for one in status["pictures"] if (name := picture_name(one))]
        saved = status.get("saved")
        if saved and not is_file_name(saved["lora"]):
            status = {**status, "saved": None}
        state = "cancelled" if status["state"] == "training" else status["state"]
        return {**status, "run": self.name, "state": state, "pictures": pictures}  # it may have been set aside since

    def url(self, picture: str) -> str:
        """Where the server gives a picture of this run."""
        return f"/danceopd/runs/{self.name}/pictures/{picture}"

    def write(self, file: str, value: Any) -> None:
        """A JSON file of the run, atomically."""
        write_text(self.path / file, json.dumps(value, indent=1) + "\n")

    def validations(self) -> list[dict[str, Any]]:
        """One entry a validation, with its update and its errors by route; that of update 0 is of the start."""
        return UpdateLines(self.path / "validation.jsonl").read()

    def start(self) -> dict[str, Any]:
        """The errors before the first update; empty for a run that did not measure them."""
        found = next((entry.get("errors") for entry in self.validations() if entry["update"] == 0), None)
        return found if isinstance(found, dict) else {}

    def pictures(self) -> list[Path]:
        """Those of the last validation, in order."""
        return self.strip.last()

    def losses(self) -> list[float]:
        """One an update, the mean over its routes; updates whose losses cannot be read are left out."""
        found = [_numbers(entry.get("losses")) for entry in self.folder.history()]
        return [sum(losses) / len(losses) for losses in found if losses]

    def history(self, after: int = 0, limit: int | None = None) -> dict[str, Any]:
        """For the page, the fields of `HistoryPage`: what follows an update, `limit` updates at most."""
        return history_page(self.path, after, limit).to_dict()

    def _read(self, file: str) -> Any:
        path = self.path / file
        try:
            return read_json(path, "the file") if path.exists() else None
        except InputError:
            return None  # an incomplete file of a machine that went down counts as absent


def _numbers(losses: Any) -> list[float]:
    values = losses.values() if isinstance(losses, dict) else ()
    return [value for value in values if type(value) in (int, float) and abs(value) < 1e300]


def unfinished(output: Path, name: str | None) -> str:
    """The state and update of a stopped or cancelled run of that name; empty for any other."""
    try:
        status = RunRecord(output, name or "").status()
    except InputError:
        return ""
    return f"{status['state']} at {status['update']}" if status and status["state"] in ("stopped", "cancelled") else ""


def all_runs(output: Path) -> list[str]:
    """The names of the runs; other folders are none."""
    files = (output / "danceopd").glob("*/identity.json")
    return sorted(file.parent.name for file in files if _is_run(file))


def _is_run(file: Path) -> bool:
    """Whether an identity is of a run's folder, by its name too."""
    try:
        return check_name(file.parent.name) == file.parent.name and file.is_file()
    except (InputError, OSError, ValueError):
        return False
