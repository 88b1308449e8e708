"""What a training of the Train node shows and keeps beside its state: status, validations, pictures, LoRA and card."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from ...algorithm.fields import Conditioning
from ...algorithm.trainer import StepResult
from ...listening import listening
from ..live.host import Host, told_to
from ..live.live_status import LiveStatus
from ..live.strip import StripRow
from ..stored.publishing import saved_facts
from ..stored.records import RunRecord
from ..training.divergence import divergence
from ..training.loop import RunState
from ..training.session import TrainingSession
from ..training.validation import ValidationRow, source_pictures, teacher_pictures, validation_pictures
from ..training.validations import Validations


@dataclass(eq=False)
class LiveObserver:
    """Shows a training in its status and at the host; keeps the LoRA, the status and the validations on disk.

    stop: is set when the user stops the run. rows, samples: of the validation pictures.
    """

    run: RunRecord
    session: TrainingSession
    rows: list[ValidationRow]
    samples: Conditioning
    host: Host
    status: LiveStatus
    stop: threading.Event
    validations: Validations = field(init=False)

    def __post_init__(self) -> None:
        self.validations = Validations(self.session, self.run.folder)

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

    def begin(self, watch: str) -> None:
        """What is there before the first update of this process: the errors of the start, by which it is told later
        whether the student gets closer to its teachers, and the pictures beside the student's.

        watch: a digest of what is validated.
        """
        trainer, routes = self.session.trainer, self.session.recipe.routes
        held = zip(routes, trainer.held, strict=True)
        self.status.publish(
            watched=[route.name for route in routes if route.name not in self.validations.trained],
            held_out={route.name: len(rows) for route, rows in held},
        )
        rows = [StripRow(item.prompt, None if of is None else routes[of].name) for item, of in self.rows]
        goes_on = self.run.strip.begin(rows, watch, trainer.update)
        with listening(told_to(self.host, self.status.show_work), libraries=False):
            if not trainer.update:
                self.validations.measure_start()
                self.run.strip.add(0, validation_pictures(self.session, self.samples))
            if not goes_on or self.run.strip.lacks_teachers():
                self.run.strip.add_beside("source", source_pictures(self.session, self.rows))
                self.run.strip.add_beside("teacher", teacher_pictures(self.session, self.rows, self.samples))
        best = self.validations.best()
        self.status.publish(start=self.run.start(), best=best and best._asdict(), work=None)
        self.status.restart_clock()

    def on_validate(self) -> None:
        recipe, trainer = self.session.recipe, self.session.trainer
        with listening(told_to(self.host, self.status.show_work), libraries=False):
            errors, best = self.validations.measure()
            images = validation_pictures(self.session, self.samples)
        files = self.run.strip.add(trainer.update, images)
        self.run.strip.thin(best and best.update)
        prompts = [row.item.prompt for row in self.rows]
        self.status.publish(
            validation=errors,
            best=best and best._asdict(),
            pictures=[{"prompt": p, "url": self.run.url(f)} for p, f in zip(prompts, files, strict=True)],
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
        if state != "training":
            self.status.data["saved"] = saved_facts(self.run)
        self.run.write("status.json", {**self.status.data, "state": state})
        self.run.write_card()
        self.status.restart_clock()

    def on_not_saved(self, why: str) -> None:
        self.status.publish(message=why)
