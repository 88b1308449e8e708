"""The trainer: iterate to train, stop iterating to stop. It prints nothing and saves nothing.

Every random draw comes from a generator made from (seed, what it is for, counters), and the counters are the
trainer's state. So a resumed run is the run that was not interrupted, on any device and in any number of pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..signals import held
from .attention import sound_attention, with_sound_attention
from .balance import Balanced
from .draws import Draws, RouteData
from .fields import VelocityField
from .held_out import held_rows, measured_rows
from .in_step import InStep
from .measuring import Measurement
from .methods import Method, StateLoss, state_losses
from .profiling import Stopwatch
from .relief import OutOfMemory, Relief, empty_caches, ran_out_of_memory
from .rollout import Start
from .routers import Router
from .sampling_order import seeded_generator
from .settings import Settings
from .step_result import StepResult, told_of
from .updates import Diverged, Updater

__all__ = ["Diverged", "ProcessGroup", "RouteData", "Settings", "StepResult", "Trainable", "Trainer"]

LOSS_SCALE_STEP = 4
"""By how much the loss scale falls when gradients overflow."""


class Trainable(Protocol):
    """What is trained: a field, its parameters (float32), and its state."""

    def parameters(self) -> list[nn.Parameter]: ...
    def state_dict(self) -> dict[str, Tensor]: ...
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...


class ProcessGroup(NamedTuple):
    """The processes that train together. mean: averages tensors over them in place. share: the main one's value."""

    rank: int = 0
    size: int = 1
    mean: Callable[[Sequence[Tensor]], None] = lambda tensors: None
    share: Callable[[Any], Any] = lambda value: value


class Trainer:
    """Distils the teachers of the routes into the student, with any method; independent of the model family.

    field: the student's velocity. sigmas: (N + 1,) of the rollout. latent_shape: of one sample. latent_shapes: all that
    samples may have, where routes have `sizes`; the first is `latent_shape`. anchor: the field of
    Flow-OPD's optional anchor. processes: the processes that train together; None: this one alone. relief: called when
    an update runs out of memory, which is then repeated; None: the run ends. micro_batch: samples of a forward pass;
    the parts of a batch draw what the whole batch draws. loss_scale: a power of two that keeps the gradients of a
    network in float16 from vanishing; it falls, and the update is repeated, when they overflow. in_step: keeps the
    processes in step where they share the network's weights.

    last: the result of the last update, even if what interrupted the training did so before it was given. held: by
    route, the rows that are kept out of training.
    """

    def __init__(
        self,
        student: Trainable,
        field: VelocityField,
        routes: Sequence[RouteData],
        router: Router,
        method: Method,
        sigmas: Tensor,
        latent_shape: Sequence[int],
        settings: Settings,
        *,
        device: torch.device | str = "cpu",
        anchor: VelocityField | None = None,
        processes: ProcessGroup | None = None,
        relief: Relief | None = None,
        micro_batch: int | None = None,
        loss_scale: float = 1.0,
        in_step: InStep | None = None,
        latent_shapes: Sequence[Sequence[int]] = (),
    ) -> None:
        for route in routes:
            if not len(route.samples):
                raise InputError(f"route '{route.name}' has an empty bucket: give it at least one prompt")
            if method.needs_clean and route.clean is None:
                raise InputError(
                    f"route '{route.name}' has no target pictures, which this method learns from: add targets, or "
                    "choose another method"
                )
        self.student, self.field, self.routes, self.router = student, field, tuple(routes), router
        self.method, self.sigmas, self.shape = method, sigmas.to(device), tuple(latent_shape)
        self.settings, self.device, self.anchor = settings, device, anchor
        self.processes, self._in_step = processes or ProcessGroup(), in_step
        self.last: StepResult | None = None
        self.relief, self.micro_batch, self.loss_scale = relief, micro_batch or settings.batch, loss_scale
        self.held = [held_rows(settings.seed, len(route.samples), settings.held_out) for route in self.routes]
        self._updater = Updater(student.parameters(), settings)
        self.draws = Draws(
            self.routes,
            latent_shapes or [self.shape],
            settings,
            device,
            self.processes.rank,
            self.processes.size,
            self.held,
        )

    @property
    def update(self) -> int:
        """Updates that the student has had."""
        return self._updater.update

    @property
    def torn(self) -> bool:
        """Whether an update failed while it was applied: then the state is that of no update, and not to be saved."""
        return self._updater.torn

    def __iter__(self) -> Iterator[StepResult]:
        """One result per update until `settings.steps` of them are done."""
        while self.update < self.settings.steps:
            if isinstance(self.router, Balanced) and self.router.is_due(self.update):
                self.router.learn(self.update, list(self.validate().values()))
            yield self._repeated()

    def validate(self) -> dict[str, float]:
        """By route, the student's relative velocity error on the rows that are held out, at fixed noises and states.

        Comparable over the updates of a run, unlike the training loss, which is of other states in each update. On
        rows that are trained where none are held out. All processes call it together, each for its part of the rows,
        and get the same.
        """
        # Processes that share the network's weights ask it together, so each of them measures all rows.
        rank, size = (self.processes.rank, self.processes.size) if self._in_step is None else (0, 1)
        rows = [measured_rows(held, len(of.samples), of.sizes) for held, of in zip(self.held, self.routes, strict=True)]
        how = Measurement(
            self.method,
            self.field,
            self.anchor,
            self.sigmas,
            self.draws.start,
            self.micro_batch,
            self.settings.seed,
        )
        errors = how.errors(self.routes, rows, rank, size)
        self.processes.mean([errors])
        by_route = (errors * size).split(list(map(len, rows)))
        return {route.name: float(of.mean()) for route, of in zip(self.routes, by_route, strict=True)}

    def averaged(self) -> dict[str, Tensor]:
        """The student's state under the moving average; its current state if the settings have no average."""
        state = self.student.state_dict()
        average = self._updater.average
        return dict(zip(state, average, strict=True)) if average else state

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run continues from, as tensors and plain values."""
        return {
            **self._updater.state_dict(),
            "taken": list(self.draws.order.taken),
            "student": self.student.state_dict(),
            **({} if self.loss_scale == 1 else {"loss_scale": self.loss_scale}),
            **({"router": self.router.state_dict()} if isinstance(self.router, Balanced) else {}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues a run; InputError if the state is of other routes or of another student."""
        if len(state["taken"]) != len(self.routes) or bool(state["average"]) != bool(self._updater.average):
            raise InputError("the saved state is of other routes or of another ema: resume with the same recipe")
        self.student.load_state_dict(state["student"])
        self.draws.order.taken = list(state["taken"])
        self.loss_scale = state.get("loss_scale", self.loss_scale)
        if isinstance(self.router, Balanced):
            self.router.load_state_dict(state["router"])
        self._updater.load_state_dict(state)

    def _repeated(self) -> StepResult:
        """The next update, made again after memory ran out or scaled gradients overflowed.

        It is the same update: its draws depend on counters that move with the update alone.
        """
        while True:
            try:
                return self._step()
            except Diverged:
                if self.loss_scale <= 1:
                    raise
                self.loss_scale = max(1.0, self.loss_scale / LOSS_SCALE_STEP)
                continue
            except (RuntimeError, MemoryError) as error:
                if self.relief is None or isinstance(error, OutOfMemory) or not ran_out_of_memory(error) or self.torn:
                    raise
                reported = str(error)
            # Out of the handler, where the error's frames would hold the tensors of the update.
            self._updater.clear_gradients()
            empty_caches()
            self.relief(self.update, reported)

    def _step(self) -> StepResult:
        watch = Stopwatch(self.device)
        self._updater.clear_gradients()  # an update that was interrupted has left some
        chosen = self.router(self.update, self._generator("route", self.update))
        share = 1 / (len(chosen) * self.settings.accumulate)
        terms: dict[str, list[StateLoss]] = {}
        for place, number in enumerate(chosen):
            route = self.routes[number]
            terms[route.name] = []
            for micro, part in self._passes():
                # Every part of a batch draws as the whole batch does, from the same generator.
                generator = self._generator("micro", self.update, number, micro, self.processes.rank)
                start = self.draws.start(number, self.draws.order.rows(number, micro), generator)
                if part.stop == self.settings.batch:
                    self.draws.look_ahead(chosen, place, micro, self._following)
                weight = len(part) / self.settings.batch
                student = watch.student(with_sound_attention(self.field))
                teacher = watch.timed("teacher", route.teacher)
                for term in self._terms(student, teacher, start, generator, part if weight < 1 else None):
                    with watch.phase("backward"), sound_attention():
                        (term.loss * (share * weight * self.loss_scale)).backward()
                    terms[route.name].append(term.detached())
        with watch.phase("optimizer"):
            self.processes.mean(self._updater.gradients())
            if self.loss_scale != 1:
                torch._foreach_mul_(self._updater.gradients(), 1 / self.loss_scale)
            self._updater.reserve()
            told = told_of(terms, self.settings.accumulate, self.settings.batch, self._updater.clip())
        with held():  # an update is applied and counted as a whole
            with watch.phase("optimizer"):
                lr = self._updater.apply(told.losses, told.grad_norm)
            for number in chosen:
                self.draws.order.advance(number, self.settings.accumulate)
            self.last = StepResult(self.update, *told, lr, watch.seconds())
        return self.last

    def _passes(self) -> Iterator[tuple[int, range]]:
        """The micro-steps of a route's update, each with the rows of its batch that go through the network together."""
        for micro in range(self.settings.accumulate):
            for first in range(0, self.settings.batch, self.micro_batch):
                yield micro, range(first, min(first + self.micro_batch, self.settings.batch))

    def _terms(
        self,
        student: VelocityField,
        teacher: VelocityField,
        start: Start,
        generator: torch.Generator,
        part: range | None,
    ) -> Iterator[StateLoss]:
        method, anchor, in_step = self.method, self.anchor, self._in_step
        if in_step is not None:
            method, student, teacher = in_step.method(method), in_step.student(student), in_step.teacher(teacher)
            anchor = anchor and in_step.teacher(anchor)
        return state_losses(method, student, teacher, start, self.sigmas, generator, anchor, part)

    def _following(self) -> int | None:
        """The first route of the next update; None after the last."""
        later = self.update + 1
        return self.router(later, self._generator("route", later))[0] if later < self.settings.steps else None

    def _generator(self, *key: str | int) -> torch.Generator:
        return seeded_generator(self.settings.seed, *key)
