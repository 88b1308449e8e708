"""Opens what a recipe describes: backbone, teachers, student, encoded buckets, and the Trainer over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..algorithm.fields import Conditioning, VelocityField, guided, mixed
from ..algorithm.losses import ClippedPolicy, OdeKl
from ..algorithm.methods import Method, method
from ..algorithm.query import QUERIES, Beta, BySigma, QueryBin, QuerySampler, Uniform, query_distribution
from ..algorithm.rollout import Sde
from ..algorithm.routers import router
from ..algorithm.trainer import ProcessGroup, RouteData, Settings, Trainer
from ..data.buckets import load_bucket
from ..data.csv_rows import Item
from ..data.images import open_picture
from ..data.prompt_assignment import Encoded, Routing, assign_prompts
from ..errors import InputError
from ..lookup import lookup
from ..models.backbone import Backbone
from ..models.hub import fetched, is_hub_id
from ..models.offload import TeacherOffloader
from ..models.registry import open_backbone
from ..models.sigma_schedule import folder_sigmas, path_sigmas
from ..recipe.schema import Bucket, LearnedRouter, Recipe, Route, Teacher
from ..shapes import locate
from ..weights.adapters import STUDENT, Adapters
from ..weights.full_checkpoints import load_full_checkpoint
from ..weights.lora import fresh_lora
from ..weights.lora_io import lora_metadata, read_lora, write_lora
from .preflight import preflight

Tell = Callable[[str], None]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, eq=False)
class TrainingSession:
    """A recipe, opened. `fields` holds every teacher by its name, guidance included, and the student as STUDENT.

    routing: what the learned router did, if the recipe has one.
    """

    recipe: Recipe
    backbone: Backbone
    adapters: Adapters
    fields: dict[str, VelocityField]
    trainer: Trainer
    device: torch.device
    routing: Routing | None = None

    def write_student(self, path: Path, date: str = "") -> None:
        """The student as one LoRA file that ComfyUI and diffusers load; its moving average if the recipe keeps one."""
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
        write_lora(path, lora, metadata)


def pick_device(name: str) -> torch.device:
    """The device of that name; "auto" is the fastest kind there is."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def open_session(recipe: Recipe, world: ProcessGroup | None = None, tell: Tell = lambda text: None) -> TrainingSession:
    """Everything ready to train; InputError, before any model is loaded where that can be, for what does not fit."""
    preflight(recipe)
    query_sigmas(recipe)
    device = pick_device(recipe.device)
    tell("opening the model")
    backbone = open_model(recipe.model, recipe.components, DTYPES[recipe.dtype], device, recipe.quantise)
    backbone.latent_shape(recipe.width, recipe.height)
    adapters, fields = open_teachers(recipe.teachers, backbone, TeacherOffloader(device) if recipe.offload else None)
    over = recipe.student.over
    adapters.start_student(
        _start(recipe, backbone, adapters), read_lora(locate(over), adapters.shapes) if over else None
    )
    fields[STUDENT] = adapters.field(backbone.velocity, STUDENT)
    chosen = build_method(recipe)
    parts = []
    for route in recipe.routes:
        tell(f"encoding the bucket of '{route.name}'")
        parts.append(_encoded(route.bucket, recipe, backbone, _negatives(route, recipe), chosen.needs_clean))
    routing = None
    if recipe.learned_router is not None:
        tell("encoding the prompts that have no route")
        parts, routing = _joined(recipe.learned_router, parts, recipe, backbone, chosen.needs_clean)
        tell(routing.text())
    backbone.offload_encoders("cpu")
    if recipe.gradient_checkpointing:
        backbone.network.enable_gradient_checkpointing()  # type: ignore[operator]
    size = recipe.rollout_steps, recipe.width, recipe.height
    trainer = Trainer(
        adapters,
        fields[STUDENT],
        [
            RouteData(route.name, _field(route, fields), part.samples, part.clean)
            for route, part in zip(recipe.routes, parts, strict=True)
        ],
        router(recipe.router, [route.weight for route in recipe.routes]),
        chosen,
        path_sigmas(_schedule(recipe), size[0], lambda: backbone.sigmas(*size)),
        backbone.latent_shape(recipe.width, recipe.height),
        _settings(recipe),
        device=device,
        anchor=adapters.field(backbone.velocity, None) if recipe.anchor else None,
        world=world,
    )
    return TrainingSession(recipe, backbone, adapters, fields, trainer, device, routing)


def build_method(recipe: Recipe) -> Method:
    """The recipe's row of METHODS with its own query and knobs."""
    chosen = method(recipe.method)
    changes: dict[str, Any] = {}
    if isinstance(chosen.objective, ClippedPolicy):
        eta = chosen.objective.eta if recipe.eta is None else recipe.eta
        changes |= {"states": Sde(eta), "objective": ClippedPolicy(eta, anchor=recipe.anchor)}
        if recipe.group is not None:
            changes["group"] = recipe.group
    elif recipe.eta is not None or recipe.group is not None or recipe.anchor:
        raise InputError(f"eta, group and anchor are knobs of flowopd; the method is {recipe.method}")
    if isinstance(chosen.objective, OdeKl):
        changes["objective"] = OdeKl(recipe.ode_kl_weight)
    if recipe.method in ("danceopd", "offpolicy"):
        changes["query"] = _query(recipe)
    return method(recipe.method, **changes)


def query_sigmas(recipe: Recipe) -> list[QueryBin]:
    """Where the teachers will be asked, from the model's configuration files alone; InputError if nowhere."""
    size = recipe.rollout_steps, recipe.width, recipe.height
    sigmas = path_sigmas(
        _schedule(recipe), size[0], lambda: folder_sigmas(model_folder(recipe.model, recipe.components), *size)
    )
    return query_distribution(build_method(recipe).query, sigmas)


def _schedule(recipe: Recipe) -> str | float:
    return recipe.sigmas if isinstance(recipe.sigmas, str) else recipe.sigmas.shift


def _query(recipe: Recipe) -> QuerySampler:
    query = recipe.query
    if query.sigma:
        return BySigma(*query.sigma, query.k)
    found = lookup(QUERIES, query.bias, "query bias")
    return replace(found, k=query.k) if isinstance(found, Beta | Uniform) else found


def model_folder(name: str, components: Mapping[str, str]) -> Path:
    """Where a recipe's model lies on this machine; a Hugging Face id is fetched where it is not there yet."""
    return fetched(name, components) if is_hub_id(name) else locate(name)


def open_model(
    name: str,
    components: Mapping[str, str],
    dtype: torch.dtype,
    device: torch.device | str,
    quantise: str | None = None,
) -> Backbone:
    """The backbone of a recipe's `model`, `components` and `quantise`.

    A Hugging Face id is fetched where it is not there yet.
    """
    folder = model_folder(name, components)
    return open_backbone(folder, dtype, device, {part: Path(file) for part, file in components.items()}, quantise)


def open_teachers(
    teachers: Mapping[str, Teacher], backbone: Backbone, slot: TeacherOffloader | None = None
) -> tuple[Adapters, dict[str, VelocityField]]:
    """The adapters of the backbone's network, and every teacher's field by name, guidance included.

    slot: where full checkpoints take turns on the device; None: all stay there.
    """
    copies = {}
    for name, teacher in teachers.items():
        if teacher.checkpoint:
            copies[name] = load_full_checkpoint(backbone.network, locate(teacher.checkpoint))
            if slot is not None:
                slot.offload(copies[name], backbone.network)
    adapters = Adapters(backbone.network)
    return adapters, {
        name: _teacher(teacher, backbone, adapters, copies.get(name), slot) for name, teacher in teachers.items()
    }


def _teacher(
    teacher: Teacher, backbone: Backbone, adapters: Adapters, copy: nn.Module | None, slot: TeacherOffloader | None
) -> VelocityField:
    if copy is not None:
        backbone, adapters = backbone.with_network(copy), Adapters(copy)
    name = adapters.add_teacher(read_lora(locate(teacher.lora), adapters.shapes)) if teacher.lora else None
    field = adapters.field(backbone.velocity, name, teacher.strength)
    if copy is not None and slot is not None:
        field = slot.field(copy, field)
    return guided(field, teacher.guidance, teacher.negative)


def _start(recipe: Recipe, backbone: Backbone, adapters: Adapters) -> Any:
    student = recipe.student
    if student.start != "fresh":
        return read_lora(locate(student.start), adapters.shapes)
    generator = torch.Generator().manual_seed(recipe.seed)
    targets = student.targets or backbone.default_targets
    return fresh_lora(adapters.shapes, student.rank, student.alpha or student.rank, targets, generator)


def route_teachers(route: Route, recipe: Recipe) -> list[Teacher]:
    """The teachers of a route: one, or those that it mixes."""
    names = [route.teacher] if isinstance(route.teacher, str) else list(route.teacher)
    return [recipe.teachers[name] for name in names]


def _field(route: Route, fields: dict[str, VelocityField]) -> VelocityField:
    if isinstance(route.teacher, str):
        return fields[route.teacher]
    return mixed([(fields[name], weight) for name, weight in route.teacher.items()])


def _negatives(route: Route, recipe: Recipe) -> list[str]:
    return sorted({teacher.negative for teacher in route_teachers(route, recipe) if teacher.guidance != 1})


def _encoded(
    bucket: Bucket, recipe: Recipe, backbone: Backbone, negatives: Sequence[str], needs_clean: bool
) -> Encoded:
    items = load_bucket(bucket, recipe.seed, recipe.width, recipe.height)
    samples = encode_items(backbone, items, recipe.width, recipe.height, negatives)
    return Encoded(items, samples, _targets(backbone, items, recipe) if needs_clean else None)


def _joined(
    learned: LearnedRouter, parts: Sequence[Encoded], recipe: Recipe, backbone: Backbone, needs_clean: bool
) -> tuple[list[Encoded], Routing]:
    negatives = [_negatives(route, recipe) for route in recipe.routes]
    asked = _encoded(learned.bucket, recipe, backbone, sorted({n for own in negatives for n in own}), needs_clean)
    names = [route.name for route in recipe.routes]
    return assign_prompts(names, parts, negatives, asked, backbone.prompt_embeddings, learned.holdout, recipe.seed)


def as_tensor(picture: Any, width: int, height: int) -> Tensor:
    """A picture, or its path, as (H, W, 3) in [0, 1]."""
    return torch.from_numpy(open_picture(picture, width, height).copy()).float() / 255


def encode_items(
    backbone: Backbone, items: Sequence[Item], width: int, height: int, negatives: Sequence[str] = ()
) -> Conditioning:
    """Prompts with their source pictures as conditioning, kept on the CPU until a batch asks for them."""
    sources = [None if item.source is None else [as_tensor(item.source, width, height)] for item in items]
    return backbone.encode([item.prompt for item in items], sources, negatives).to("cpu")


def _targets(backbone: Backbone, items: Sequence[Item], recipe: Recipe) -> Tensor:
    latents = [backbone.encode_image(as_tensor(item.target, recipe.width, recipe.height)[None]).cpu() for item in items]
    return torch.cat(latents)


def _settings(recipe: Recipe) -> Settings:
    how = recipe.optimizer
    return Settings(
        recipe.steps,
        recipe.batch,
        recipe.accumulate,
        how.lr,
        how.weight_decay,
        how.betas,
        how.clip,
        how.schedule,
        how.warmup,
        how.ema,
        recipe.seed,
    )
