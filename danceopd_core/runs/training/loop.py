"""The training loop of the command line and of the Train node: updates, history, validations, saves, stop requests."""

from __future__ import annotations

from typing import Literal, Protocol

from ...algorithm.trainer import StepResult
from ...errors import InputError
from ...signals import held
from .rescue import SaveFailed, save_failed
from .run_dir import RunFolder
from .session import TrainingSession

RunState = Literal["training", "done", "stopped", "cancelled", "failed"]


class Observer(Protocol):
    """Follows a training. Every call comes between two updates; what it raises ends the run.

    Of several processes the main one makes all calls, the others `on_validate` alone, at the same updates: a validation
    is measured by all of them together.

    cancelled: the exception by which the user cancels a run; any other exception is a failure.
    """

    @property
    def cancelled(self) -> type[BaseException]: ...
    def on_update(self, result: StepResult) -> None:
        """After an update, which is in the history already."""

    def on_validate(self) -> None:
        """Every `validate_every` updates, and at the end of a run that did not fail; of several processes, not at that
        of a run that was stopped, of which the others do not know."""

    def on_save(self, state: RunState) -> None:
        """After the run's folder was saved; `state` is the state of the run."""

    def on_not_saved(self, why: str) -> None:
        """When a run that something ended could not be saved; what ended it is raised after that."""

    def should_stop(self) -> bool:
        """Whether to end the run after this update."""


def train_loop(
    session: TrainingSession, folder: RunFolder, observer: Observer, validate_every: int = 0
) -> Literal["done", "stopped"]:
    """Trains until the recipe's steps are done or the observer stops the run, and saves as the recipe says.

    Whatever ends a run that has an update, it is saved and can be resumed; an exception is raised again after that.
    SaveFailed, a sentence, if a save fails. Only the main process writes. validate_every: in updates; 0: only at the
    end.
    """
    if session.trainer.processes.rank:
        return _follow(session, observer, validate_every)
    try:
        state = _updates(session, folder, observer, validate_every)
        if state == "done" or session.trainer.processes.size == 1:
            _validate(session, folder, observer)
    except SaveFailed:
        raise
    except BaseException as error:
        _save_the_rest(session, folder, observer, ended_by(error, observer.cancelled))
        raise
    _save(session, folder, observer, state)
    return state


def ended_by(error: BaseException, cancelled: type[BaseException]) -> Literal["cancelled", "failed"]:
    """The state of a run that this exception ended."""
    return "cancelled" if isinstance(error, cancelled) else "failed"


def _follow(session: TrainingSession, observer: Observer, validate_every: int) -> Literal["done"]:
    """What a process does that is not the main one: the same updates and validations."""
    for result in session.trainer:
        if _is_validated(session, result, validate_every):
            observer.on_validate()
    observer.on_validate()
    return "done"


def _is_validated(session: TrainingSession, result: StepResult, validate_every: int) -> bool:
    """Whether there is a validation after this update, which is not that of the end."""
    due = bool(validate_every) and result.update % validate_every == 0
    return due and result.update < session.recipe.steps


def _updates(
    session: TrainingSession, folder: RunFolder, observer: Observer, validate_every: int
) -> Literal["done", "stopped"]:
    steps, save_every = session.recipe.steps, session.recipe.save_every
    for result in session.trainer:
        _record(session, folder, result)
        observer.on_update(result)
        if result.update == steps:
            break
        if observer.should_stop():
            return "stopped"
        if _is_validated(session, result, validate_every):
            _validate(session, folder, observer)
        if result.update % save_every == 0:
            _save(session, folder, observer, "training")
    return "done"


def _record(session: TrainingSession, folder: RunFolder, result: StepResult) -> None:
    try:
        with held():
            folder.add(result)
    except OSError as error:
        raise save_failed(session, folder, error) from error


def _validate(session: TrainingSession, folder: RunFolder, observer: Observer) -> None:
    try:
        observer.on_validate()
    except OSError as error:
        raise save_failed(session, folder, error) from error


def _save(session: TrainingSession, folder: RunFolder, observer: Observer, state: RunState) -> None:
    try:
        with held():
            folder.save(session)
            observer.on_save(state)
    except OSError as error:
        raise save_failed(session, folder, error) from error


def _save_the_rest(session: TrainingSession, folder: RunFolder, observer: Observer, state: RunState) -> None:
    """Saves a run that an exception ended. Without an update there is nothing to save."""
    if session.trainer.torn:
        observer.on_not_saved(f"an update failed while it was applied: the run is as it was at update {folder.saved}")
    elif session.trainer.update:
        try:
            _save(session, folder, observer, state)
        except (InputError, SaveFailed) as failure:
            observer.on_not_saved(str(failure))
