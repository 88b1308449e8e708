"""The trainer: iterate to train, stop iterating to stop. It prints nothing and saves nothing.

Every random draw comes from a generator made from (seed, what it is for, counters), and the counters are the
trainer's state. So a resumed run is the run that was not interrupted, on any device and in any number of pieces.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ..errors import InputError
from .fields import Conditioning, VelocityField
from .flow import normal
from .methods import Method, state_losses
from .profiling import Stopwatch
from .rollout import Start
from .routers import Router


class Diverged(RuntimeError):
    """The loss or the gradient is no longer a number; the weights are those of the last good update."""


@dataclass(frozen=True, eq=False)
class RouteData:
    """A route, opened: its teacher and its bucket as encoded samples.

    clean: (n, ...) latents of the targets, for a method that needs them.
    """

    name: str
    teacher: VelocityField
    samples: Conditioning
    clean: Tensor | None = None


class Trainable(Protocol):
    """What is trained: a field, its parameters (float32), and its state."""

    def parameters(self) -> list[nn.Parameter]: ...
    def state_dict(self) -> dict[str, Tensor]: ...
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...


@dataclass(frozen=True)
class Settings:
    """steps: optimizer updates. batch: samples of a micro-step. accumulate: micro-steps of a route's update.
    clip: largest gradient norm. warmup: updates. ema: decay of the averaged student, 0 for none."""

    steps: int
    batch: int = 1
    accumulate: int = 4
    lr: float = 2e-4
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float = 1.0
    schedule: str = "constant"
    warmup: int = 0
    ema: float = 0.0
    seed: int = 0


class ProcessGroup(NamedTuple):
    """The processes that train together; `mean` averages tensors over them in place."""

    rank: int = 0
    size: int = 1
    mean: Callable[[Sequence[Tensor]], None] = lambda tensors: None


@dataclass(frozen=True)
class StepResult:
    """One update. losses, errors: by route; error is |v - v_teacher| / |v_teacher| at the queried states.
    indices, sigmas: of this process's queried states. seconds: by phase, and "total"."""

    update: int
    losses: dict[str, float]
    errors: dict[str, float]
    indices: list[int]
    sigmas: list[float]
    grad_norm: float
    lr: float
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def loss(self) -> float:
        return sum(self.losses.values()) / len(self.losses)


class Trainer:
    """Distils the lanes' teachers into the student, by whatever method; knows no model family.

    sigmas: (N + 1,) of the rollout. latent_shape: of one sample. anchor: the field of Flow-OPD's optional anchor.
    """

    def __init__(
        self,
        student: Trainable,
        field: VelocityField,
        lanes: Sequence[RouteData],
        router: Router,
        method: Method,
        sigmas: Tensor,
        latent_shape: Sequence[int],
        settings: Settings,
        *,
        device: torch.device | str = "cpu",
        anchor: VelocityField | None = None,
        world: ProcessGroup | None = None,
    ) -> None:
        from diffusers.optimization import get_scheduler

        for lane in lanes:
            if not len(lane.samples):
                raise InputError(f"route '{lane.name}' has an empty bucket: give it at least one prompt")
            if method.needs_clean and lane.clean is None:
                raise InputError(f"route '{lane.name}' has no target pictures, which this method learns from")
        self.student, self.field, self.lanes, self.router = student, field, tuple(lanes), router
        self.method, self.sigmas, self.shape = method, sigmas.to(device), tuple(latent_shape)
        self.settings, self.device, self.anchor, self.world = settings, device, anchor, world or ProcessGroup()
        self._parameters = student.parameters()
        self._optimizer = torch.optim.AdamW(
            self._parameters, settings.lr, settings.betas, weight_decay=settings.weight_decay
        )
        self._schedule = get_scheduler(
            settings.schedule,
            self._optimizer,
            num_warmup_steps=settings.warmup,
            num_training_steps=settings.steps,
        )
        self._average = [p.detach().clone() for p in self._parameters] if settings.ema else []
        self.update = 0
        self._taken = [0] * len(self.lanes)  # samples each lane has given, over all processes

    def __iter__(self) -> Iterator[StepResult]:
        """One result an update until `settings.steps` of them are done."""
        while self.update < self.settings.steps:
            yield self._step()

    def validate(self, samples: int = 8) -> dict[str, float]:
        """By route, the student's relative velocity error on fixed samples, noises and states of its own paths.

        Comparable over the updates of a run, which the training loss is not: that one is of other states each time.
        """
        with torch.no_grad():
            return {lane.name: self._held_error(number, lane, samples) for number, lane in enumerate(self.lanes)}

    def averaged(self) -> dict[str, Tensor]:
        """The student's state under the moving average; its current state if there is none."""
        state = self.student.state_dict()
        return dict(zip(state, self._average, strict=True)) if self._average else state

    def state_dict(self) -> dict[str, Any]:
        return {
            "update": self.update,
            "taken": list(self._taken),
            "student": self.student.state_dict(),
            "average": list(self._average),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues a run; InputError if the state is of other routes or of another student."""
        if len(state["taken"]) != len(self.lanes) or bool(state["average"]) != bool(self._average):
            raise InputError("the saved state is of other routes or of another ema: resume with the same recipe")
        self.student.load_state_dict(state["student"])
        self.update, self._taken = state["update"], list(state["taken"])
        for own, saved in zip(self._average, state["average"], strict=True):
            own.copy_(saved)
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])

    def _step(self) -> StepResult:
        watch = Stopwatch(self.device)
        self._optimizer.zero_grad(set_to_none=True)  # also of an update that was interrupted
        routes = self.router(self.update, self._generator("route", self.update))
        share = 1 / (len(routes) * self.settings.accumulate)
        losses: dict[str, float] = {}
        errors: dict[str, float] = {}
        indices: list[Tensor] = []
        sigmas: list[Tensor] = []
        for number in routes:
            lane, loss, error, states = self.lanes[number], 0.0, 0.0, 0
            for micro in range(self.settings.accumulate):
                generator = self._generator("micro", self.update, number, micro, self.world.rank)
                start = self._start(number, micro, generator)
                for term in state_losses(
                    self.method,
                    watch.student(self.field),
                    watch.timed("teacher", lane.teacher),
                    start,
                    self.sigmas,
                    generator,
                    self.anchor,
                ):
                    with watch.phase("backward"):
                        (term.loss * share).backward()
                    loss += term.loss.item() / self.settings.accumulate
                    error += term.error.mean().item()
                    states += 1
                    indices.append(term.index)
                    sigmas.append(term.sigma)
            losses[lane.name], errors[lane.name] = loss, error / states
        with watch.phase("optimizer"):
            norm, lr = self._apply(losses)
        # Counted once the update is done: an interrupted one is begun again, with the same samples.
        for number in routes:
            self._taken[number] += self.settings.accumulate * self.world.size * self.settings.batch
        return StepResult(
            self.update,
            losses,
            errors,
            torch.cat(indices).tolist(),
            torch.cat(sigmas).tolist(),
            norm,
            lr,
            watch.seconds(),
        )

    def _apply(self, losses: dict[str, float]) -> tuple[float, float]:
        """Averages the gradients over the processes, clips, steps; (gradient norm before clipping, learning rate)."""
        grads = [p.grad for p in self._parameters if p.grad is not None]
        self.world.mean(grads)
        norm = float(nn.utils.clip_grad_norm_(self._parameters, self.settings.clip))
        if not math.isfinite(norm) or not all(map(math.isfinite, losses.values())):
            raise Diverged(
                f"update {self.update + 1} has loss {losses} and gradient norm {norm}: lower the learning rate "
                "or check the teachers; the weights of the last good update are kept"
            )
        lr = self._optimizer.param_groups[0]["lr"]
        self._optimizer.step()
        self._schedule.step()
        self.update += 1
        if self._average:
            # A young average forgets faster, so that it is not held back by the weights it started from.
            decay = min(self.settings.ema, (1 + self.update) / (10 + self.update))
            torch._foreach_lerp_(self._average, [p.detach() for p in self._parameters], 1 - decay)
        return norm, lr

    def _start(self, number: int, micro: int, generator: torch.Generator) -> Start:
        """The next samples of a lane: shuffled anew each time through, and dealt to the processes in turn."""
        lane, world, batch = self.lanes[number], self.world, self.settings.batch
        first = self._taken[number] + (micro * world.size + world.rank) * batch
        rows = [self._row(number, first + offset) for offset in range(batch)]
        return self._begin(lane, rows, generator)

    def _begin(self, lane: RouteData, rows: list[int], generator: torch.Generator) -> Start:
        noise = normal(torch.empty(len(rows), *self.shape, device=self.device), generator)
        clean = None if lane.clean is None else lane.clean[rows].to(self.device)
        return Start(lane.samples.select(rows).to(self.device), noise, clean)

    def _row(self, number: int, position: int) -> int:
        count = len(self.lanes[number].samples)
        epoch, place = divmod(position, count)
        return int(torch.randperm(count, generator=self._generator("order", number, epoch))[place])

    def _held_error(self, number: int, lane: RouteData, samples: int) -> float:
        generator = self._generator("validation", number)
        rows = [row % len(lane.samples) for row in range(samples)]
        start = self._begin(lane, rows, generator)
        terms = state_losses(self.method, self.field, lane.teacher, start, self.sigmas, generator, self.anchor)
        found = torch.cat([term.error for term in terms])
        return float(found.mean())

    def _generator(self, *key: str | int) -> torch.Generator:
        """A generator of its own for each purpose and moment; on the CPU, so that every device draws the same."""
        return torch.Generator().manual_seed(zlib.crc32(repr((self.settings.seed, *key)).encode()))
