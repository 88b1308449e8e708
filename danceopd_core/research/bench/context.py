"""Opens trials: one base model and held-out set for all, and for each its own network, student, data and trainer."""

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
from ...recipe.schema import HELD_OUT
from ...runs.plans.opening import DTYPES, open_teachers
from ...shapes import GUIDANCE, locate
from ...shapes.language import EDIT, T2I
from ...shapes.score import HeldOutSet
from ...weights.adapters import STUDENT, Adapters
from ...weights.lora import Lora, fresh_lora
from ...weights.lora_io import read_lora
from ..bench import trial_data
from .field_switch import switched
from .forwards import CountedBackbone, ForwardCounter
from .merge import merged_lora
from .schedule import last_update, paths
from .trials import BASE, INITIAL, MERGED, REGIMES, SIZE, STEPS, TASKS, UNGUIDED_BASE, BenchPlan, Trial, teachers_of


@dataclass(frozen=True, eq=False)
class OpenedTrial:
    """A trial, ready to run. The forwards of `fields` are counted by `counter`. trainer: None if nothing is trained."""

    fields: dict[str, VelocityField]
    adapters: Adapters
    counter: ForwardCounter
    trainer: Trainer | None

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The student with the moving average of its weights."""
        if self.trainer is None or not self.trainer.update:
            yield
            return
        with self.adapters.holding(self.trainer.averaged()):
            yield


class BenchContext:
    """What the trials of a bench share: base model, held-out items and encoded training items."""

    def __init__(self, plan: BenchPlan, device: torch.device) -> None:
        self.plan, self.device = plan, device
        self.backbone = open_backbone(locate("shapes"), DTYPES[plan.dtype], device)
        counts: dict[tuple[str, ...], int] = {T2I: plan.items, EDIT: plan.items}
        self._held_out_set = HeldOutSet.of(self.backbone, counts, plan.eval_seed, SIZE, STEPS)
        self._encoded: dict[tuple[tuple[str, ...], int, int], Conditioning] = {}

    def held_out_set(self, trial: Trial, curve_only: bool = False) -> HeldOutSet:
        """The same items for every trial of a task, with the noise of the trial's seed.

        The set for a point of the curve is the beginning of the whole one.
        """
        count = self.plan.curve_items if curve_only else self.plan.items
        by_category: dict[str, list[int]] = {category: [] for category in TASKS[trial.task].scored}
        for row, item in enumerate(self._held_out_set.items):
            if item.category in by_category:
                by_category[item.category].append(row)
        rows = [of_category[number] for number in range(count) for of_category in by_category.values()]
        items = tuple(self._held_out_set.items[row] for row in rows)
        samples, seed = self._held_out_set.samples.select(rows), self.plan.eval_seed + trial.seed
        return replace(self._held_out_set, items=items, samples=samples, seed=seed)

    def open(self, trial: Trial) -> OpenedTrial:
        """The trial's fields over its own copy of the network, and its trainer.

        Forwards with which teachers generate targets are counted.
        """
        task, config, counter = TASKS[trial.task], trial.config, ForwardCounter()
        network = copy.deepcopy(self.backbone.network)
        backbone = cast(Backbone, CountedBackbone(self.backbone.with_network(network), counter))
        adapters, fields = open_teachers(teachers_of(trial), backbone)
        fields[UNGUIDED_BASE] = adapters.field(backbone.velocity, None)
        fields.setdefault(BASE, guided(fields[UNGUIDED_BASE], GUIDANCE))
        if not config.trains:
            loras = {MERGED: self._merged, INITIAL: self._initial}
            for name in {config.field, config.first_field} & loras.keys():
                lora = adapters.add_teacher(loras[name](trial, adapters))
                fields[name] = adapters.field(backbone.velocity, lora)
            if config.first_field:
                last_sigma = self.sigmas(STEPS)[config.switch_step - 1].item()
                fields[config.field] = switched(fields[config.first_field], fields[config.field], last_sigma)
            return OpenedTrial(fields, adapters, counter, None)
        adapters.start_student(self._initial(trial, adapters))
        fields[STUDENT] = adapters.field(backbone.velocity, STUDENT)
        trainer = Trainer(
            adapters,
            fields[STUDENT],
            [self._route(trial, teacher, fields) for teacher in task.routes],
            router(config.router, [1.0] * len(task.routes)),
            config.core_method(),
            self.sigmas(config.rollout_steps),
            backbone.latent_shape(SIZE, SIZE),
            self._settings(trial),
            device=self.device,
        )
        return OpenedTrial(fields, adapters, counter, trainer)

    def seconds_per_forward(self) -> dict[str, float]:
        """Seconds of one sample's forward by category, measured on the second of two batches of each kind."""
        seconds: dict[str, float] = {}
        for kind in (T2I, EDIT):
            rows = [row for row, item in enumerate(self._held_out_set.items) if item.category in kind]
            cond = self._held_out_set.samples.select(rows[: trial_data.BATCH]).to(self.device)
            count = len(rows[: trial_data.BATCH])
            x = torch.zeros(count, *self.backbone.latent_shape(SIZE, SIZE), device=self.device)
            for _ in range(2):
                watch = Stopwatch(self.device)
                with torch.no_grad():
                    self.backbone.velocity(x, torch.full((count,), 0.5, device=self.device), cond)
                seconds |= dict.fromkeys(kind, watch.seconds()["total"] / count)
        return seconds

    def sigmas(self, steps: int) -> Tensor:
        return self.backbone.sigmas(steps, SIZE, SIZE)

    def _settings(self, trial: Trial) -> Settings:
        plan = self.plan
        return Settings(
            last_update(trial, plan, self.sigmas),
            batch=paths(trial, plan).prompts,
            accumulate=1,
            lr=plan.lr if trial.config.lr is None else trial.config.lr,
            schedule="constant_with_warmup",
            warmup=plan.warmup,
            ema=plan.ema,
            seed=trial.seed,
            held_out=HELD_OUT if trial.config.router == "balanced" else 0.0,  # which it measures on
        )

    def _initial(self, trial: Trial, adapters: Adapters) -> Lora:
        name = trial.config.initial_lora or TASKS[trial.task].initial_lora
        if name == MERGED:
            return self._merged(trial, adapters)
        if name == "fresh":
            generator, rank = torch.Generator().manual_seed(trial.seed), self.plan.rank
            return fresh_lora(adapters.shapes, rank, rank, self.backbone.default_targets, generator)
        return read_lora(locate(name), adapters.shapes)

    def _merged(self, trial: Trial, adapters: Adapters) -> Lora:
        """The mean of the teachers' LoRAs; a teacher that is the base itself counts as a LoRA of zeros."""
        teachers = teachers_of(trial)
        files = [locate(teacher.lora) for teacher in teachers.values() if teacher.lora]
        return merged_lora([(read_lora(file, adapters.shapes), 1 / len(teachers)) for file in files])

    def _route(self, trial: Trial, teacher: str, fields: dict[str, VelocityField]) -> RouteData:
        task, config, seed = TASKS[trial.task], trial.config, trial.seed
        regime, categories = REGIMES[config.regime], task.routes[teacher]
        count = self._bucket_size(trial, regime.pairs)
        samples, field, clean = self._training_samples(categories, count, seed), fields[teacher], None
        if regime.teacher_generated:
            clean = trial_data.generated_latents(self.backbone, field, samples, SIZE, STEPS, seed, self.device)
        elif regime.pairs:
            items = trial_data.training_items(categories, count, seed)
            images = trial_data.target_images(items, SIZE, seed, task.style or "flat")
            clean = trial_data.encode_images(self.backbone, trial_data.with_faults(images, regime.wrong_fraction, seed))
        if config.mix_teachers:
            field = mixed([(fields[name], 1 / len(task.routes)) for name in task.routes])
        if config.method == "joint":
            assert clean is not None  # every bench gives joint training a regime with targets
            samples, field = trial_data.with_clean(samples, clean), trial_data.flow_matching
        return RouteData(teacher, field, samples, clean)

    def _bucket_size(self, trial: Trial, pairs: float) -> int:
        """Samples of a route; for unlimited pairs, more than the router will take."""
        if not pairs:
            return self.plan.prompts
        if math.isfinite(pairs):
            return int(pairs)
        routes = len(TASKS[trial.task].routes)
        expected = last_update(trial, self.plan, self.sigmas) * self.plan.batch / routes
        return math.ceil(expected + 4 * math.sqrt(expected * self.plan.batch))  # four standard deviations

    def _training_samples(self, categories: tuple[str, ...], count: int, seed: int) -> Conditioning:
        key = (categories, count, seed)
        if key not in self._encoded:
            items = trial_data.training_items(categories, count, seed)
            self._encoded[key] = trial_data.encode(self.backbone, items, SIZE)
        return self._encoded[key]
