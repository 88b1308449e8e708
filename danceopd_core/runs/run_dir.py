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
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..algorithm.routers import trained
from ..doctor.health import Health, examine
from ..errors import InputError
from ..files import is_temporary, remove_leftovers, write_text
from ..recipe.io import read_stored_recipe, says_all, write_recipe
from ..recipe.schema import HELD_OUT, Recipe
from .best import BestFile
from .history import UpdateLines
from .identity import changed_files, file_stamps, is_steady, past_digest, recipe_digest
from .run_id import ID_FILE, new_run_id, read_run
from .run_lock import HOLDER, LOCK, RunLock
from .run_names import check_place
from .state_files import StateFiles
from .strip import PICTURES, Strip, check_own
from .train_state import load_state

if TYPE_CHECKING:  # reading run folders, as ComfyUI's page does, needs no model
    from ..algorithm.trainer import StepResult
    from .session import TrainingSession

ANEW = "start a new run, which can begin with what this one learned, as student.start"


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
        try:
            check_place(self.path)
        except InputError as error:
            raise InputError(f"out: {error}") from error
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is no folder: choose another 'out'")
        self._inner_folders()
        old = self.path / "recipe.yaml"
        if not old.exists():
            left = list(self.path.iterdir()) if self.path.exists() else []
            if not all(path.name in (LOCK, HOLDER, ID_FILE) or is_temporary(path.name) for path in left):
                raise InputError(f"{self.path} is not empty and is not the folder of a run: choose another 'out'")
            if resume and not left:  # a run that was killed while it was opened has left its lock
                raise InputError(f"{self.path} holds no run to resume: leave out --resume to start one")
            return
        if not resume:
            raise InputError(f"{self.path} already holds a run: add --resume to continue it, or choose another 'out'")
        before = read_stored_recipe(old)
        if recipe_digest(before) != recipe_digest(recipe):
            # A resumed run may change the number of steps, and what changes no update.
            raise InputError(f"the recipe differs from the one of {self.path}: resume with that one, {old}")
        if before.steps != recipe.steps and not is_steady(recipe):
            raise InputError.at(
                "steps",
                f"the schedule {recipe.optimizer.schedule} spans the steps, so the updates of the run in {self.path} "
                f"would be others with {recipe.steps} than with {before.steps}: resume with steps={before.steps}, or "
                f"{ANEW}={self.student}",
            )
        self._stamps = self._stamps or file_stamps(recipe)
        if changed := changed_files(read_run(self.path).stamps or self._stamps, self._stamps):
            raise InputError(
                f"{', '.join(changed)}: changed since the run in {self.path} began, which could not go on as the same "
                f"run: restore what was there, or {ANEW}={self.student}, in another 'out'"
            )
        self.check_state()

    def base_kept(self, recipe: Recipe) -> Recipe:
        """The recipe with what was chosen for its run in the folder: the type of the base by `memory: auto`, and the
        steps of the path by the model."""
        old = self.path / "recipe.yaml"
        if not old.exists():
            return recipe
        earlier, recipe = read_stored_recipe(old), self.as_begun(recipe)
        if recipe.rollout_steps is None:  # a run of a release that took no steps from the model does not say its own
            recipe = replace(recipe, rollout_steps=earlier.path_steps)
        if recipe.quantise is not None or recipe.memory == "manual":
            return recipe
        same = recipe_digest(replace(earlier, quantise=None)) == recipe_digest(recipe)
        return replace(recipe, quantise=earlier.quantise) if same else recipe

    def as_begun(self, recipe: Recipe) -> Recipe:
        """The recipe with what it does not say as the run in the folder means it, which a release without that
        setting began."""
        old = self.path / "recipe.yaml"
        if not old.exists() or recipe.held_out != HELD_OUT or says_all(old):
            return recipe
        return replace(recipe, held_out=read_stored_recipe(old).held_out)

    def check_state(self) -> None:
        """InputError if the run has trained but its states are gone: it would begin anew and overwrite the student."""
        if self.states.exist():
            return
        entries, old = self.history(), self.path / "recipe.yaml"
        unsaved = read_stored_recipe(old).save_every if old.exists() else 0
        if self.student.exists() or (entries and entries[-1]["update"] > unsaved):
            raise InputError(
                f"{self.path} was trained, but its {self.state.name} is gone: restore that file, or "
                f"{ANEW}={self.student}, under another name"
            )

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
                for folder in (self.path, *self._inner_folders())
                for name in remove_leftovers(folder, is_temporary)  # ours: this process holds the lock
            ]
            if left:
                tell(f"removed {len(left)} incomplete files that a killed process left in {self.path}")
            update = self._load(session, tell) if resume and self.states.exist() else 0
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
        # The keys are those of version 0.1.0, whose runs resume: "under" is the digest of the base LoRA.
        state = {**trainer.state_dict(), "under": session.adapters.base_lora_digest()}
        state |= {"recipe": past_digest(recipe), "seed": recipe.seed, "processes": trainer.processes.size}
        self.states.save({**state, "routed": _assigned(session)} if session.assignment else state, recipe.keep_states)
        BestFile(self.path).settle()
        self._write_student(session)
        self.health = examine(session.student())
        self._healths.replace({"update": trainer.update, **self.health.to_dict()})

    def _checkpoint(self, update: int) -> Path:
        return self.path / "checkpoints" / f"student-{update:06d}.safetensors"

    def _inner_folders(self) -> list[Path]:
        """Those in which a run writes and deletes; InputError if one is a link to elsewhere."""
        folders = [self.path / "checkpoints", self.path / PICTURES]
        for folder in folders:
            check_own(folder)
        return folders

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

    def _load(self, session: TrainingSession, tell: Callable[[str], None]) -> int:
        path, state = self.states.load(lambda state, path: _restore(session, state, path), tell)
        if state.get("under", "") != session.adapters.base_lora_digest():
            raise InputError.at(
                "student.base_lora",
                f"{session.recipe.student.base_lora} is no longer the LoRA that the run in {self.path} was trained on: "
                "restore that file, or start a new run",
            )
        if state.get("routed", "") != _assigned(session):
            raise InputError.at(
                "learned_router",
                f"some prompts have another route than in the run in {self.path}: restore the CSV files of that run "
                "and resume on a machine of the same kind, or start a new run",
            )
        size = session.trainer.processes.size
        if state.get("processes", size) != size:
            raise InputError(
                f"the run in {self.path} was trained by {state['processes']} processes, so that with {size} it would "
                f"see other samples: start as many, or {ANEW}={self.student}"
            )
        self.states.adopt(path, session.trainer.update)
        return session.trainer.update


def _restore(session: TrainingSession, state: dict[str, Any], path: Path) -> None:
    """Loads a state into the trainer; InputError if it is not of this run."""
    recipe, trainer = session.recipe, session.trainer
    if (state.get("recipe", past_digest(recipe)), state.get("seed", recipe.seed)) != (past_digest(recipe), recipe.seed):
        raise InputError(f"{path} is the state of another run: its recipe or seed is another")
    given = state["update"] * recipe.accumulate * recipe.batch * state.get("processes", 1)
    routes = len(trained([route.weight for route in recipe.routes])) if recipe.router == "all" else 1
    if "recipe" in state and sum(state["taken"]) != given * routes:
        raise InputError(f"{path} is damaged: {state['update']} updates do not take {state['taken']} samples")
    try:
        trainer.load_state_dict(state)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged or not a state of this run: {error!r}") from error


def _assigned(session: TrainingSession) -> str:
    """A digest of the route of each prompt that the learned router assigned; empty without one."""
    return session.assignment.digest() if session.assignment else ""
