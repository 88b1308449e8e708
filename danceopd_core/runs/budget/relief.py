"""What a run of `memory: auto` gives up when an update runs out of memory: one rung of the ladder at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ...algorithm.relief import OutOfMemory
from ...algorithm.trainer import Trainer
from ...models.offload import TeacherOffloader


@dataclass(eq=False)
class LadderDown:
    """Called by the trainer with the updates done and what the device reported.

    enable_checkpointing: turns it on; None: it is on already. offloader: of full checkpoints; None: there are none.
    OutOfMemory when the last rung is left.
    """

    log: Callable[[str], None]
    enable_checkpointing: Callable[[], None] | None
    offloader: TeacherOffloader | None
    trainer: Trainer | None = None
    _rungs: Iterator[str] | None = field(default=None, repr=False)

    def __call__(self, update: int, reported: str) -> None:
        self._rungs = self._rungs or self._down()
        rung = next(self._rungs, None)
        first = reported.splitlines()[0] if reported else "no more memory"
        if rung is None:
            raise OutOfMemory(
                f"out of memory in update {update + 1}, and nothing is left to turn down: lower width and height, "
                f"student.rank, or give quantise, and start a new run (the device reported: {first})"
            )
        self.log(f"out of memory in update {update + 1}: {rung}, and the update is made again")

    def _down(self) -> Iterator[str]:
        if self.enable_checkpointing is not None:
            self.enable_checkpointing()
            yield "gradient checkpointing from now on"
        if self.offloader is not None and self.offloader.teachers and not self.offloader.active:
            self.offloader.begin()
            yield "full checkpoints wait in host memory from now on"
        trainer = self.trainer
        while trainer is not None and trainer.micro_batch > 1:
            trainer.micro_batch = -(-trainer.micro_batch // 2)
            yield f"{trainer.micro_batch} of the batch of {trainer.settings.batch} at a time from now on"
