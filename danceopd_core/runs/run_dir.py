"""What a run leaves on disk, written as it goes: recipe, history, state, LoRA files. Every write is atomic.

RUN/recipe.yaml            what was asked
RUN/history.jsonl          one line an update
RUN/state.safetensors      to resume from: student, optimizer, counters
RUN/router.json            if the recipe has a learned router: its accuracy, and the route that it gave each prompt
RUN/student.safetensors    the LoRA as it stands
RUN/checkpoints/student-000300.safetensors   every earlier one: quality can fall again after its peak
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..algorithm.trainer import StepResult
from ..errors import InputError
from ..recipe.io import read_recipe, write_recipe
from ..recipe.schema import Recipe
from .session import TrainingSession
from .train_state import load_state, save_state


class RunFolder:
    """The folder of one run. A new run refuses a folder that holds another one's results."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.state = self.path / "state.safetensors"
        self.student = self.path / "student.safetensors"
        self._history = self.path / "history.jsonl"

    def claim(self, recipe: Recipe, resume: bool) -> None:
        """Checks the folder against the recipe before anything is opened; writes nothing."""
        old = self.path / "recipe.yaml"
        if not old.exists():
            if self.path.exists() and any(self.path.iterdir()):
                raise InputError(f"{self.path} is not empty and holds no run: choose another 'out'")
            if resume:
                raise InputError(f"{self.path} holds no run to resume: leave out --resume to start one")
        elif not resume:
            raise InputError(f"{self.path} already holds a run: add --resume to go on with it, or choose another 'out'")
        elif replace(read_recipe(old), steps=recipe.steps).digest() != recipe.digest():
            # More steps are the one change that a resumed run may bring.
            raise InputError(f"the recipe differs from the one of {self.path}: resume with that one, {old}")

    def begin(self, run: TrainingSession, resume: bool) -> None:
        """Writes the recipe, or loads the saved state into the trainer and drops the history after it."""
        self.path.mkdir(parents=True, exist_ok=True)
        if resume and self.state.exists():
            state = load_state(self.state)
            if state.get("under", "") != run.adapters.base_lora_digest():
                raise InputError(
                    f"student.over: {run.recipe.student.over} is no longer the LoRA that the run of {self.path} lies "
                    "over: put that file back, or begin a new run"
                )
            if state.get("routed", "") != _routed(run):
                raise InputError(
                    f"learned_router: it gives some prompts another route than in the run of {self.path}: put the CSV "
                    "files of that run back and resume on a machine of the same kind, or begin a new run"
                )
            run.trainer.load_state_dict(state)
            kept = [entry for entry in self.history() if entry["update"] <= run.trainer.update]
            self._replace(self._history, "".join(json.dumps(entry) + "\n" for entry in kept))
        write_recipe(self.path / "recipe.yaml", run.recipe)
        if run.routing is not None:
            report = json.dumps(run.routing.report(), indent=1, ensure_ascii=False)
            self._replace(self.path / "router.json", report + "\n")

    def add(self, result: StepResult) -> None:
        with self._history.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(result)) + "\n")

    def history(self) -> list[dict[str, Any]]:
        """One entry an update: the fields of StepResult."""
        if not self._history.exists():
            return []
        return [json.loads(line) for line in self._history.read_text(encoding="utf-8").splitlines() if line]

    def save(self, run: TrainingSession) -> None:
        """The state and the LoRA, together with a checkpoint that later ones do not overwrite."""
        date = datetime.now(timezone.utc).isoformat(timespec="seconds")
        kept = self.path / "checkpoints" / f"student-{run.trainer.update:06d}.safetensors"
        kept.parent.mkdir(exist_ok=True)
        run.write_student(kept, date)
        run.write_student(self.student, date)
        # The keys are those of version 0.1.0, whose runs resume: "under" is the digest of the base LoRA.
        state = {**run.trainer.state_dict(), "under": run.adapters.base_lora_digest()}
        save_state(self.state, {**state, "routed": _routed(run)} if run.routing else state)

    @staticmethod
    def _replace(path: Path, text: str) -> None:
        temporary = path.with_name(f".{path.name}.part")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)


def _routed(run: TrainingSession) -> str:
    return run.routing.digest() if run.routing else ""
