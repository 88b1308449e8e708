"""The validations of a run: measured, written down, and the best student kept."""

from __future__ import annotations

from typing import Any

from ...algorithm.routers import trained
from ..files.history import UpdateLines
from ..live.live_status import plain
from .best import Best, BestFile, best_of
from .run_dir import RunFolder
from .session import TrainingSession


class Validations:
    """Those of a session in its folder. All processes of a run measure together; the main one writes.

    trained: the names of the routes that are trained and not only watched.
    """

    def __init__(self, session: TrainingSession, folder: RunFolder) -> None:
        routes = session.recipe.routes
        self.trained = [routes[number].name for number in trained([route.weight for route in routes])]
        self._session, self._folder, self._main = session, folder, not session.trainer.processes.rank
        self._lines = UpdateLines(folder.path / "validation.jsonl")

    def measure_start(self) -> None:
        """The errors before the first update, by which it is told later whether the student gets closer."""
        if not self._session.trainer.update:
            self._measure()

    def measure(self) -> tuple[dict[str, float | None], Best | None]:
        """The errors by route now, and the best validation so far, which the main process alone knows; where that is
        this one, the student is kept."""
        errors = self._measure()
        best = self.best() if self._main else None
        if best is not None and best.update == self._session.trainer.update:
            BestFile(self._folder.path).write(self._session, self._folder.id)
        return errors, best

    def best(self) -> Best | None:
        return best_of(self._lines.read(), self.trained)

    def _measure(self) -> dict[str, Any]:
        errors: dict[str, Any] = plain(self._session.errors())
        if self._main:
            self._lines.replace({"update": self._session.trainer.update, "errors": errors})
        return errors
