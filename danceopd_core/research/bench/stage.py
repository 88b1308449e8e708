"""Opens cells: one model and one exam for all of them, and for each its own network, student, lanes and trainer."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from ...algorithm.fields import Conditioning, VelocityField, guided, mixed
from ...algorithm.profiling import Stopwatch
from ...algorithm.routers import router
from ...algorithm.trainer import RouteData, Settings, Trainer
from ...models.backbone import Backbone
from ...models.registry import open_backbone
from ...runs.opening import DTYPES, open_teachers
from ...shapes import GUIDANCE, locate
from ...shapes.language import EDIT, T2I
from ...shapes.score import Exam
from ...weights.adapters import STUDENT, Adapters
from ...weights.lora import Lora, fresh_lora
from ...weights.lora_io import read_lora
from ..bench import data
from .cells import BARE, BASE, MERGED, REGIMES, SETTINGS, SIZE, START, STEPS, BenchPlan, Trial, teachers_of
from .field_switch import switched
from .forwards import CountedBackbone, Tally
from .merge import merged_lora
from .schedule import last_update, paths


@dataclass(frozen=True, eq=False)
class OpenedTrial:
    """A cell, ready. `fields` are counted by `tally`; trainer: None where nothing is trained."""

    fields: dict[str, VelocityField]
    adapters: Adapters
    tally: Tally
    trainer: Trainer | None

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The student at its moving average."""
        if self.trainer is None or not self.trainer.update:
            yield
            return
        with self.adapters.holding(self.trainer.averaged()):
            yield


class BenchContext:
    """What the cells of a bench share."""

    def __init__(self, plan: BenchPlan, device: torch.device) -> None:
        self.plan, self.device = plan, device
        self.backbone = open_backbone(locate("shapes"), DTYPES[plan.dtype], device)
        self._whole = Exam.of(self.backbone, {T2I: plan.each, EDIT: plan.each}, plan.exam, SIZE, STEPS)
        self._samples: dict[tuple[tuple[str, ...], int, int], Conditioning] = {}

    def exam(self, cell: Trial, brief: bool = False) -> Exam:
        """The same items for every cell, with the noises of its seed; a brief one is the beginning of the whole one."""
        each = self.plan.brief if brief else self.plan.each
        places: dict[str, list[int]] = {category: [] for category in SETTINGS[cell.setting].scored}
        for row, item in enumerate(self._whole.items):
            if item.category in places:
                places[item.category].append(row)
        rows = [places[category][number] for number in range(each) for category in places]
        items, samples = tuple(self._whole.items[row] for row in rows), self._whole.samples.select(rows)
        return replace(self._whole, items=items, samples=samples, seed=self.plan.exam + cell.seed)

    def open(self, cell: Trial) -> OpenedTrial:
        """The cell's fields over a network of its own, and its trainer; targets that teachers draw are counted."""
        setting, how, tally = SETTINGS[cell.setting], cell.approach, Tally()
        network = copy.deepcopy(self.backbone.network)
        backbone = cast(Backbone, CountedBackbone(self.backbone.with_network(network), tally))
        adapters, fields = open_teachers(teachers_of(cell), backbone)
        fields[BARE] = adapters.field(backbone.velocity, None)
        fields.setdefault(BASE, guided(fields[BARE], GUIDANCE))
        if not how.trains:
            named = {MERGED: self._merged, START: self._start}
            for name in {how.field, how.first} & named.keys():
                fields[name] = adapters.field(backbone.velocity, adapters.add_teacher(named[name](cell, adapters)))
            if how.first:
                last = self.sigmas(STEPS)[how.until - 1].item()
                fields[how.field] = switched(fields[how.first], fields[how.field], last)
            return OpenedTrial(fields, adapters, tally, None)
        adapters.start_student(self._start(cell, adapters))
        fields[STUDENT] = adapters.field(backbone.velocity, STUDENT)
        trainer = Trainer(
            adapters,
            fields[STUDENT],
            [self._lane(cell, teacher, fields) for teacher in setting.routes],
            router(how.router, [1.0] * len(setting.routes)),
            how.core_method(),
            self.sigmas(how.rollout_steps),
            backbone.latent_shape(SIZE, SIZE),
            self._settings(cell),
            device=self.device,
        )
        return OpenedTrial(fields, adapters, tally, trainer)

    def pace(self) -> dict[str, float]:
        """Seconds of one sample's forward here, by category: a batch of each kind, the second time."""
        found: dict[str, float] = {}
        for kind in (T2I, EDIT):
            rows = [row for row, item in enumerate(self._whole.items) if item.category in kind][: data.GROUP]
            cond = self._whole.samples.select(rows).to(self.device)
            x = torch.zeros(len(rows), *self.backbone.latent_shape(SIZE, SIZE), device=self.device)
            for _ in range(2):
                watch = Stopwatch(self.device)
                with torch.no_grad():
                    self.backbone.velocity(x, torch.full((len(rows),), 0.5, device=self.device), cond)
                found |= dict.fromkeys(kind, watch.seconds()["total"] / len(rows))
        return found

    def sigmas(self, steps: int) -> Tensor:
        return self.backbone.sigmas(steps, SIZE, SIZE)

    def _settings(self, cell: Trial) -> Settings:
        plan = self.plan
        return Settings(
            last_update(cell, plan, self.sigmas),
            batch=paths(cell, plan).prompts,
            accumulate=1,
            lr=plan.lr,
            schedule="constant_with_warmup",
            warmup=plan.warmup,
            ema=plan.ema,
            seed=cell.seed,
        )

    def _start(self, cell: Trial, adapters: Adapters) -> Lora:
        start = cell.approach.start or SETTINGS[cell.setting].start
        if start == MERGED:
            return self._merged(cell, adapters)
        if start == "fresh":
            generator = torch.Generator().manual_seed(cell.seed)
            rank = self.plan.rank
            return fresh_lora(adapters.shapes, rank, rank, self.backbone.default_targets, generator)
        return read_lora(locate(start), adapters.shapes)

    def _merged(self, cell: Trial, adapters: Adapters) -> Lora:
        """The mean of the teachers' LoRAs; a teacher that is the base has none, and adds nothing to it."""
        teachers = teachers_of(cell)
        files = [locate(teacher.lora) for teacher in teachers.values() if teacher.lora]
        return merged_lora([(read_lora(file, adapters.shapes), 1 / len(teachers)) for file in files])

    def _lane(self, cell: Trial, teacher: str, fields: dict[str, VelocityField]) -> RouteData:
        setting, how, seed = SETTINGS[cell.setting], cell.approach, cell.seed
        regime, categories = REGIMES[how.data], setting.routes[teacher]
        count = self._count(cell, regime.pairs)
        samples, field, clean = self._encoded(categories, count, seed), fields[teacher], None
        if regime.drawn:
            clean = data.drawn(self.backbone, field, samples, SIZE, STEPS, seed, self.device)
        elif regime.pairs:
            items = data.training_items(categories, count, seed)
            pictures = data.targets(items, SIZE, seed, setting.style or "flat")
            clean = data.latents(self.backbone, data.with_faults(pictures, regime.wrong, seed))
        if how.soft:
            field = mixed([(fields[name], 1 / len(setting.routes)) for name in setting.routes])
        if how.method == "joint":
            assert clean is not None  # a regime without targets is refused with the bench's cells
            samples, field = data.with_clean(samples, clean), data.flow_matching
        return RouteData(teacher, field, samples, clean)

    def _count(self, cell: Trial, pairs: float) -> int:
        """Samples in a route's bucket."""
        if not pairs:
            return self.plan.prompts
        if math.isfinite(pairs):
            return int(pairs)
        routes = len(SETTINGS[cell.setting].routes)
        taken = last_update(cell, self.plan, self.sigmas) * self.plan.batch / routes
        return math.ceil(taken + 4 * math.sqrt(taken * self.plan.batch))  # the router's luck, four deviations of it

    def _encoded(self, categories: tuple[str, ...], count: int, seed: int) -> Conditioning:
        key = (categories, count, seed)
        if key not in self._samples:
            items = data.training_items(categories, count, seed)
            self._samples[key] = data.encode(self.backbone, items, SIZE)
        return self._samples[key]
