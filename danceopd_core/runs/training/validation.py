"""Validation during a training: which prompts are shown, and their pictures from fixed noise."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ...algorithm.fields import Conditioning, Sample, VelocityField
from ...data.csv_rows import Item
from ...data.images import open_picture, upright
from ...errors import InputError
from ...listening import one_more, work
from ...models.sampling import sample_pictures
from ...weights.adapters import STUDENT
from ..encoded.encoding import encode_for
from ..plans.planning import task_of
from .session import TrainingSession


class ValidationRow(NamedTuple):
    """A prompt whose picture is shown. route: the number of the route whose teacher's picture is beside it; None:
    nobody's."""

    item: Item
    route: int | None = None


@dataclass(frozen=True, eq=False)
class Validation:
    """What is validated, and when.

    prompts: of the pictures; none: an item of each route. sources: pictures that the prompts edit, one for all
    or one each. every: updates between two validations; 0: only at the end.
    """

    prompts: tuple[str, ...] = ()
    sources: tuple[np.ndarray, ...] = ()
    every: int = 0

    def __post_init__(self) -> None:
        if self.sources and not self.prompts:
            raise InputError(
                "validation_sources: they are edited by validation_prompts, and there are none: write one for all, or "
                "one each"
            )
        if self.sources and len(self.sources) not in (1, len(self.prompts)):
            raise InputError(
                f"validation_sources: {len(self.sources)} pictures for {len(self.prompts)} validation_prompts: "
                "give one picture for all of them, or one each"
            )

    def rows(self, session: TrainingSession) -> list[ValidationRow]:
        """The prompts given, each with the first route of its task; without any, the first item of each route that is
        held out of its training, or the first one."""
        if not self.prompts:
            own = [session.plan.items(route.bucket) for route in session.recipe.routes]
            held = [
                next((row for row in rows if row < len(items)), 0)  # a learned router adds prompts behind the bucket's
                for rows, items in zip(session.trainer.held, own, strict=True)
            ]
            return [
                ValidationRow(items[row], number) for number, (items, row) in enumerate(zip(own, held, strict=True))
            ]
        sources = self.sources * len(self.prompts) if len(self.sources) == 1 else self.sources
        items = [Item(prompt, sources[i] if sources else None) for i, prompt in enumerate(self.prompts)]
        tasks = list(session.tasks.values())
        return [ValidationRow(item, tasks.index(kind) if (kind := task_of(item)) in tasks else None) for item in items]

    def digest(self) -> str:
        """SHA-256 of the prompts and sources."""
        content = (self.prompts, [(source.shape, source.tobytes()) for source in self.sources])
        return hashlib.sha256(repr(content).encode()).hexdigest()


def encode_rows(session: TrainingSession, rows: Sequence[ValidationRow]) -> Conditioning:
    """The prompts as conditioning, under which the student and the teachers beside it can be asked."""
    recipe, samples = session.recipe, list[Sample]()
    with work("encoding the validation prompts", len(rows)):
        for row in rows:
            teachers = [] if row.route is None else session.plan.teachers(recipe.routes[row.route])
            own = [row.item], recipe.width, recipe.height
            samples += encode_for(teachers, session.backbone, session.others, *own).samples
            one_more()
    return Conditioning(tuple(samples))


def validation_pictures(session: TrainingSession, samples: Conditioning) -> list[np.ndarray]:
    """The student's picture of each sample, (H, W, 3) uint8; the noise depends on the recipe's seed and the row."""
    every = list(range(len(samples)))
    with session.as_saved(), work("making the validation pictures", _steps(session, [every])):
        found = _pictures(session, session.fields[STUDENT], samples, every)
    return [found[row] for row in every]


def teacher_pictures(
    session: TrainingSession, rows: Sequence[ValidationRow], samples: Conditioning
) -> dict[int, np.ndarray]:
    """By row, the picture of its route's teacher, from the student's noise."""
    routes = session.trainer.routes
    own = [[row for row, of in enumerate(rows) if of.route == number] for number in range(len(routes))]
    found: dict[int, np.ndarray] = {}
    with work("making the teachers' pictures", _steps(session, own)):
        for route, numbers in zip(routes, own, strict=True):
            found |= _pictures(session, route.teacher, samples, numbers)
    return found


def source_pictures(session: TrainingSession, rows: Sequence[ValidationRow]) -> dict[int, np.ndarray]:
    """By row, the picture that its prompt edits, at the size of the run."""
    size = session.recipe.width, session.recipe.height
    return {row: open_picture(of.item.source, *size) for row, of in enumerate(rows) if of.item.source is not None}


def _steps(session: TrainingSession, groups: Sequence[Sequence[int]]) -> int:
    return session.recipe.path_steps * sum(-(-len(group) // session.trainer.micro_batch) for group in groups)


def _pictures(
    session: TrainingSession, field: VelocityField, samples: Conditioning, rows: Sequence[int]
) -> Mapping[int, np.ndarray]:
    recipe = session.recipe
    batches = sample_pictures(
        session.backbone,
        field,
        samples.select(rows),
        [recipe.seed + row for row in rows],
        steps=recipe.path_steps,
        width=recipe.width,
        height=recipe.height,
        batch=session.trainer.micro_batch,
        device=session.device,
        sigmas=session.trainer.sigmas,
        step=lambda index, x: one_more(),
    )
    made = [(image.clamp(0, 1) * 255).round().to(torch.uint8).numpy() for images in batches for image in images]
    return dict(zip(rows, made, strict=True))


def read_pictures(files: Sequence[Path]) -> torch.Tensor:
    """(n, H, W, 3) in [0, 1], as ComfyUI's IMAGE is."""
    return torch.stack([torch.from_numpy(np.array(upright(file))).float() / 255 for file in files])
