"""Trains a recipe for the Train node: resumes an earlier run or starts a new one, and shows it live. No ComfyUI."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ..algorithm.fields import Conditioning
from ..algorithm.query import query_distribution
from ..algorithm.trainer import StepResult
from ..data.roots import Roots
from ..listening import listening, work
from ..recipe.file_names import is_live
from ..recipe.from_graph import widget_names
from ..recipe.schema import Recipe
from .divergence import divergence
from .encoding import encode_items
from .host import Host, told_to
from .identity import is_steady, run_identity
from .live_status import LiveStatus, plain
from .loop import RunState, ended_by, train_loop
from .queueing import WORKFLOW
from .records import RunRecord
from .session import TrainingSession, open_session
from .sources import ModelSource
from .validation import Validation, validation_pictures

ERROR_SAMPLES = 8
"""Samples per route for the validation error, at most; a smaller batch size is the limit."""


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
    recipe, run = job.recipe, job.run
    loras = [recipe.student.start, recipe.student.base_lora, *(teacher.lora for teacher in recipe.teachers.values())]
    run.check_free(loras)
    identity, earlier = {**run_identity(recipe, job.roots), "watch": job.validation.digest()}, run.identity()
    if identity == earlier and _publish_finished(run, status):
        return
    with ExitStack() as locks:
        locks.enter_context(run.folder.lock())
        _train_locked(job, host, status, stop, identity, locks)


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
        items = job.validation.items(session.plan)
        with work("encoding the validation prompts", len(items)):
            samples = encode_items(session.backbone, items, recipe.width, recipe.height)
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
    observer = _LiveObserver(run, session, samples, [item.prompt for item in items], host, status, stop)
    if session.trainer.update:
        status.publish(start=(run.status() or {}).get("start", {}))
    else:
        observer.measure_start()
    status.restart_clock()
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


def _publish_finished(run: RunRecord, status: LiveStatus) -> bool:
    """Publishes the results of a finished run and restores its LoRA; False if the run is not finished."""
    saved = run.status()
    if not saved or saved["state"] != "done" or not run.folder.student.exists():
        return False
    run.restore_lora()
    names = ("update", "losses", "validation", "pictures", "asked", "health", "warning")
    results = {name: saved[name] for name in names if name in saved}  # runs of version 0.1.0 may lack some
    status.publish(**results, state="done", message="This run is finished already: nothing was trained.")
    return True


def _continues(earlier: Mapping[str, Any], identity: Mapping[str, Any], recipe: Recipe) -> bool:
    """Whether the run is the earlier one, or has more steps of it and a schedule that does not depend on the steps."""
    if (earlier.get("recipe"), earlier.get("contents")) != (identity["recipe"], identity["contents"]):
        return False
    return earlier["steps"] == identity["steps"] or (earlier["steps"] < identity["steps"] and is_steady(recipe))


@dataclass(eq=False)
class _LiveObserver:
    """Shows a training in its status and at the host; keeps the LoRA, the status and the validations on disk."""

    run: RunRecord
    session: TrainingSession
    samples: Conditioning
    prompts: list[str]
    host: Host
    status: LiveStatus
    stop: threading.Event

    @property
    def cancelled(self) -> type[BaseException]:
        return self.host.cancelled

    def on_update(self, result: StepResult) -> None:
        self.status.add_update(result.update, result.losses, self.host.memory_mb())
        if shares := self.session.shares():
            self.status.data["shares"] = shares
        self.host.progress(result.update, self.session.recipe.steps)
        self.host.check()

    def should_stop(self) -> bool:
        return self.stop.is_set()

    def measure_start(self) -> None:
        """The errors before the first update, which tell later whether the student gets closer to its teachers."""
        with listening(told_to(self.host, self.status.show_work), libraries=False):
            self.status.publish(start=self._errors(), work=None)

    def _errors(self) -> dict[str, float | None]:
        recipe, trainer = self.session.recipe, self.session.trainer
        errors: dict[str, float | None] = plain(trainer.validate(min(ERROR_SAMPLES, recipe.batch)))
        return errors

    def on_validate(self) -> None:
        recipe, trainer = self.session.recipe, self.session.trainer
        with listening(told_to(self.host, self.status.show_work), libraries=False):
            errors = self._errors()
            images = validation_pictures(self.session, self.samples)
        folder = self.run.path / "pictures"
        folder.mkdir(exist_ok=True)
        shown = []
        for number, (prompt, image) in enumerate(zip(self.prompts, images, strict=True)):
            file = folder / f"{trainer.update:06d}-{number:02d}.png"
            Image.fromarray(image).save(file)
            shown.append({"prompt": prompt, "url": self.run.url(file.name)})
        self.run.add_validation(trainer.update, errors)
        self.status.publish(
            validation=errors,
            pictures=shown,
            update=trainer.update,
            work=None,
            warning=divergence(self.status.data["start"], errors),
        )
        self.host.progress(trainer.update, recipe.steps)
        self.status.restart_clock()

    def on_save(self, state: RunState) -> None:
        self.run.publish(self.session)
        if health := self.run.folder.health:
            self.status.publish(health={"state": health.state, "verdict": health.verdict()})
            if health.state != "healthy":
                self.status.publish(message=f"the LoRA is {health.verdict()}")
        self.run.write("status.json", {**self.status.data, "state": state})
        self.run.write_card()
        self.status.restart_clock()

    def on_not_saved(self, why: str) -> None:
        self.status.publish(message=why)
