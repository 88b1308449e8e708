"""A run's folder on disk, written during the run: recipe, history, state, LoRA files.

RUN/recipe.yaml            the recipe
RUN/history.jsonl          one line per update
RUN/state.safetensors      to resume from: student, optimizer, counters
RUN/router.json            with a learned router: its accuracy, and the route of each prompt that it assigned
RUN/student.safetensors    the LoRA of the last save
RUN/checkpoints/student-000300.safetensors   the LoRA of every save: quality can fall again after its peak
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..files import write_text
from ..recipe.io import read_recipe, write_recipe
from ..recipe.schema import Recipe
from .train_state import load_state, save_state

if TYPE_CHECKING:  # reading run folders, as ComfyUI's page does, needs no model
    from ..algorithm.trainer import StepResult
    from .session import TrainingSession


class RunFolder:
    """The folder of one run. A new run does not overwrite the results of another."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.state = self.path / "state.safetensors"
        self.student = self.path / "student.safetensors"
        self._history = self.path / "history.jsonl"

    def claim(self, recipe: Recipe, resume: bool) -> None:
        """Checks the folder against the recipe before anything is opened; writes nothing. InputError if they differ."""
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is no folder: choose another 'out'")
        old = self.path / "recipe.yaml"
        if not old.exists():
            if self.path.exists() and any(self.path.iterdir()):
                raise InputError(f"{self.path} is not empty and is not the folder of a run: choose another 'out'")
            if resume:
                raise InputError(f"{self.path} holds no run to resume: leave out --resume to start one")
        elif not resume:
            raise InputError(f"{self.path} already holds a run: add --resume to continue it, or choose another 'out'")
        elif replace(read_recipe(old), steps=recipe.steps).digest() != recipe.digest():
            # A resumed run may change the number of steps, and nothing else.
            raise InputError(f"the recipe differs from the one of {self.path}: resume with that one, {old}")

    def begin(self, session: TrainingSession, resume: bool) -> None:
        """Writes the recipe; to resume, loads the saved state into the trainer and drops the history after it.

        Every process loads the state; the main one alone writes.
        """
        resume = resume and self.state.exists()
        if resume:
            self._load(session)
        if session.trainer.processes.rank:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        if resume:
            kept = [entry for entry in self.history() if entry["update"] <= session.trainer.update]
            write_text(self._history, "".join(json.dumps(entry) + "\n" for entry in kept))
        write_recipe(self.path / "recipe.yaml", session.recipe, session.plan.source.notes())
        router = self.path / "router.json"
        router.unlink(missing_ok=True)  # of an earlier run that was cancelled before its first update
        if session.assignment is not None:
            write_text(router, json.dumps(session.assignment.report(), indent=1, ensure_ascii=False) + "\n")

    def add(self, result: StepResult) -> None:
        """Appends an update to the history."""
        with self._history.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(result)) + "\n")

    def history(self) -> list[dict[str, Any]]:
        """One entry per update, with the fields of StepResult."""
        if not self._history.exists():
            return []
        return [json.loads(line) for line in self._history.read_text(encoding="utf-8").splitlines() if line]

    def save(self, session: TrainingSession) -> None:
        """Writes the state and the LoRA, and a checkpoint of the LoRA that later saves do not overwrite."""
        date = datetime.now(timezone.utc).isoformat(timespec="seconds")
        session.write_student(self.path / "checkpoints" / f"student-{session.trainer.update:06d}.safetensors", date)
        session.write_student(self.student, date)
        # The keys are those of version 0.1.0, whose runs resume: "under" is the digest of the base LoRA.
        state = {**session.trainer.state_dict(), "under": session.adapters.base_lora_digest()}
        save_state(self.state, {**state, "routed": _assigned(session)} if session.assignment else state)

    def _load(self, session: TrainingSession) -> None:
        state = load_state(self.state)
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
        session.trainer.load_state_dict(state)


def _assigned(session: TrainingSession) -> str:
    """A digest of the route of each prompt that the learned router assigned; empty without one."""
    return session.assignment.digest() if session.assignment else ""
