"""Opens all that a recipe describes: backbone, teachers, student, encoded buckets, and the Trainer over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from ..algorithm.fields import VelocityField, mixed
from ..algorithm.in_step import InStep
from ..algorithm.routers import router
from ..algorithm.settings import Settings
from ..algorithm.trainer import ProcessGroup, RouteData, Trainer
from ..data.cache_folder import CacheFolder, cache_folder, can_be_written, size_limit
from ..data.prompt_assignment import PromptAssignment
from ..errors import naming
from ..models.backbone import Backbone
from ..models.offload import TeacherOffloader
from ..models.sigma_schedule import path_sigmas
from ..recipe.io import checked
from ..recipe.schema import Recipe, Route
from ..weights.adapters import STUDENT, Adapters
from ..weights.lora import Lora, fresh_lora
from ..weights.lora_io import lora_metadata
from .encoding import EncodedBuckets, encode_buckets
from .opening import DTYPES, open_teachers, pick_device
from .other_models import open_others
from .planning import RunPlan, plan_run, schedule_of
from .sharding import check_shardable, most, shard
from .sources import ModelSource, Weights


@dataclass(frozen=True, eq=False)
class TrainingSession:
    """An opened recipe. `fields` holds every teacher by its name, with its guidance, and the student as STUDENT.

    assignment: the prompts that the learned router assigned to routes, if the recipe has one.
    """

    plan: RunPlan
    backbone: Backbone
    adapters: Adapters
    fields: dict[str, VelocityField]
    trainer: Trainer
    device: torch.device
    assignment: PromptAssignment | None = None

    @property
    def recipe(self) -> Recipe:
        return self.plan.recipe

    def write_student(self, path: Path, date: str = "") -> None:
        """Writes the student as one LoRA file for ComfyUI and diffusers; its moving average if the recipe has one.

        date: ISO 8601, for the file's metadata.
        """
        recipe, trainer = self.recipe, self.trainer
        with self.adapters.holding(trainer.averaged()) if recipe.optimizer.ema else nullcontext():
            lora = self.adapters.student()
        metadata = lora_metadata(
            lora,
            family=self.backbone.family,
            title=path.stem,
            date=date,
            usage_hint=f"{recipe.method}: " + ", ".join(route.name for route in recipe.routes),
            steps=trainer.update,
            learning_rate=recipe.optimizer.lr,
            extra={"recipe": recipe.to_dict(), "digest": recipe.digest(), "update": trainer.update},
        )
        self.plan.source.weights.write_lora(path, lora, metadata)


def open_session(
    recipe: Recipe,
    processes: ProcessGroup | None = None,
    log: Callable[[str], None] = lambda text: None,
    source: ModelSource | None = None,
    cache: str | Path | None = None,
    sharded: bool = False,
) -> TrainingSession:
    """Opens everything for training. InputError for what does not fit, before a model is loaded where possible.

    processes: the processes that train together; None: this one alone. log: receives a line before each slow part.
    source: of the model; None: what the recipe names. cache: the folder where encoded prompts are kept between runs,
    "off" for none; None: the environment's or the system's (`data.cache_folder`). sharded: whether the processes share
    the weights of the base model, each keeping a part.
    """
    if sharded:
        check_shardable(recipe, processes or ProcessGroup())
    kept_in, kept_size = cache_folder(cache), size_limit()
    plan = plan_run(checked(recipe), source)
    recipe, weights = plan.recipe, plan.source.weights
    plan.query_bins()  # refuses a query range without a state of the path
    device = pick_device(recipe.device)
    log("opening the model")
    # A base that is to be shared may fit no device as a whole.
    backbone = plan.source.open(DTYPES[recipe.dtype], "cpu" if sharded else device)
    backbone.latent_shape(recipe.width, recipe.height)  # refuses a size that the model does not have
    size = recipe.width, recipe.height
    others = open_others(recipe.teachers, plan.source, backbone, DTYPES[recipe.dtype], device, size, log)
    offloader = TeacherOffloader(device) if recipe.offload else None
    adapters, fields = open_teachers(recipe.teachers, backbone, offloader, weights, others)
    start = _student_start(recipe, backbone, adapters, weights)
    with naming("student.base_lora"):
        base_lora = recipe.student.base_lora
        adapters.start_student(start, weights.read_lora(base_lora, backbone, adapters.shapes) if base_lora else None)
    fields[STUDENT] = adapters.field(backbone.velocity, STUDENT)
    if sharded:
        backbone.offload_encoders(device)
    kept = CacheFolder(kept_in, kept_size) if kept_in and can_be_written(kept_in, log) else None
    encoded = encode_buckets(plan, backbone, log, others, processes, kept)
    for opened in (backbone, *(other.backbone for other in others.values())):
        opened.offload_encoders("cpu")
    if recipe.gradient_checkpointing:
        weights.enable_checkpointing(backbone.network)
    trained = sum(factor.numel() for factor in adapters.parameters())
    if told := plan.source.make_room(backbone, recipe, trained, [bucket.examples for bucket in encoded.buckets]):
        log(told)
    if sharded and processes is not None:
        log(f"sharing the base model among {processes.size} processes")
        shard(backbone.network, device, processes.size)
        adapters.to(device)
    in_step = InStep(backbone.network, most(device)) if sharded else None
    trainer = _trainer(plan, backbone, adapters, fields, encoded, processes, device, in_step)
    return TrainingSession(plan, backbone, adapters, fields, trainer, device, encoded.assignment)


def _student_start(recipe: Recipe, backbone: Backbone, adapters: Adapters, weights: Weights) -> Lora:
    student = recipe.student
    if student.start != "fresh":
        with naming("student.start"):
            return weights.read_lora(student.start, backbone, adapters.shapes)
    generator = torch.Generator().manual_seed(recipe.seed)
    targets = student.targets or backbone.default_targets
    with naming("student.targets"):
        return fresh_lora(adapters.shapes, student.rank, student.alpha or student.rank, targets, generator)


def _trainer(
    plan: RunPlan,
    backbone: Backbone,
    adapters: Adapters,
    fields: Mapping[str, VelocityField],
    encoded: EncodedBuckets,
    processes: ProcessGroup | None,
    device: torch.device,
    in_step: InStep | None,
) -> Trainer:
    recipe = plan.recipe
    size = recipe.rollout_steps, recipe.width, recipe.height
    return Trainer(
        adapters,
        fields[STUDENT],
        [
            RouteData(route.name, _route_field(route, fields), bucket.samples, bucket.clean)
            for route, bucket in zip(recipe.routes, encoded.buckets, strict=True)
        ],
        router(recipe.router, [route.weight for route in recipe.routes]),
        plan.method,
        path_sigmas(schedule_of(recipe), size[0], lambda: backbone.sigmas(*size)),
        backbone.latent_shape(recipe.width, recipe.height),
        _settings(recipe),
        device=device,
        anchor=adapters.field(backbone.velocity, None) if recipe.anchor else None,
        processes=processes,
        in_step=in_step,
    )


def _route_field(route: Route, fields: Mapping[str, VelocityField]) -> VelocityField:
    if isinstance(route.teacher, str):
        return fields[route.teacher]
    return mixed([(fields[name], weight) for name, weight in route.teacher.items()])


def _settings(recipe: Recipe) -> Settings:
    optimizer = recipe.optimizer
    return Settings(
        steps=recipe.steps,
        batch=recipe.batch,
        accumulate=recipe.accumulate,
        lr=optimizer.lr,
        weight_decay=optimizer.weight_decay,
        betas=optimizer.betas,
        clip=optimizer.clip,
        schedule=optimizer.schedule,
        warmup=optimizer.warmup,
        ema=optimizer.ema,
        seed=recipe.seed,
    )
