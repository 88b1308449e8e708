"""Trains a recipe for the Train node: resumes an earlier run or starts a new one, and shows it live. No ComfyUI."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...algorithm.query import query_distribution
from ...data.roots import Roots
from ...listening import listening
from ...recipe.file_names import is_live
from ...recipe.from_graph import widget_names
from ...recipe.schema import Recipe
from ..files.identity import is_steady, run_identity
from ..files.numbers import is_update
from ..live.host import Host, told_to
from ..live.live_status import LiveStatus
from ..plans.sources import ModelSource
from ..stored.publishing import publish_as_asked, saved_facts
from ..stored.queueing import WORKFLOW
from ..stored.records import RunRecord
from ..training.loop import ended_by, train_loop
from ..training.session import TrainingSession, open_session
from ..training.validation import Validation, encode_rows
from .live_observer import LiveObserver


@dataclass(frozen=True)
class Job:
    """A training of the node. resume: whether an unfinished run of this record continues. workflow: JSON to keep.
    source: of the model; None: what the recipe names. roots: where the buckets' files have to lie; None: anywhere.
    cache: the folder of encoded prompts, as of `open_session`."""

    recipe: Recipe
    run: RunRecord
    validation: Validation
    resume: bool
    workflow: Any = None
    source: ModelSource | None = None
    roots: Roots = None
    cache: str | Path | None = None


def train_job(job: Job, host: Host, status: LiveStatus, stop: threading.Event) -> None:
    """Leaves the trained student in the run's folder; `status` shows how it ended, whatever ended it, and where the
    earlier LoRA of its name is.

    InputError names the widgets of the nodes instead of recipe keys.
    """
    try:
        with widget_names(is_live(job.recipe.model)):
            _train(job, host, status, stop)
    except BaseException as error:
        state = ended_by(error, host.cancelled)
        status.publish(state=state, message=str(error) if state == "failed" else _untrained(job.run, status))
        if status.data["update"]:
            job.run.write("status.json", status.data)
        raise


def _train(job: Job, host: Host, status: LiveStatus, stop: threading.Event) -> None:
    run, job = job.run, _as_begun(job)
    recipe = job.recipe
    loras = [recipe.student.start, recipe.student.base_lora, *(teacher.lora for teacher in recipe.teachers.values())]
    run.check_free(loras)
    identity, earlier = {**run_identity(recipe, job.roots), "watch": job.validation.digest()}, run.identity()
    if identity == earlier and _publish_finished(run, status, recipe.private):
        return
    with ExitStack() as locks:
        locks.enter_context(run.folder.lock())
        _train_locked(job, host, status, stop, identity, locks)


def _as_begun(job: Job) -> Job:
    """The job with what its recipe does not say as a run means it that an earlier release began, if it is that run."""
    recipe = job.run.folder.as_begun(job.recipe)
    goes_on = recipe != job.recipe and _continues(job.run.identity(), run_identity(recipe, job.roots), recipe)
    return replace(job, recipe=recipe) if goes_on else job


def _train_locked(
    job: Job, host: Host, status: LiveStatus, stop: threading.Event, identity: dict[str, Any], locks: ExitStack
) -> None:
    """Trains in the run's folder, which `locks` holds and holds anew where it is set aside."""
    recipe, run, earlier = job.recipe, job.run, job.run.identity()
    continues = job.resume and _continues(earlier, identity, recipe)
    if continues:
        run.folder.check_state()

    def log(text: str) -> None:
        host.check()
        status.publish(message=text)

    resume = continues and run.folder.states.exist()
    with listening(told_to(host, status.show_work)):
        session = _opened(job, run.folder.base_kept(recipe) if resume else recipe, log, resume)
        status.publish(asked=query_distribution(session.trainer.method.query, session.trainer.sigmas))
        rows = job.validation.rows(session)
        samples = encode_rows(session, rows)
    if not resume and (run.folder.states.exist() or run.folder.history()):  # a run without an update has no results
        run.set_aside()
        locks.enter_context(run.folder.lock())
    run.clean_loras()
    run.write("identity.json", identity)
    run.write(WORKFLOW, job.workflow)
    status.publish(earlier=run.earlier_lora())
    told: list[str] = []
    run.folder.begin(session, resume, told.append, identity["contents"])
    status.begin(session.trainer.update, ". ".join(told))
    host.progress(session.trainer.update, recipe.steps)
    observer = LiveObserver(run, session, rows, samples, host, status, stop)
    observer.begin(identity["watch"])
    state = train_loop(session, run.folder, observer, job.validation.every)
    status.publish(state=state)


def _untrained(run: RunRecord, status: LiveStatus) -> str:
    """What a run that was cancelled before its first update tells."""
    if status.data["update"]:
        return ""
    kept = f": {run.lora.name} in the loras folder is as it was" if run.lora.exists() else ""
    return f"Nothing was trained{kept}"


def _opened(job: Job, recipe: Recipe, log: Callable[[str], None], resume: bool) -> TrainingSession:
    source = job.source
    if source is not None and recipe.quantise != job.recipe.quantise:
        source = source.quantised(recipe.quantise)
    return open_session(recipe, log=log, source=source, roots=job.roots, resumed=resume, cache=job.cache)


def _publish_finished(run: RunRecord, status: LiveStatus, private: bool) -> bool:
    """Publishes the results of a finished run and restores its LoRA; False if the run is not finished.

    private: as it is asked now, which its files follow.
    """
    saved = run.status()
    if not saved or saved["state"] != "done" or not run.folder.student.exists():
        return False
    run.restore_lora()
    publish_as_asked(run, private)
    names = ("update", "losses", "start", "validation", "watched", "held_out", "best", "pictures", "asked", "health",
             "warning")  # fmt: skip
    results = {name: saved[name] for name in names if name in saved}  # runs of version 0.1.0 may lack some
    results |= {"saved": saved_facts(run), "finished_before": True}
    status.publish(**results, state="done", message="This run is finished already: nothing was trained.")
    return True


def _continues(earlier: Mapping[str, Any], identity: Mapping[str, Any], recipe: Recipe) -> bool:
    """Whether the run is the earlier one, or has more steps of it and a schedule that does not depend on the steps."""
    if (earlier.get("recipe"), earlier.get("contents")) != (identity["recipe"], identity["contents"]):
        return False
    steps = earlier.get("steps")
    if not is_update(steps):
        return False
    return steps == identity["steps"] or (steps < identity["steps"] and is_steady(recipe))
