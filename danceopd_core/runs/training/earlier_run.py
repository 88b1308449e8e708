"""The run that a folder holds already, against the recipe that is to be trained there; nothing is opened or written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ...errors import InputError
from ...files import is_temporary
from ...recipe.io import read_stored_recipe, says_all
from ...recipe.schema import HELD_OUT, Recipe
from ..files.history import UpdateLines
from ..files.identity import changed_files, file_stamps, is_steady, recipe_digest
from ..files.run_id import ID_FILE, read_run
from ..files.run_lock import HOLDER, LOCK
from ..files.run_names import check_place
from ..files.state_files import StateFiles
from ..live.strip import PICTURES, check_own

ANEW = "start a new run, which can begin with what this one learned, as student.start"


@dataclass(frozen=True, eq=False)
class EarlierRun:
    """What the folder at `path` holds; there may be nothing, or no folder."""

    path: Path
    states: StateFiles

    @property
    def recipe_file(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def anew(self) -> str:
        """What to do where the run cannot go on."""
        return f"{ANEW}={self.path / 'student.safetensors'}"

    def own_folders(self) -> list[Path]:
        """Those in which a run writes and deletes; InputError if one is a link to elsewhere."""
        folders = [self.path / "checkpoints", self.path / PICTURES]
        for folder in folders:
            check_own(folder)
        return folders

    def check(self, recipe: Recipe, resume: bool, stamps: Mapping[str, str] | None) -> Mapping[str, str] | None:
        """InputError if the recipe cannot be trained here, or cannot go on with the run.

        stamps: of the recipe's files, if they are known; returns them if they are known now.
        """
        try:
            check_place(self.path)
        except InputError as error:
            raise InputError(f"out: {error}") from error
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is no folder: choose another 'out'")
        self.own_folders()
        if not self.recipe_file.exists():
            left = list(self.path.iterdir()) if self.path.exists() else []
            if not all(path.name in (LOCK, HOLDER, ID_FILE) or is_temporary(path.name) for path in left):
                raise InputError(f"{self.path} is not empty and is not the folder of a run: choose another 'out'")
            if resume and not left:  # a run that was killed while it was opened has left its lock
                raise InputError(f"{self.path} holds no run to resume: leave out --resume to start one")
            return stamps
        if not resume:
            raise InputError(f"{self.path} already holds a run: add --resume to continue it, or choose another 'out'")
        self._check_recipe(recipe)
        stamps = stamps or file_stamps(recipe)
        if changed := changed_files(read_run(self.path).stamps or stamps, stamps):
            raise InputError(
                f"{', '.join(changed)}: changed since the run in {self.path} began, which could not go on as the same "
                f"run: restore what was there, or {self.anew}, in another 'out'"
            )
        self.check_state()
        return stamps

    def _check_recipe(self, recipe: Recipe) -> None:
        """A resumed run may change the number of steps, and what changes no update."""
        before = read_stored_recipe(self.recipe_file)
        if recipe_digest(before) != recipe_digest(recipe):
            raise InputError(
                f"the recipe differs from the one of {self.path}: resume with that one, {self.recipe_file}"
            )
        if before.steps != recipe.steps and not is_steady(recipe):
            raise InputError.at(
                "steps",
                f"the schedule {recipe.optimizer.schedule} spans the steps, so the updates of the run in {self.path} "
                f"would be others with {recipe.steps} than with {before.steps}: resume with steps={before.steps}, or "
                f"{self.anew}",
            )

    def check_state(self) -> None:
        """InputError if the run has trained but its states are gone: it would begin anew and overwrite the student."""
        if self.states.exist():
            return
        entries = UpdateLines(self.path / "history.jsonl").read()
        unsaved = read_stored_recipe(self.recipe_file).save_every if self.recipe_file.exists() else 0
        if (self.path / "student.safetensors").exists() or (entries and entries[-1]["update"] > unsaved):
            raise InputError(
                f"{self.path} was trained, but its {self.states.newest.name} is gone: restore that file, or "
                f"{self.anew}, under another name"
            )

    def base_kept(self, recipe: Recipe) -> Recipe:
        """The recipe with what was chosen for the run: the type of the base by `memory: auto`, and the steps of the
        path by the model."""
        if not self.recipe_file.exists():
            return recipe
        earlier, recipe = read_stored_recipe(self.recipe_file), self.as_begun(recipe)
        if recipe.rollout_steps is None:  # a run of a release that took no steps from the model does not say its own
            recipe = replace(recipe, rollout_steps=earlier.path_steps)
        if recipe.quantise is not None or recipe.memory == "manual":
            return recipe
        same = recipe_digest(replace(earlier, quantise=None)) == recipe_digest(recipe)
        return replace(recipe, quantise=earlier.quantise) if same else recipe

    def as_begun(self, recipe: Recipe) -> Recipe:
        """The recipe with what it does not say as the run means it, which a release without that setting began."""
        if not self.recipe_file.exists() or recipe.held_out != HELD_OUT or says_all(self.recipe_file):
            return recipe
        return replace(recipe, held_out=read_stored_recipe(self.recipe_file).held_out)
