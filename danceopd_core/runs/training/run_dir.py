"""A run's folder on disk, written during the run: recipe, history, states, LoRA files.

RUN/recipe.yaml            the recipe
RUN/run.json               the run's id, and stamps of the files that it is trained from
RUN/history.jsonl          one line per update
RUN/health.jsonl           one line per save: what an examination of the student's weights found
RUN/state.safetensors      to resume from: student, optimizer, counters; those before it are in `state_files`
RUN/router.json            with a learned router: its accuracy, and the route of each prompt that it assigned
RUN/student.safetensors    the LoRA of the last save
RUN/validation.jsonl       one line per validation; that of update 0 is of the start
RUN/best.safetensors       the LoRA of the best validation
RUN/checkpoints/student-000300.safetensors   the LoRA of every save: quality can fall again after its peak
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...doctor.health import Health, examine
from ...errors import InputError
from ...files import is_temporary, remove_leftovers, write_text
from ...recipe.io import write_recipe
from ...recipe.schema import Recipe
from ..files.history import UpdateLines
from ..files.identity import file_stamps
from ..files.run_id import new_run_id, read_run
from ..files.run_lock import RunLock
from ..files.state_files import StateFiles
from ..files.train_state import load_state
from ..live.strip import Strip
from .best import BestFile
from .earlier_run import EarlierRun
from .run_state import load_newest, state_of

if TYPE_CHECKING:  # reading run folders, as ComfyUI's page does, needs no model
    from ...algorithm.trainer import StepResult
    from .session import TrainingSession


def unheard(text: str) -> None:
    """Takes what a run tells where nobody listens."""


class RunFolder:
    """The folder of one run. A new run does not overwrite the results of another."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.states = StateFiles(self.path)
        self.state = self.states.newest
        self.student = self.path / "student.safetensors"
        self.health: Health | None = None
        """Of the student that this process saved last."""
        self._earlier = EarlierRun(self.path, self.states)
        self._history = UpdateLines(self.path / "history.jsonl")
        self._healths = UpdateLines(self.path / "health.jsonl")
        self._stamps: Mapping[str, str] | None = None
        self._added = 0

    @property
    def id(self) -> str:
        """The run's id; empty before the run began."""
        return read_run(self.path).id

    @property
    def saved(self) -> int:
        """The update of the newest state that this process loaded or saved; 0 if there is none."""
        return self.states.update or 0

    def lock(self) -> RunLock:
        """Holds the folder for this process, in a with block."""
        return RunLock(self.path)

    def claim(self, recipe: Recipe, resume: bool) -> None:
        """Checks the folder against the recipe before anything is opened; writes nothing. InputError if they differ."""
        self._stamps = self._earlier.check(recipe, resume, self._stamps)

    def base_kept(self, recipe: Recipe) -> Recipe:
        """The recipe with what was chosen for its run in the folder: the type of the base by `memory: auto`, and the
        steps of the path by the model."""
        return self._earlier.base_kept(recipe)

    def as_begun(self, recipe: Recipe) -> Recipe:
        """The recipe with what it does not say as the run in the folder means it, which a release without that
        setting began."""
        return self._earlier.as_begun(recipe)

    def check_state(self) -> None:
        """InputError if the run has trained but its states are gone: it would begin anew and overwrite the student."""
        self._earlier.check_state()

    def begin(
        self,
        session: TrainingSession,
        resume: bool,
        tell: Callable[[str], None] = unheard,
        stamps: Mapping[str, str] | None = None,
    ) -> None:
        """Writes the recipe; to resume, loads the saved state into the trainer and drops what was written after it.

        Every process loads the state; the main one alone chooses it and writes. tell: hears of what was damaged or
        left behind. stamps: of the recipe's files, if they are known.
        """
        from .distributed import by_main

        processes = session.trainer.processes
        update = by_main(processes, lambda: self._begin(session, resume, tell, stamps or self._stamps))
        if update and processes.rank:
            session.trainer.load_state_dict(load_state(self.state))
            if session.trainer.update != update:
                raise InputError(f"{self.state} is not the file that the main process has: share the folder of the run")

    def _begin(
        self, session: TrainingSession, resume: bool, tell: Callable[[str], None], stamps: Mapping[str, str] | None
    ) -> int:
        """The update from which the run goes on."""
        try:
            left = [
                name
                for folder in (self.path, *self._earlier.own_folders())
                for name in remove_leftovers(folder, is_temporary)  # ours: this process holds the lock
            ]
            if left:
                tell(f"removed {len(left)} incomplete files that a killed process left in {self.path}")
            update = load_newest(session, self._earlier, tell) if resume and self.states.exist() else 0
            self.path.mkdir(parents=True, exist_ok=True)
            self._cut(update, tell)
            run = read_run(self.path)
            run.write(self.path, run.id or new_run_id(), stamps or file_stamps(session.recipe))
            write_recipe(self.path / "recipe.yaml", session.recipe, session.plan.source.notes(), stored=True)
            if update and not self._checkpoint(update).exists():  # killed between the state and the student
                self._write_student(session)
            router = self.path / "router.json"
            router.unlink(missing_ok=True)  # of an earlier run that was cancelled before its first update
            if session.assignment is not None:
                write_text(router, json.dumps(session.assignment.report(), indent=1, ensure_ascii=False) + "\n")
        except OSError as error:
            raise InputError(f"{self.path} cannot be written to: {error.strerror or error}") from error
        return update

    def add(self, result: StepResult) -> None:
        """Appends an update to the history."""
        self._history.add(asdict(result))
        self._added = result.update

    def history(self) -> list[dict[str, Any]]:
        """One entry per update, with the fields of StepResult."""
        return self._history.read()

    def save(self, session: TrainingSession) -> None:
        """Writes the state and the LoRA, and a checkpoint of the LoRA that later saves do not overwrite.

        The state comes first: a student without one is a run that lost it. OSError if something cannot be written.
        """
        trainer, recipe = session.trainer, session.recipe
        if trainer.last is not None and trainer.last.update > self._added:
            self.add(trainer.last)  # what ended the run did so before it was given
        self._history.to_disk()
        self.states.save(state_of(session), recipe.keep_states)
        BestFile(self.path).settle()
        self._write_student(session)
        self.health = examine(session.student())
        self._healths.replace({"update": trainer.update, **self.health.to_dict()})

    def _checkpoint(self, update: int) -> Path:
        return self.path / "checkpoints" / f"student-{update:06d}.safetensors"

    def _write_student(self, session: TrainingSession) -> None:
        date, run = datetime.now(timezone.utc).isoformat(timespec="seconds"), self.id
        session.write_student(self._checkpoint(session.trainer.update), date, run)
        session.write_student(self.student, date, run)

    def _cut(self, update: int, tell: Callable[[str], None]) -> None:
        """Drops what was written after an update."""
        torn, whole = self._history.cut(update)
        self._healths.cut(update)
        UpdateLines(self.path / "validation.jsonl").cut(update)
        BestFile(self.path).cut(update)
        Strip(self.path).cut(update)
        if torn:
            tell(f"{self._history.path} had {torn} incomplete line{'s' * (torn > 1)}, which a killed process left")
        if not whole:
            tell(f"{self._history.path} lacks updates before {update}; the training does not need them")
        self._added = update
