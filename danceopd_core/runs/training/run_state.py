"""The state of a run: the trainer's, with what it belongs to, and its way back into a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...algorithm.routers import trained
from ...errors import InputError
from ..files.identity import past_digest
from .earlier_run import EarlierRun

if TYPE_CHECKING:  # reading run folders, as ComfyUI's page does, needs no model
    from .session import TrainingSession


def state_of(session: TrainingSession) -> dict[str, Any]:
    """All that the run goes on from, as tensors and plain values."""
    trainer, recipe = session.trainer, session.recipe
    # The keys are those of version 0.1.0, whose runs resume: "under" is the digest of the base LoRA.
    state = {**trainer.state_dict(), "under": session.adapters.base_lora_digest()}
    state |= {"recipe": past_digest(recipe), "seed": recipe.seed, "processes": trainer.processes.size}
    return {**state, "routed": _assigned(session)} if session.assignment else state


def load_newest(session: TrainingSession, run: EarlierRun, tell: Callable[[str], None]) -> int:
    """Loads the newest sound state into the session; its update. tell: hears of those that are not sound.

    InputError if the session is not one that could go on with it.
    """
    path, state = run.states.load(lambda state, path: _restore(session, state, path), tell)
    if state.get("under", "") != session.adapters.base_lora_digest():
        raise InputError.at(
            "student.base_lora",
            f"{session.recipe.student.base_lora} is no longer the LoRA that the run in {run.path} was trained on: "
            "restore that file, or start a new run",
        )
    if state.get("routed", "") != _assigned(session):
        raise InputError.at(
            "learned_router",
            f"some prompts have another route than in the run in {run.path}: restore the CSV files of that run "
            "and resume on a machine of the same kind, or start a new run",
        )
    size = session.trainer.processes.size
    if state.get("processes", size) != size:
        raise InputError(
            f"the run in {run.path} was trained by {state['processes']} processes, so that with {size} it would "
            f"see other samples: start as many, or {run.anew}"
        )
    run.states.adopt(path, session.trainer.update)
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
