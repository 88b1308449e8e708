"""Opens all that a recipe describes: backbone, teachers, student, encoded buckets, and the Trainer over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from ...algorithm.balance import Balanced
from ...algorithm.fields import VelocityField
from ...algorithm.in_step import InStep
from ...algorithm.relief import empty_caches
from ...algorithm.trainer import ProcessGroup, Trainer
from ...data.cache_folder import CacheFolder, cache_folder, can_be_written, size_limit
from ...data.prompt_assignment import PromptAssignment
from ...data.roots import Roots
from ...models.backbone import Backbone
from ...models.offload import TeacherOffloader
from ...recipe.file_names import is_live
from ...recipe.io import checked
from ...recipe.schema import Recipe
from ...weights.adapters import STUDENT, Adapters
from ...weights.lora import Lora
from ..budget.ladder import Choice, settle
from ..budget.memory import estimate
from ..budget.relief import LadderDown
from ..encoded.encoding import encode_buckets
from ..files.known_models import known_model
from ..files.student_metadata import student_metadata
from ..plans.opening import DTYPES, open_teachers, pick_device, start_student
from ..plans.other_models import OtherModel, load_others, open_others
from ..plans.planning import RunPlan, plan_run
from ..plans.reading_ahead import RememberedLoras
from ..plans.sources import FolderSource, ModelSource
from .compiled import prepared, warm_up
from .session_trainer import build_trainer, measured_on
from .sharding import check_shardable, most, shard


@dataclass(frozen=True, eq=False)
class TrainingSession:
    """An opened recipe. `fields` holds every teacher by its name, with its guidance, and the student as STUDENT.

    assignment: the prompts that the learned router assigned to routes, if the recipe has one. choice: how the run was
    fitted into memory. others: the models that teachers have for themselves, by name.
    """

    plan: RunPlan
    backbone: Backbone
    adapters: Adapters
    fields: dict[str, VelocityField]
    trainer: Trainer
    device: torch.device
    choice: Choice
    assignment: PromptAssignment | None = None
    others: Mapping[str, OtherModel] = field(default_factory=dict)

    @property
    def recipe(self) -> Recipe:
        return self.plan.recipe

    def as_saved(self) -> AbstractContextManager[None]:
        """A block in which the student's field is that of the saved student: its moving average, if there is one."""
        return self.adapters.holding(self.trainer.averaged()) if self.recipe.optimizer.ema else nullcontext()

    def student(self) -> Lora:
        """A copy of the student as it is saved; its moving average if the recipe has one."""
        with self.as_saved():
            return self.adapters.student()

    def errors(self) -> dict[str, float]:
        """By route, the distance of the student, as it is saved, to its teacher.

        It is `Trainer.validate`, which all processes call together.
        """
        with self.as_saved():
            return self.trainer.validate()

    def write_student(self, path: Path, date: str = "", run: str = "", more: Mapping[str, str] | None = None) -> None:
        """Writes the student as one LoRA file for ComfyUI and diffusers.

        date: ISO 8601, run: the id of the run, more: entries, for the file's metadata.
        """
        lora, source = self.student(), self.plan.source
        metadata = student_metadata(
            self.recipe,
            lora,
            family=self.backbone.family,
            title=path.stem,
            date=date,
            update=self.trainer.update,
            run=run,
            tasks=self.tasks,
            base=known_model([*self.recipe.components.values(), self.recipe.model, *source.notes()]),
        )
        source.weights.write_lora(path, lora, {**metadata, **(more or {})})

    def shares(self) -> dict[str, float] | None:
        """The probability of each route now, where the run changes it."""
        router, names = self.trainer.router, [route.name for route in self.recipe.routes]
        return dict(zip(names, router.shares(), strict=True)) if isinstance(router, Balanced) else None

    @property
    def tasks(self) -> dict[str, str]:
        """What each route trains, by its first item: "edit" or "text-to-image"."""
        return self.plan.tasks


def open_session(
    recipe: Recipe,
    processes: ProcessGroup | None = None,
    log: Callable[[str], None] = lambda text: None,
    source: ModelSource | None = None,
    roots: Roots = None,
    resumed: bool = False,
    free: Callable[[torch.device], int | None] | None = None,
    cache: str | Path | None = None,
    sharded: bool = False,
) -> TrainingSession:
    """Opens everything for training. InputError for what does not fit, before a model is loaded where possible.

    Prompts are encoded before the transformer is loaded, so that both are never on the device together.

    processes: the processes that train together; None: this one alone. log: receives a line before each slow part.
    source: of the model; None: what the recipe names. roots: where the buckets' files have to lie; None: anywhere.
    resumed: whether it goes on with an earlier run, whose base keeps its type. free: bytes that are free on a device;
    None: what it reports. cache: the folder where encoded prompts are kept between runs, "off" for none; None: the
    environment's or the system's (`data.cache_folder`). sharded: whether the processes share the weights of the base
    model, each keeping a part.
    """
    if sharded:
        check_shardable(recipe, processes or ProcessGroup())
    kept_in, kept_size = cache_folder(cache), size_limit()
    plan = plan_run(checked(recipe), source, roots).on_own_steps()
    for line in plan.advice():
        log(line)
    recipe, weights, dtype = plan.recipe, plan.source.weights, DTYPES[plan.recipe.dtype]
    plan.query_bins()  # refuses a query range without a state of the path
    device = pick_device(recipe.device)
    alone = processes is None or processes.size == 1  # otherwise processes could choose differently
    choice = settle(
        replace(recipe, memory="manual") if sharded else recipe,
        device,
        lambda: None if is_live(recipe.model) else estimate(recipe),
        free,
        quantise=alone and not resumed and not recipe.compile,
    )
    if told := choice.text():
        log(told)
    if choice.recipe.quantise != recipe.quantise:
        plan = plan.quantised(choice.recipe.quantise)
        recipe = plan.recipe
    log("opening the model")
    encoding = device if choice.encode_on_device else torch.device("cpu")
    backbone = plan.source.open_encoders(dtype, encoding)
    backbone.latent_shape(recipe.width, recipe.height)  # refuses a size that the model does not have
    size = recipe.width, recipe.height
    others = open_others(recipe.teachers, plan.source, backbone, dtype, encoding, size, log)
    remembered = RememberedLoras(weights)
    remembered.read_ahead(recipe, backbone)  # what does not fit is refused before prompts are encoded
    kept = CacheFolder(kept_in, kept_size) if kept_in and can_be_written(kept_in, log) else None
    encoded = encode_buckets(plan, backbone, log, others, processes, kept)
    for opened in (backbone, *(other.backbone for other in others.values())):
        opened.offload_encoders("cpu")
    empty_caches()
    log("loading the transformer")
    # A base that is to be shared may fit no device as a whole.
    backbone = plan.source.load_network(backbone, dtype, torch.device("cpu") if sharded else device)
    others = load_others(others, plan.source, dtype, device)
    files = isinstance(plan.source, FolderSource)
    offloader = TeacherOffloader(device, active=choice.recipe.offload) if choice.recipe.offload or files else None
    adapters, fields = open_teachers(
        recipe.teachers, backbone, offloader, remembered, others, prepared(dtype, device) if recipe.compile else None
    )
    start_student(recipe.student, recipe.seed, backbone, adapters, remembered)
    fields[STUDENT] = adapters.field(backbone.velocity, STUDENT)
    if choice.recipe.gradient_checkpointing:
        weights.enable_checkpointing(backbone.network)
    trained = sum(factor.numel() for factor in adapters.parameters())
    if told := plan.source.make_room(backbone, choice.recipe, trained, [bucket.examples for bucket in encoded.buckets]):
        log(told)
    in_step = None
    if sharded and processes is not None:
        log(f"sharing the base model among {processes.size} processes")
        shard(backbone.network, device, processes.size)
        adapters.to(device)
        in_step = InStep(backbone.network, most(device))
    relief = None
    if recipe.memory == "auto" and not sharded:
        checkpoint = (
            None if choice.recipe.gradient_checkpointing else partial(weights.enable_checkpointing, backbone.network)
        )
        relief = LadderDown(log, checkpoint, offloader if files else None)
    trainer = build_trainer(
        plan, backbone, adapters, fields, encoded, processes, device, relief, choice.micro_batch, in_step
    )
    if relief is not None:
        relief.trainer = trainer
    for line in measured_on(trainer):
        log(line)
    if recipe.compile:
        warm_up(trainer, log)
    return TrainingSession(plan, backbone, adapters, fields, trainer, device, choice, encoded.assignment, others)
