"""A progress bar for the training loop."""

from __future__ import annotations

from types import TracebackType

from tqdm import tqdm

from ..algorithm.trainer import StepResult
from ..runs.cards.model_card import write_card
from ..runs.training.best import BestFile
from ..runs.training.loop import RunState
from ..runs.training.rescue import save_failed
from ..runs.training.run_dir import RunFolder
from ..runs.training.session import TrainingSession
from ..runs.training.validations import Validations
from .console import log


class ProgressBar:
    """An observer of the training loop that shows a bar with loss and learning rate; a context manager.

    It measures the distances to the teachers, before the first update too, and keeps the best student. What an
    examination finds in the weights at a save is logged where it is not healthy, and at the end.
    Every process has one, which shows, logs and writes in the main process only.
    """

    cancelled = KeyboardInterrupt

    def __init__(self, session: TrainingSession, folder: RunFolder) -> None:
        self._session, self._folder = session, folder
        self._validations = Validations(session, folder)
        self._bar = tqdm(
            total=session.recipe.steps,
            initial=session.trainer.update,
            unit="update",
            disable=session.trainer.processes.rank > 0,
            dynamic_ncols=True,
        )

    def __enter__(self) -> ProgressBar:
        try:
            self._validations.measure_start()
        except OSError as error:
            raise save_failed(self._session, self._folder, error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.close()

    def on_update(self, result: StepResult) -> None:
        self._bar.set_postfix(loss=f"{result.loss:.4f}", lr=f"{result.lr:.1e}", refresh=False)
        self._bar.update()

    def on_validate(self) -> None:
        _, best = self._validations.measure()
        if best is not None and self._session.trainer.update == self._session.recipe.steps:
            percent = f"{best.percent:.0f} % of the distance to the teachers at the start"
            log(f"the best student, of update {best.update} ({percent}), is in {BestFile(self._folder.path).path}")

    def on_save(self, state: RunState) -> None:
        write_card(self._folder.path, self._folder.path.resolve().name)
        health = self._folder.health
        if health is not None and (state != "training" or health.state != "healthy"):
            log(f"the LoRA is {health.verdict()}")
        if state in ("cancelled", "failed"):
            log(f"saved after update {self._session.trainer.update}: --resume goes on from there")

    def on_not_saved(self, why: str) -> None:
        log(why)

    def should_stop(self) -> bool:
        return False
